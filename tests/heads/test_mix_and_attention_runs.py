"""`pipeline heads --heads mix` and `--heads attention`: from the cache to a run, and out of its file again."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.cache import FeatureCache
from pipeline.classifier import StoredClassifier
from pipeline.config import HeadsConfig, RunsConfig
from pipeline.errors import CacheError, HeadError
from pipeline.heads.attention_pooling import AttentionPoolingHead
from pipeline.heads.features import load_features, side_by_side
from pipeline.heads.scalar_mix import ScalarMixHead
from pipeline.heads.store import KINDS, load_head, save_head
from pipeline.heads.token_rows import TokenRows
from pipeline.heads.torch_head import TorchHead
from pipeline.heads.train import train_heads
from pipeline.results.ledger import Run
from pipeline.tasks.spec import BUILT_IN
from pipeline.views import parse_views
from tests import forked

MIX, ATTENTION = "L1-mean+L2-mean+L2-last", "L2-tokens"


@pytest.fixture(scope="module")
def runs(tokens_cache, tmp_path_factory) -> tuple[RunsConfig, dict[str, Run]]:
    """A run of each kind."""
    where = RunsConfig(tmp_path_factory.mktemp("runs"))
    found = {}
    for kind, views in (("mix", MIX), ("attention", ATTENTION)):
        params = ("learning_rate=0.02",) if kind == "attention" else ()
        config = HeadsConfig(tasks=("cola",), heads=(kind,), views=(views,), params=params)
        (found[kind],) = train_heads(config, tokens_cache, where)
    return where, found


@pytest.mark.parametrize(("kind", "views"), [("mix", MIX), ("attention", ATTENTION)])
def test_a_run_is_entered_and_beats_the_majority_class(runs, kind, views):
    where, found = runs
    run = found[kind]
    assert (run.head, run.config["features"]) == (kind, views)
    assert run.scores["cola"]["validation"]["mcc"] > 0.6
    assert run.selection["epochs"] >= 1
    head = load_head(where.runs_dir / run.run)
    assert type(head) is {"mix": ScalarMixHead, "attention": AttentionPoolingHead}[kind]
    with safe_open(where.runs_dir / run.run / "head.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["head"])["kind"] == kind
    if kind == "mix":
        assert head.layers == 3
        assert head.weights_.shape == (3,)


LOAD = """
import sys
from pathlib import Path
import numpy as np
from pipeline.cache import FeatureCache
from pipeline.heads.store import load_head
cache, mix, attention = map(Path, sys.argv[1:])
np.save(mix / "logits.npy", load_head(mix).logits(np.load(mix / "X.npy")))
tokens = FeatureCache(cache).open("cola", "validation", layer=2, pooling="tokens")
np.save(attention / "logits.npy", load_head(attention).logits(tokens))
"""


def test_a_head_loaded_in_a_new_process_gives_identical_logits(runs, tokens_cache, corpora, tmp_path):
    where, found = runs
    mix, attention = (where.runs_dir / found[kind].run for kind in ("mix", "attention"))
    X = np.concatenate([corpora["validation"].X[view] for view in MIX.split("+")], axis=1)
    np.save(mix / "X.npy", X)
    tokens = FeatureCache(tokens_cache.cache_dir).open("cola", "validation", layer=2, pooling="tokens")
    expected = {mix: load_head(mix).logits(X), attention: load_head(attention).logits(tokens)}
    done = forked.python(LOAD, [tokens_cache.cache_dir, mix, attention], tmp_path)
    assert done.returncode == 0, done.stderr
    for folder, logits in expected.items():
        np.testing.assert_array_equal(np.load(folder / "logits.npy"), logits)
        assert np.abs(np.diff(logits, axis=0)).max() > 0.1


@pytest.mark.parametrize(
    ("kind", "views"),
    [
        ("attention", "L1-mean"),
        ("attention", "L2-tokens+L1-mean"),
        ("attention", "L2-tokens+L2-tokens"),
        ("mix", "L1-mean"),
        ("mix", "L2-tokens"),
        ("mix", "L1-mean+L2-tokens"),
        *[(kind, "L2-tokens") for kind in ("linear", "mlp", "logreg", "ridge", "LinearDiscriminantAnalysis")],
        ("mlp", "L1-mean+L2-tokens"),
    ],
)
def test_a_view_that_a_head_cannot_take_is_refused_before_anything_is_read(config, tmp_path, kind, views):
    from pipeline.config import CacheConfig

    nothing_there = CacheConfig(tmp_path / "cache")
    with pytest.raises(HeadError, match="cannot be trained on these views") as caught:
        train_heads(replace(config, heads=(kind,), views=(views,)), nothing_there, RunsConfig(tmp_path / "runs"))
    assert (caught.value.where, caught.value.found) == (kind, views)
    fits = {"attention": "L2-tokens", "mix": "L1-mean+L2-mean"}.get(kind, "L1-mean")
    with pytest.raises(CacheError):  # these views it would have looked for
        train_heads(replace(config, heads=(kind,), views=(fits,)), nothing_there, RunsConfig(tmp_path / "runs"))


def test_settings_of_the_new_heads_are_checked(config, cache, tmp_path):
    runs = RunsConfig(tmp_path / "runs")
    mix = replace(config, heads=("mix",), views=("L1-mean+L2-mean",))
    with pytest.raises(HeadError, match="no such setting") as caught:
        train_heads(replace(config, heads=("attention",), views=(ATTENTION,), params=("hidden_size=8",)), cache, runs)
    assert caught.value.found == "hidden_size"
    with pytest.raises(HeadError, match="dropout: expected 0 to 1"):
        train_heads(replace(mix, params=("dropout=2",)), cache, runs)
    with pytest.raises(HeadError, match="not layers of equal width"):
        train_heads(replace(mix, params=("layers=3",)), cache, runs)
    (run,) = train_heads(replace(mix, params=("hidden_size=8", "max_epochs=2")), cache, runs)
    assert load_head(runs.runs_dir / run.run).hidden_size == 8


def test_tokens_are_not_put_side_by_side(tokens_cache):
    sets = [FeatureCache(tokens_cache.cache_dir).open("cola", "train", layer=2, pooling="tokens")]
    with pytest.raises(HeadError, match="tokens view"):
        side_by_side(sets)


def test_loading_a_tokens_view_reads_none_of_it(tokens_cache, config, token_corpora):
    cache = FeatureCache(tokens_cache.cache_dir)
    features = load_features(cache, BUILT_IN["cola"], parse_views(ATTENTION), config)
    assert set(features) == {"train", "validation", "test"}
    for split, rows in features.items():
        assert isinstance(rows.X, TokenRows)
        assert rows.texts == token_corpora[split].texts
        assert "_shards" not in vars(rows.X._tokens)


def test_a_large_tokens_view_is_streamed(write_cache, corpora, monkeypatch, tmp_path):
    """Training and predicting take far less memory than the features would."""
    from pipeline.views import View

    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(400, 16)).astype(np.float32) for _ in corpora["train"].texts]
    corpus = replace(corpora["train"], X={"L2-tokens": rows})
    cache = write_cache(tmp_path / "cache", {"train": corpus}, views=(View(2, "tokens"),), shard_rows=128)
    size_bytes = sum(row.nbytes for row in rows)
    monkeypatch.setattr("pipeline.heads.token_rows.WINDOW_BLOCK_BYTES", size_bytes // 60)
    monkeypatch.setattr("pipeline.heads.token_rows.BLOCK_BYTES", size_bytes // 60)
    features = FeatureCache(cache.cache_dir).open("cola", "train", layer=2, pooling="tokens")
    peaks = []
    for X in (features, TokenRows(features)[np.arange(300)], rows):
        largest = []
        read = TokenRows.read
        monkeypatch.setattr(
            TokenRows, "read", lambda self, some, read=read, largest=largest: _noted(read(self, some), largest)
        )
        tracemalloc.start()
        head = AttentionPoolingHead(max_epochs=1, batch_size=16).fit(X, corpus.truth)
        head.predict(X)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        monkeypatch.setattr(TokenRows, "read", read)
        assert max(largest) < 5 / 60 * size_bytes * 1.2
    assert max(peaks[:2]) < size_bytes / 4


def _noted(ragged, largest):
    largest.append(ragged.X.nbytes)
    return ragged


# --- what all heads of PyTorch share ---

RNG = np.random.default_rng(1)
X = RNG.normal(size=(200, 8)).astype(np.float32)
Y = np.digitize(X[:, 0] + 0.3 * RNG.normal(size=200), [-0.5, 0.5])
ROWS = [row.reshape(2, 4)[: 1 + number % 2] for number, row in enumerate(X)]
HEADS = {
    "torch": (TorchHead(hidden_size=4, max_epochs=3), X),
    "mix": (ScalarMixHead(layers=2, max_epochs=3), X),
    "attention": (AttentionPoolingHead(max_epochs=3), ROWS),
}


@pytest.fixture(params=HEADS)
def head_and_features(request):
    from sklearn.base import clone

    head, features = HEADS[request.param]
    return clone(head), features


def test_what_is_loaded_is_what_was_saved(head_and_features, tmp_path):
    head, features = head_and_features
    path = save_head(head.fit(features, Y), tmp_path)
    loaded = load_head(tmp_path)
    assert type(loaded) is type(head)
    assert loaded.get_params() == head.get_params()
    assert loaded.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(loaded.logits(features), head.logits(features))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HeadError, match="cannot be read"):
        load_head(tmp_path)


def test_a_file_without_a_kind_is_a_torch_head(tmp_path):
    head = HEADS["torch"][0].fit(X, Y)
    path = save_head(head, tmp_path)
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["head"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    assert record.pop("kind") == "torch"
    save_file(state, path, metadata={"head": json.dumps(record)})
    np.testing.assert_array_equal(load_head(tmp_path).logits(X), head.logits(X))
    assert StoredClassifier.load(path).classes == [0, 1, 2]
    save_file(state, path, metadata={"head": json.dumps({**record, "kind": "no such"})})
    with pytest.raises(HeadError, match="cannot be read"):
        load_head(tmp_path)


def test_a_head_of_another_kind_is_not_read_as_this_one(head_and_features, tmp_path):
    head, features = head_and_features
    path = save_head(head.fit(features, Y), tmp_path)
    for kind in set(HEADS) - {head.kind}:
        with pytest.raises(HeadError, match="another kind"):
            KINDS[kind].load(path)


def test_three_classes_have_a_decision_value_each_and_two_have_one(head_and_features):
    head, features = head_and_features
    three = head.fit(features, Y)
    np.testing.assert_array_equal(three.decision_function(features), three.logits(features))
    assert three.logits(features).shape == (200, 3)
    two = head.fit(features, np.where(Y == 1, 4, 9))
    logits = two.logits(features)
    assert logits.shape == (200, 2)
    np.testing.assert_array_equal(two.decision_function(features), logits[:, 1] - logits[:, 0])
    assert two.predict(features).tolist() == np.where(two.decision_function(features) > 0, 9, 4).tolist()


def test_without_held_out_rows_a_tenth_of_each_class_is_held_out(head_and_features):
    head, features = head_and_features
    mask = head._hold_out(Y)
    assert mask.sum() == 20
    shares = np.bincount(Y) / len(Y)
    np.testing.assert_allclose(np.bincount(Y[mask]) / 20, shares, atol=0.05)
    assert not np.array_equal(mask, head.set_params(random_state=1)._hold_out(Y))
    first, again = (head.fit(features, Y).logits(features) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(HeadError, match="too few rows to hold some out"):
        head.fit(features[:5], np.array([0, 0, 1, 1, 2]))


def test_rows_that_cannot_be_learned_from_are_refused(head_and_features):
    head, features = head_and_features
    held = features[:20], Y[:20]
    for message, arguments in {
        "only one class": (features, np.zeros(200, dtype=int)),
        "do not fit together": (features, Y[:-1]),
        "a class that no row": (features, Y, features[:20], np.full(20, 3)),
        "need features and labels": (features, Y, features[:20]),
    }.items():
        with pytest.raises(HeadError, match=message):
            head.fit(*arguments)
    poisoned = [row.copy() for row in features]
    poisoned[7][0] = np.inf
    with pytest.raises(HeadError, match="not finite"):
        head.fit(poisoned if isinstance(features, list) else np.stack(poisoned), Y, *held)
    head.fit(features, Y, *held)
