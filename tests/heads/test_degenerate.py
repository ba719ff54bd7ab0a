"""Rows that nothing can be learned from: one clear message each, and nothing half-done stays."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from pipeline.cache import FeatureCache
from pipeline.cache.manifest import shard_paths
from pipeline.config import RunsConfig
from pipeline.errors import CacheError, DamagedFeatureSet, HeadError
from pipeline.heads.features import side_by_side
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.sweep import sweep
from pipeline.heads.train import train_heads
from pipeline.heads_config import SweepConfig
from pipeline.tasks.spec import TaskSpec
from pipeline.views import View

SWEEP = SweepConfig(tasks=("cola",), heads=("logreg", "ridge"), views=("L1-mean",), side_by_side=0, seeds=2)


@pytest.fixture(params=["heads", "sweep"])
def command(request, config, tmp_path):
    """Both commands, on a cache of one's own; no run may stay of what fails."""

    def run(cache, **changes):
        runs = RunsConfig(tmp_path / "runs")
        if request.param == "heads":
            return train_heads(replace(config, **changes), cache, runs)
        return [each.run for each in sweep(replace(SWEEP, **changes), cache, runs)]

    yield run


def _few(corpora, split, rows, **changes):
    corpus = corpora[split]
    kept = {
        "texts": [corpus.texts[row] for row in rows],
        "labels": corpus.truth[rows],
        "truth": corpus.truth[rows],
        "idx": corpus.idx[rows],
        "X": {view: X[rows] for view, X in corpus.X.items()},
    }
    return {**corpora, split: replace(corpus, **{**kept, **changes})}


def test_one_class_only(corpora, write_cache, command, tmp_path):
    rows = np.flatnonzero(corpora["train"].truth == 1)
    cache = write_cache(tmp_path / "cache", _few(corpora, "train", rows))
    with pytest.raises(HeadError, match="only one class among the training rows") as caught:
        command(cache)
    assert caught.value.where == "cola"
    assert caught.value.found == f"{len(rows)} rows of one"


def test_fewer_rows_than_classes(corpora, write_cache, command, tmp_path):
    file = tmp_path / "shade.toml"
    file.write_text('name = "shade"\nlabels = ["a", "b", "c", "d"]\nprompt = "{}"\n')
    shade = TaskSpec(name="shade", labels=("a", "b", "c", "d"), prompt="{}")
    few = _few(corpora, "train", np.arange(3), labels=np.array([0, 1, 2]))
    cache = write_cache(tmp_path / "cache", few, task=shade)
    with pytest.raises(HeadError, match="fewer training rows than classes") as caught:
        command(cache, tasks=("shade",), task_files=(file,))
    assert (caught.value.found, caught.value.where) == (3, "shade")


def test_too_few_sentences_to_hold_some_out(corpora, write_cache, command, tmp_path):
    cache = write_cache(tmp_path / "cache", _few(corpora, "train", np.arange(8)))
    with pytest.raises(HeadError, match="too few training rows to hold some out") as caught:
        command(cache)
    assert "--held-out" in caught.value.remedy


def test_a_constant_feature_is_named_and_gets_no_weight(corpora, write_cache, command, tmp_path, capsys):
    splits = {}
    for split, corpus in corpora.items():
        X = corpus.X["L1-mean"].copy()
        X[:, 3] = 2.5
        splits[split] = replace(corpus, X={**corpus.X, "L1-mean": X})
    cache = write_cache(tmp_path / "cache", splits)
    [run] = command(cache)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert said == ["note: cola, L1-mean: 1 of 16 features does not vary and gets no weight: 3"]
    assert run.scores["cola"]["validation"]["accuracy"] > 0.8


def test_features_that_are_all_constant(corpora, write_cache, command, tmp_path):
    flat = {
        split: replace(corpus, X={**corpus.X, "L1-mean": np.ones_like(corpus.X["L1-mean"])})
        for split, corpus in corpora.items()
    }
    with pytest.raises(HeadError, match="no feature varies among the training rows") as caught:
        command(write_cache(tmp_path / "cache", flat))
    assert caught.value.where == "cola, L1-mean"


def test_nan_in_the_features_names_the_shard_and_the_row(corpora, write_cache, command, tmp_path):
    cache = write_cache(tmp_path / "cache", corpora, shard_rows=128)
    folder = FeatureCache(cache.cache_dir).open("cola", "train", layer=1, pooling="mean").folder
    path = shard_paths(folder, 1)[0]
    with h5py.File(path, "r+") as file:
        file["hidden_states"][7, 5] = np.nan
    with pytest.raises(DamagedFeatureSet, match="not finite") as caught:
        command(cache)
    assert caught.value.where == path
    assert caught.value.found == f"row {128 + 7}, feature 5, nan"


def test_views_of_different_splits_do_not_stand_side_by_side(cache):
    features = FeatureCache(cache.cache_dir)
    train = features.open("cola", "train", layer=1, pooling="mean")
    other = features.open("cola", "validation", layer=2, pooling="mean")
    with pytest.raises(CacheError, match="must be of the same sentences") as caught:
        side_by_side([train, other])
    assert (caught.value.expected, caught.value.found) == (
        f"cola/train/{train.manifest.name}",
        f"cola/validation/{other.manifest.name}",
    )
    assert side_by_side([train, features.open("cola", "train", layer=2, pooling="mean")]).X.shape == (300, 32)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X, y: (X, np.zeros_like(y)), "only one class"),
        (lambda X, y: (np.where(np.arange(X.size).reshape(X.shape) == 37, np.nan, X), y), "not finite"),
        (lambda X, y: (np.ones_like(X), y), "no feature varies"),
        (lambda X, y: (X[:-1], y), "do not fit together"),
    ],
    ids=["one class", "nan", "constant", "lengths"],
)
def test_a_linear_head_refuses_rows_of_ones_own(spoil, message):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, 5)).astype(np.float32), np.arange(40) % 2
    LinearHead().fit(X, y)
    with pytest.raises(HeadError, match=message) as caught:
        LinearHead().fit(*spoil(X, y))
    if message == "not finite":
        assert caught.value.where == "X, row 7, feature 2"


def test_a_view_that_the_cache_does_not_hold(cache, command):
    with pytest.raises(CacheError, match="no such features"):
        command(cache, views=(str(View(0, "mean")),))
