"""What goes wrong is said in the project's words: what was wanted, what was found, and nothing half-done stays."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from pipeline.cache import FeatureCache
from pipeline.cli import app
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.errors import CacheError, ConfigError, FeatureSetNotFound, HeadError
from pipeline.heads.features import load_features
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.torch_head import TorchHead
from pipeline.heads.train import train_heads
from pipeline.tasks.spec import BUILT_IN
from pipeline.views import View, parse_views

COLA = BUILT_IN["cola"]


@pytest.fixture
def runs_dir(tmp_path):
    """Where nothing may stay behind."""
    folder = tmp_path / "runs"
    yield folder
    assert not folder.exists() or list(folder.iterdir()) == []


def test_an_unknown_head_is_refused(cache, config, runs_dir):
    with pytest.raises(HeadError, match="no such head") as caught:
        train_heads(replace(config, heads=("LogisticRegresion",)), cache, RunsConfig(runs_dir))
    assert caught.value.found == "LogisticRegresion"
    assert all(name in caught.value.expected for name in ("logreg", "linear", "mlp", "LinearSVC"))


@pytest.mark.parametrize("name", ["VotingClassifier", "ClassifierChain", "Ridge", "StandardScaler", "object"])
def test_what_is_no_classifier_of_its_own_is_refused(cache, config, runs_dir, name):
    with pytest.raises(HeadError):
        train_heads(replace(config, heads=(name,)), cache, RunsConfig(runs_dir))


@pytest.mark.parametrize("head", ["logreg", "linear", "RidgeClassifier"])
def test_a_setting_that_a_head_does_not_have_is_refused(cache, config, runs_dir, head):
    with pytest.raises(HeadError, match="no such setting") as caught:
        train_heads(replace(config, heads=(head,), params=("temperature=2",)), cache, RunsConfig(runs_dir))
    assert caught.value.found == "temperature"
    assert {"logreg": "C", "linear": "weight_decay", "RidgeClassifier": "alpha"}[head] in caught.value.expected


@pytest.mark.parametrize(
    ("head", "param"),
    [
        ("logreg", "C=-1"),
        ("LogisticRegression", "penalty=l7"),
        ("logreg", "C=strong"),
        ("RidgeClassifier", "alpha=much"),
    ],
)
def test_a_value_that_scikit_learn_refuses_is_an_error_of_the_project(cache, config, runs_dir, head, param):
    with pytest.raises(HeadError):
        train_heads(replace(config, heads=(head,), params=(param,)), cache, RunsConfig(runs_dir))


@pytest.mark.parametrize(
    "param",
    ["learning_rate=-1", "learning_rate=fast", "hidden_size=-3", "dropout=2", "batch_size=0", "max_epochs=0"],
)
def test_a_value_that_a_torch_head_cannot_take_is_an_error_of_the_project(cache, config, runs_dir, param):
    with pytest.raises(HeadError):
        train_heads(replace(config, heads=("mlp",), params=(param,)), cache, RunsConfig(runs_dir))


def test_a_setting_without_an_equals_sign_is_refused_with_all_other_trouble():
    with pytest.raises(ConfigError) as caught:
        HeadsConfig(params=("C", "C=1"), where=("layer 3",), held_out=0.7, seed=-1, threads=-2, heads=())
    message = str(caught.value)
    for part in ("params: expected <field>=<value>, found 'C'", "'layer 3'", "0.7", "seed", "threads", "heads"):
        assert part in message
    assert "'C=1'" not in message
    HeadsConfig(params=("C=1",))


@pytest.mark.parametrize("held_out", [0.0, -0.1, 0.51, 1.0, float("nan")])
def test_a_share_that_cannot_be_held_out_is_refused(held_out):
    with pytest.raises(ConfigError, match="held_out"):
        HeadsConfig(held_out=held_out)
    assert HeadsConfig(held_out=0.5).held_out == 0.5


@pytest.mark.parametrize("view", ["mean", "L1", "1-mean", "L1-median", "Lx-mean", "L1-mean+", ""])
def test_what_is_no_view_is_refused(cache, config, runs_dir, view):
    with pytest.raises(ConfigError):
        train_heads(replace(config, views=(view,)), cache, RunsConfig(runs_dir))


def test_a_view_that_the_cache_does_not_hold_is_not_replaced_by_the_nearest(cache, config, runs_dir):
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(replace(config, views=("L1-last",)), cache, RunsConfig(runs_dir))
    lines = [line.split() for line in str(caught.value).splitlines()]
    assert ["field", "wanted", "found"] in lines
    assert ["layer", "1", "2"] in lines or ["pooling", "last", "mean"] in lines
    with pytest.raises(FeatureSetNotFound, match=r"layer +0 +[12]"):
        train_heads(replace(config, views=("L0-mean",)), cache, RunsConfig(runs_dir))


@pytest.mark.parametrize(
    ("setting", "row"),
    [
        ({"quantization": "int8"}, ["quantization.type", "int8", "nf4"]),
        ({"data": "sample"}, ["source", "sample", "glue"]),
        ({"backbone": "meta-llama/Llama-3"}, ["backbone", "llama-3", "smollm2-135m"]),
        ({"where": ("max_length=99",)}, ["max_length", "99", "512"]),
        ({"where": ("quantization.compute_dtype=bfloat16",)}, ["quantization.compute_dtype", "bfloat16", "float32"]),
        ({"where": ("no_such_field=1",)}, ["no_such_field", "1", "(absent)"]),
    ],
)
def test_features_that_are_not_there_are_told_by_the_fields_that_differ(cache, config, runs_dir, setting, row):
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(replace(config, **setting), cache, RunsConfig(runs_dir))
    lines = [line.split() for line in str(caught.value).splitlines()]
    assert ["field", "wanted", "found"] in lines
    assert lines[lines.index(["field", "wanted", "found"]) + 1] == row
    assert row not in [line.split() for line in str(FeatureSetNotFound("another")).splitlines()]


def test_the_command_that_would_write_what_is_missing_is_one_of_stage_one(cache, config, runs_dir):
    where = ("quantization.compute_dtype=bfloat16", "max_length=99")
    wanted = replace(config, views=("L0-mean+L2-last",), quantization="int8", prompt="Is it so? {}", where=where)
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(wanted, cache, RunsConfig(runs_dir))
    words = shlex.split(caught.value.remedy.partition("To write them: ")[2])
    assert words[:2] == ["pipeline", "extract"]
    _, bound, _ = app.parse_args(words[1:], print_error=False, exit_on_error=False)
    settings = bound.arguments
    assert (settings["data"].data, settings["backbone"].quantization) == ("glue", "int8")
    assert (settings["what"].tasks, settings["tokens"].prompt) == (("cola",), "Is it so? {}")
    assert (settings["what"].layers, settings["what"].poolings) == (("0", "2"), ("mean", "last"))
    assert (settings["backbone"].compute_dtype, settings["tokens"].max_length) == ("bfloat16", 99)
    assert settings["cache"].cache_dir == cache.cache_dir
    with pytest.raises(FeatureSetNotFound) as caught:  # of this field stage one has no option
        train_heads(replace(config, where=("tokenizer=sha256:00",)), cache, RunsConfig(runs_dir))
    assert "pipeline extract" in caught.value.remedy
    assert "To write them" not in caught.value.remedy


@pytest.mark.parametrize(
    ("setting", "what", "remedy"),
    [
        ({"backbone": "smollm"}, "no backbone is called smollm", "did you mean smollm2-135m?"),
        ({"backbone": "gpt"}, "no backbone is called gpt", "deepseek-r1-distill-llama-8b, a Hub id"),
        ({"views": ("L77-mean",)}, "smollm2-135m: the backbone has no such layer", "name a layer that it has"),
    ],
)
def test_a_remedy_that_could_not_work_is_not_given(cache, config, runs_dir, setting, what, remedy):
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(replace(config, **setting), cache, RunsConfig(runs_dir))
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert "pipeline extract" not in caught.value.remedy
    assert ("0 (embeddings) to" in str(caught.value.expected)) == ("views" in setting)


@pytest.mark.parametrize(("data", "words"), [("sampel", "did you mean sample?"), ("nowhere", "your own files")])
def test_a_source_that_is_none_is_said_to_be_none(cache, config, write_cache, corpora, runs_dir, tmp_path, data, words):
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(replace(config, data=data), cache, RunsConfig(runs_dir))
    assert f"{data} is neither a source (glue | hub | sample) nor a folder here" in caught.value.what
    assert caught.value.remedy.endswith(words)
    own = write_cache(tmp_path / "own", corpora, source="files")
    with pytest.raises(FeatureSetNotFound) as caught:  # features of own files were copied here without the files
        train_heads(replace(config, data=data, quantization="int8"), own, RunsConfig(runs_dir))
    assert "ask for what is there with --quantization" in caught.value.remedy
    (tmp_path / "mine").mkdir()
    with pytest.raises(FeatureSetNotFound) as caught:  # a folder may be what nobody has extracted yet
        train_heads(replace(config, data=str(tmp_path / "mine")), cache, RunsConfig(runs_dir))
    assert f"--data {tmp_path}" in caught.value.remedy


def test_another_prompt_is_another_feature(cache, config, runs_dir):
    with pytest.raises(FeatureSetNotFound, match="prompt"):
        train_heads(replace(config, prompt="Sentence: {}"), cache, RunsConfig(runs_dir))


def test_a_task_that_the_cache_does_not_hold_says_what_is_there(cache, config, runs_dir):
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(replace(config, tasks=("sst2",)), cache, RunsConfig(runs_dir))
    assert caught.value.found == "cola/test, cola/train, cola/validation"
    assert "pipeline extract" in caught.value.remedy


def test_validation_must_be_there(write_cache, corpora, config, tmp_path, runs_dir):
    cache = write_cache(tmp_path / "cache", {"train": corpora["train"]})
    with pytest.raises(FeatureSetNotFound, match="cola/validation"):
        train_heads(config, cache, RunsConfig(runs_dir))


def test_validation_must_have_the_identity_of_train(write_cache, corpora, config, tmp_path, runs_dir):
    cache = write_cache(tmp_path / "cache", {"train": corpora["train"]}, max_length=128)
    write_cache(tmp_path / "cache", {"validation": corpora["validation"]}, max_length=512)
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(config, cache, RunsConfig(runs_dir))
    assert ["max_length", "128", "512"] in [line.split() for line in str(caught.value).splitlines()]


def test_two_feature_sets_that_match_are_never_chosen_between(write_cache, corpora, config, tmp_path):
    for max_length in (512, 128):
        cache = write_cache(tmp_path / "cache", corpora, max_length=max_length)
    with pytest.raises(CacheError, match="2 feature sets") as caught:
        train_heads(config, cache, RunsConfig(tmp_path / "runs"))
    assert "which differ in max_length:" in caught.value.what
    (run,) = train_heads(replace(config, where=("max_length=128",)), cache, RunsConfig(tmp_path / "runs"))
    expected = FeatureCache(cache.cache_dir).open("cola", "train", layer=1, identity={"max_length": 128}).fingerprint
    assert run.features["cola"]["train"] == [expected]


def test_a_backbone_of_another_depth_in_the_cache_is_not_in_the_way(cache, config, tmp_path, write_cache, corpora):
    """A cache holds several backbones; a layer that only the deeper one has is found in the deeper one."""
    import shutil

    from pipeline.cache.manifest import MANIFEST, Manifest

    shutil.copytree(cache.cache_dir, tmp_path / "cache")
    for path in sorted((tmp_path / "cache").glob(f"*/*/*/{MANIFEST}")):
        manifest = Manifest.read(path.parent)
        identity = manifest.identity
        architecture = {**identity.architecture, "num_hidden_layers": 30}
        deep = replace(
            manifest,
            backbone="deep-llama",
            identity=replace(identity, architecture=architecture, layer=identity.layer + 20),
        )
        folder = shutil.copytree(path.parent, path.parent.with_name(deep.name))
        deep.write(folder)
    both = CacheConfig(tmp_path / "cache")
    names = load_features(FeatureCache(both.cache_dir), COLA, parse_views("L1-mean"), config)
    assert set(names) == {"train", "validation", "test"}
    deeper = replace(config, backbone="deep-llama")
    features = load_features(FeatureCache(both.cache_dir), COLA, parse_views("L21-mean"), deeper)
    np.testing.assert_array_equal(features["train"].X, corpora["train"].X["L1-mean"])


def test_views_of_other_sentences_do_not_stand_side_by_side(write_cache, corpora, config, tmp_path, runs_dir):
    train = corpora["train"]
    others = {**corpora, "train": replace(train, texts=[text + " Indeed." for text in train.texts])}
    cache = write_cache(tmp_path / "cache", corpora, views=(View(1, "mean"),))
    write_cache(tmp_path / "cache", others, views=(View(2, "last"),))
    with pytest.raises(CacheError, match="of the same sentences"):
        train_heads(replace(config, views=("L1-mean+L2-last",)), cache, RunsConfig(runs_dir))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_labels_is_not_trained_or_scored_on(write_cache, corpora, config, tmp_path, runs_dir, split):
    cache = write_cache(tmp_path / "cache", {**corpora, split: replace(corpora[split], labels=None)})
    with pytest.raises((HeadError, CacheError), match="no labels"):
        train_heads(config, cache, RunsConfig(runs_dir))


def test_too_few_rows_are_refused_before_anything_is_trained(write_cache, corpora, config, tmp_path, runs_dir):
    train = corpora["train"]
    few = replace(
        train,
        texts=train.texts[:12],
        labels=train.truth[:12],
        truth=train.truth[:12],
        idx=train.idx[:12],
        X={view: states[:12] for view, states in train.X.items()},
    )
    cache = write_cache(tmp_path / "cache", {**corpora, "train": few})
    with pytest.raises(HeadError, match="too few training rows"):
        train_heads(config, cache, RunsConfig(runs_dir))


def test_a_runs_folder_that_cannot_be_made_is_said(cache, config, tmp_path):
    from pipeline.errors import RunError

    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be stored"):
        train_heads(config, cache, RunsConfig(tmp_path / "file" / "runs"))


def test_where_two_corpora_match_the_line_of_each_says_how_to_get_it(config, write_cache, corpora, tmp_path):
    """As after sentences of one's own were edited: both versions are there, and neither is guessed."""
    folder, runs = tmp_path / "both", RunsConfig(tmp_path / "runs")
    shorter = {
        split: replace(
            corpus,
            texts=corpus.texts[:-5],
            labels=None if corpus.labels is None else corpus.labels[:-5],
            idx=corpus.idx[:-5],
            X={view: X[:-5] for view, X in corpus.X.items()},
        )
        for split, corpus in corpora.items()
    }
    for version in (corpora, shorter):
        where = write_cache(folder, version)
    settings: list[str] = []
    for split in ("train", "validation", "test"):
        with pytest.raises(CacheError, match=f"2 feature sets of cola/{split} match") as caught:
            train_heads(replace(config, where=tuple(settings)), where, runs)
        (line,) = (line for line in str(caught.value).splitlines() if f" {len(shorter[split].texts)} rows, " in line)
        option, setting = shlex.split(line.split(" rows, ")[1])
        assert option == "--where"
        settings.append(setting)
    (run,) = train_heads(replace(config, where=tuple(settings)), where, runs)
    assert len(run.scores["cola"]) == 2


def test_a_misspelt_head_is_told_what_it_may_have_meant(train):
    with pytest.raises(HeadError, match=r"did you mean LinearSVC\?"):
        train(heads=("LinearSVM",))
    with pytest.raises(HeadError, match="no such head") as caught:
        train(heads=("xyzzy",))
    assert caught.value.remedy is None


@pytest.mark.parametrize("head", [LinearHead(), TorchHead(max_epochs=1)], ids=["linear_head", "torch_head"])
def test_a_head_that_is_not_fitted_and_rows_that_are_not_finite(head):
    head, random = clone(head), np.random.default_rng(0)
    X, y = random.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    with pytest.raises(NotFittedError):
        head.predict(X)
    head.fit(X, y)
    assert head.predict(X).shape == (60,)
    assert head.predict(X[:0]).shape == (0,)
    X[7, 2] = np.nan
    for ask in (head.predict, head.predict_proba, head.decision_function):
        with pytest.raises(HeadError, match=r"not finite(.|\n)*row 7"):
            ask(X)
