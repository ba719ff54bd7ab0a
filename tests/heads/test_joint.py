"""Joint heads: the frozen one stays to the bit, the rest learns, and separate heads are what it is held against."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, matthews_corrcoef

from pipeline.config import HeadsConfig, RunsConfig
from pipeline.errors import ConfigError, FeatureSetNotFound, HeadError
from pipeline.heads import joint as joint_heads
from pipeline.heads.joint import train_joint
from pipeline.heads.store import load_head
from pipeline.heads.train import train_heads
from pipeline.heads_config import JointConfig
from pipeline.results.ledger import read_predictions, read_runs
from pipeline.tasks.spec import BUILT_IN
from pipeline.views import View
from tests import forked

CONFIG = JointConfig(
    seeds=2, hidden_size=12, dropout=0.1, batch_size=32, evaluation_steps=10, patience=4, max_steps=200
)
ONE = replace(CONFIG, seeds=1)
HEAD = ("body.3.weight", "body.3.bias")
TRUNK = ("body.0.weight", "body.0.bias")
METRICS = {"cola": ("mcc", matthews_corrcoef), "sst2": ("accuracy", accuracy_score)}


@pytest.fixture(scope="module")
def both(corpora):
    """CoLA's small corpora, and SST-2's of the same sentences: other labels, which other directions tell."""
    random = np.random.default_rng(8)
    directions = {name: random.normal(size=X.shape[1]) for name, X in corpora["train"].X.items()}
    of_sst2 = {}
    for split, corpus in corpora.items():
        truth = (random.random(len(corpus.texts)) < 0.5).astype(np.int64)
        X = {}
        for name, direction in directions.items():
            apart = np.outer(2 * truth - 1, 1.5 * direction / np.linalg.norm(direction))
            X[name] = (apart + random.normal(size=apart.shape)).astype(np.float32)
        of_sst2[split] = replace(corpus, truth=truth, labels=None if corpus.labels is None else truth, X=X)
    return {"cola": corpora, "sst2": of_sst2}


@pytest.fixture(scope="module")
def write_both(write_cache):
    """Write both tasks' corpora into one cache."""

    def write(folder, both, **changes):
        for task, corpora in both.items():
            config = write_cache(folder, corpora, task=BUILT_IN[task], **changes)
        return config

    return write


@pytest.fixture(scope="module")
def cache_of_both(write_both, both, tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("both"), both)


@pytest.fixture(scope="module")
def done(cache_of_both, tmp_path_factory):
    """The whole table once, and where its runs lie."""
    runs = RunsConfig(tmp_path_factory.mktemp("runs"))
    return train_joint(CONFIG, cache_of_both, runs), runs


def find(done, freeze, seed=0, task=None):
    """The run of a training; freeze None is the separate one of a task."""
    joint, _ = done
    [run] = [
        run
        for run in joint.runs
        if (run.selection["freeze"], run.seed) == (freeze, seed) and (task is None or run.tasks == (task,))
    ]
    return run


def tensors(done, run, task):
    folder = done[1].runs_dir / run.run
    return load_file(
        folder / "head.safetensors" if run.head == "separate" else folder / "joint" / f"{task}.safetensors"
    )


def same(a, b, names):
    return all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in names)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("frozen", "other"), [("cola", "sst2"), ("sst2", "cola")])
def test_the_frozen_head_stays_to_the_bit_while_the_other_head_and_the_trunk_train(done, frozen, other, seed):
    before = find(done, None, seed, frozen)
    run = find(done, frozen, seed)
    start, end = tensors(done, before, frozen), tensors(done, run, frozen)
    assert same(start, end, (*HEAD, "mean", "scale"))
    assert not same(start, end, TRUNK)  # it has gone on training
    assert same(end, tensors(done, run, other), TRUNK)  # and is one for both
    assert tensors(done, run, other)["body.3.weight"].abs().max() > 0  # it began at zero
    record = run.selection["frozen_head"]
    assert record["task"] == frozen
    assert record["before"] == record["after"]
    assert record["before"].startswith("sha256:")
    assert run.selection["begins_as"] == before.run
    free = find(done, "none", seed)  # the control: a head that is not frozen does change
    assert not same(start, tensors(done, free, frozen), HEAD)
    assert free.selection["frozen_head"] is None
    assert free.selection["begins_as"] is None


@pytest.mark.parametrize("frozen", ["cola", "sst2"])
def test_a_joint_training_begins_as_the_separate_one_of_the_frozen_head_ended(done, frozen):
    before, run = find(done, None, task=frozen), find(done, frozen)
    losses = [each["held_out_loss"][frozen] for each in before.selection["evaluations"]]
    assert run.selection["evaluations"][0]["held_out_loss"][frozen] == pytest.approx(min(losses), rel=1e-6)
    assert find(done, "none").selection["evaluations"][0]["held_out_loss"][frozen] > 1.2 * min(losses)


def test_weights_of_the_lowest_mean_held_out_loss_are_kept(done):
    for run in done[0].runs:
        means = {each["step"]: np.mean(list(each["held_out_loss"].values())) for each in run.selection["evaluations"]}
        assert min(means, key=means.get) == run.selection["step"]
        assert len(means) == run.selection["tried"]


def test_separate_and_joint_trainings_look_at_held_out_rows_equally_often(done):
    for run in done[0].runs:
        steps = [each["step"] for each in run.selection["evaluations"]]
        assert steps[:3] == [0, 9, 18]  # an epoch of 270 rows in batches of 32; 10 were asked for
        assert all(step % 9 == 0 for step in steps[:-1])


def test_runs_say_which_rows_their_held_out_scores_are_of(done, cache_of_both, tmp_path):
    heads = HeadsConfig(tasks=("cola",), heads=("ridge",), views=("L1-mean",))
    [same, other] = [train_heads(replace(heads, seed=seed), cache_of_both, RunsConfig(tmp_path))[0] for seed in (0, 1)]
    of_joint = find(done, "none").statistics
    assert of_joint["cola"]["held_out"]["texts"] == same.statistics["cola"]["held_out"]["texts"]
    assert other.statistics["cola"]["held_out"] != same.statistics["cola"]["held_out"]


def test_the_ledger_holds_every_training_with_what_it_was_trained_on(done):
    joint, runs = done
    kinds = [("separate", ("cola",)), ("separate", ("sst2",)), *[("joint", ("cola", "sst2"))] * 3]
    assert [(run.head, run.tasks) for run in joint.runs] == kinds * 2
    assert [run.selection["freeze"] for run in joint.runs] == [None, None, "none", "cola", "sst2"] * 2
    assert [run.seed for run in joint.runs] == [0] * 5 + [1] * 5
    assert read_runs(runs.runs_dir) == joint.runs
    run = find(done, "cola")
    assert run.path == "cached"
    assert run.config["features"] == "L1-mean"  # the first view that both tasks list and the cache holds
    assert run.config["views"] == {"cola": "L1-mean", "sst2": "L1-mean"}
    assert [(each.config["seed"], each.config["freeze"]) for each in joint.runs] == [
        (each.seed, each.selection["freeze"]) for each in joint.runs
    ]
    assert set(run.features) == {"cola", "sst2"}
    assert all(set(run.features[task]) == {"train", "validation", "test"} for task in run.tasks)
    assert set(run.statistics["cola"]["validation"]["intervals"]) >= {"mcc", "accuracy"}
    assert not [path for path in runs.runs_dir.iterdir() if path.name.startswith(".")]  # no state is left


def test_what_is_stored_gives_the_predictions_and_these_the_scores(done, both):
    joint, runs = done
    for run in joint.runs:
        listed = read_predictions(runs.runs_dir / run.run).to_pylist()
        for task in run.tasks:
            corpus = both[task]["validation"]
            rows = [row for row in listed if (row["task"], row["split"]) == (task, "validation")]
            predicted = [row["prediction"] for row in rows]
            assert [row["idx"] for row in rows] == corpus.idx.tolist()
            head = load_head(runs.runs_dir / run.run, task)
            assert head.predict(corpus.X["L1-mean"]).tolist() == predicted
            metric, of_sklearn = METRICS[task]
            found = run.scores[task]["validation"]
            assert found[metric] == of_sklearn(corpus.truth, predicted)
            assert found["accuracy"] > run.baseline[task]["validation"]["accuracy"] + 0.05
            assert {"mcc", "accuracy"} <= set(run.scores[task]["held_out"])


def test_comparisons_are_of_the_mean_over_seeds(done):
    joint, _ = done
    assert [(each.task, each.freeze) for each in joint.comparisons] == [
        (task, freeze) for task in ("cola", "sst2") for freeze in ("none", "cola", "sst2")
    ]
    for each in joint.comparisons:
        metric, _ = METRICS[each.task]
        of_joint = [find(done, each.freeze, seed).scores[each.task]["validation"][metric] for seed in (0, 1)]
        of_alone = [find(done, None, seed, each.task).scores[each.task]["validation"][metric] for seed in (0, 1)]
        assert (each.metric, each.rows, each.seeds) == (metric, 80, (0, 1))
        assert each.joint.interval.estimate == pytest.approx(np.mean(of_joint))
        assert each.separate.interval.estimate == pytest.approx(np.mean(of_alone))
        assert each.difference.estimate == pytest.approx(np.mean(of_joint) - np.mean(of_alone))
        assert each.difference.low <= each.difference.estimate <= each.difference.high


LOGITS = """
import sys
from pathlib import Path
import numpy as np
from pipeline.heads.store import load_head
X = np.load(sys.argv[1])
for task in ("cola", "sst2"):
    np.save(Path(sys.argv[1]).with_name(f"{task}.npy"), load_head(Path(sys.argv[2]), task).decision_function(X))
"""


def test_a_new_process_gives_identical_logits(done, both, tmp_path):
    X = both["cola"]["validation"].X["L1-mean"]
    np.save(tmp_path / "X.npy", X)
    folder = done[1].runs_dir / find(done, "sst2").run
    ended = forked.python(LOGITS, [tmp_path / "X.npy", folder], tmp_path)
    assert ended.returncode == 0, ended.stderr
    logits = {task: np.load(tmp_path / f"{task}.npy") for task in ("cola", "sst2")}
    for task, found in logits.items():
        assert found.tobytes() == load_head(folder, task).decision_function(X).tobytes()
    assert not np.array_equal(logits["cola"], logits["sst2"])
    with pytest.raises(HeadError, match="heads of several tasks"):
        load_head(folder)
    (only,) = [run for run in done[0].runs if (run.tasks, run.seed) == (("cola",), 0)]
    assert load_head(done[1].runs_dir / only.run).classes_.tolist() == [0, 1]


def test_the_same_command_trains_the_same_weights_whatever_validation_says(done, both, write_both, tmp_path):
    turned = {
        task: {**corpora, "validation": replace(corpora["validation"], labels=1 - corpora["validation"].truth)}
        for task, corpora in both.items()
    }
    runs = RunsConfig(tmp_path / "runs")
    other = train_joint(replace(ONE, freeze="sst2"), write_both(tmp_path / "cache", turned), runs), runs
    assert [run.selection["freeze"] for run in other[0].runs] == [None, None, "sst2"]  # for a single one too
    for freeze, task in ((None, "cola"), (None, "sst2"), ("sst2", "cola"), ("sst2", "sst2")):
        pair = [find(each, freeze, task=task if freeze is None else None) for each in (done, other)]
        mine, theirs = (tensors(each, run, task) for each, run in zip((done, other), pair, strict=True))
        assert same(mine, theirs, mine)
        accuracies = [run.scores[task]["validation"]["accuracy"] for run in pair]
        assert sum(accuracies) == pytest.approx(1)


def test_a_task_of_noise_does_not_keep_the_other_from_learning(both, write_both, tmp_path):
    random = np.random.default_rng(4)
    noise = {
        split: replace(corpus, X={name: random.normal(size=X.shape).astype(np.float32) for name, X in corpus.X.items()})
        for split, corpus in both["sst2"].items()
    }
    cache = write_both(tmp_path / "cache", {"cola": both["cola"], "sst2": noise})
    found = train_joint(ONE, cache, RunsConfig(tmp_path / "runs"))
    joint = [run for run in found.runs if run.head == "joint"]
    assert len(joint) == 3
    assert all(run.scores["cola"]["validation"]["mcc"] > 0.4 for run in joint)
    assert all(abs(run.scores["sst2"]["validation"]["mcc"]) < 0.3 for run in joint)


def test_a_stopped_command_goes_on_and_comes_to_the_same(done, cache_of_both, tmp_path, monkeypatch):
    runs, real, trained = RunsConfig(tmp_path / "runs"), joint_heads.train_trunk, []

    def stops(rows, config, *, label, **rest):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(label)
        return real(rows, config, label=label, **rest)

    monkeypatch.setattr(joint_heads, "train_trunk", stops)
    with pytest.raises(KeyboardInterrupt):
        train_joint(CONFIG, cache_of_both, runs)
    assert len(read_runs(runs.runs_dir)) == 3
    then = []
    monkeypatch.setattr(
        joint_heads, "train_trunk", lambda *rows, label, **rest: then.append(label) or real(*rows, label=label, **rest)
    )
    again = train_joint(CONFIG, cache_of_both, runs)
    assert len(trained) + len(then) == len(again.runs) == len(set(trained + then)) == 10
    assert [run.scores for run in again.runs] == [run.scores for run in done[0].runs]
    assert [each.difference for each in again.comparisons] == [each.difference for each in done[0].comparisons]
    assert len(read_runs(runs.runs_dir)) == 10
    train_joint(replace(ONE, freeze="none"), cache_of_both, runs)
    assert len(read_runs(runs.runs_dir)) == 13  # the control: a command that was done begins anew


def test_a_head_from_an_earlier_run_is_frozen_and_sees_the_rows_that_were_held_out_of_it(done, cache_of_both, tmp_path):
    before = find(done, None, task="cola")
    config = replace(ONE, freeze="cola", seed=7, head_from=before.run)
    found = train_joint(config, cache_of_both, done[1])
    assert [run.tasks for run in found.runs] == [("sst2",), ("cola", "sst2")]
    run = found.runs[-1]
    assert run.selection["begins_as"] == run.config["head_from"] == before.run
    assert same(tensors(done, run, "cola"), tensors(done, before, "cola"), (*HEAD, "mean", "scale"))
    best = next(e for e in before.selection["evaluations"] if e["step"] == before.selection["step"])
    first = run.selection["evaluations"][0]["held_out_loss"]["cola"]
    assert first == pytest.approx(best["held_out_loss"]["cola"], rel=1e-6)
    [of_cola] = [each for each in found.comparisons if each.task == "cola"]
    assert of_cola.separate_runs == (before.run,)


def test_a_head_that_does_not_fit_is_refused(done, cache_of_both, tmp_path):
    separate = find(done, None, task="cola")
    config = replace(ONE, freeze="cola", head_from=separate.run)
    with pytest.raises(
        ConfigError, match=r"other hidden_size\n[\s\S]*expected: hidden_size 16\n  found: hidden_size 12"
    ):
        train_joint(replace(config, hidden_size=16), cache_of_both, done[1])
    with pytest.raises(ConfigError, match="other features"):
        train_joint(replace(config, views=("L2-mean",)), cache_of_both, done[1])
    with pytest.raises(ConfigError, match="run is of other tasks"):
        train_joint(replace(config, freeze="sst2"), cache_of_both, done[1])
    [other] = train_heads(HeadsConfig(tasks=("cola",), heads=("logreg",), views=("L1-mean",)), cache_of_both, done[1])
    for run in (other, find(done, "sst2")):  # a joint run's trunk has seen rows that are held out of the other task
        with pytest.raises(ConfigError, match="did not train a separate head on a trunk"):
            train_joint(replace(config, head_from=run.run), cache_of_both, done[1])


@pytest.mark.parametrize(
    ("views", "error", "parts"),
    [
        (("L1-mean", "L1-mean+L2-mean"), ConfigError, ("not equally wide", "sst2: L1-mean+L2-mean, 32", "L2-last")),
        (("L0-mean",), FeatureSetNotFound, ("no such features of cola/train", "nearest", "layer")),
        (("L2-mean", "L1-last"), FeatureSetNotFound, ("no such features of sst2/train",)),
        (("L1-tokens",), ConfigError, ("one vector a row",)),
        (("L1",), ConfigError, ("no view",)),
    ],
)
def test_views_that_cannot_be_trained_on_are_refused(cache_of_both, tmp_path, views, error, parts):
    with pytest.raises(error) as refused:
        train_joint(replace(ONE, views=views), cache_of_both, RunsConfig(tmp_path / "runs"))
    assert all(part in str(refused.value) for part in parts), refused.value
    assert not list((tmp_path / "runs").glob("*/run.json"))


def test_each_task_may_have_views_of_its_own_of_one_width(cache_of_both, tmp_path):
    found = train_joint(
        replace(ONE, freeze="none", views=("L1-mean+L2-last", "L2-mean+L1-mean")),
        cache_of_both,
        RunsConfig(tmp_path / "runs"),
    )
    run = found.runs[-1]
    assert run.config["views"] == {"cola": "L1-mean+L2-last", "sst2": "L2-mean+L1-mean"}
    folder = tmp_path / "runs" / run.run / "joint"
    assert {path.name: load_file(path)["body.0.weight"].shape for path in folder.iterdir()} == dict.fromkeys(
        ("cola.safetensors", "sst2.safetensors"), torch.Size([12, 32])
    )


def test_tasks_that_share_no_cached_view_must_be_told_which(both, write_cache, tmp_path):
    write_cache(tmp_path / "cache", both["cola"], views=(View(2, "mean"),))
    cache = write_cache(tmp_path / "cache", both["sst2"], task=BUILT_IN["sst2"], views=(View(2, "last"),))
    runs = RunsConfig(tmp_path / "runs")
    with pytest.raises(ConfigError) as refused:
        train_joint(ONE, cache, runs)
    message = str(refused.value)
    assert "share no view" in message
    assert "cola lists L1-mean" in message
    assert "of cola: L2-mean; the cache holds of sst2: L2-last" in message
    assert train_joint(replace(ONE, freeze="none", views=("L2-mean", "L2-last")), cache, runs).runs


def test_rows_of_one_class_are_refused(both, write_both, tmp_path):
    ones = {
        split: replace(corpus, labels=None if corpus.labels is None else np.ones_like(corpus.labels))
        for split, corpus in both["sst2"].items()
    }
    cache = write_both(tmp_path / "cache", {"cola": both["cola"], "sst2": ones})
    with pytest.raises(HeadError, match="only one class"):
        train_joint(ONE, cache, RunsConfig(tmp_path / "runs"))


def test_a_training_that_diverges_says_so(cache_of_both, tmp_path):
    with pytest.raises(HeadError, match="diverged"):
        train_joint(replace(ONE, learning_rate=1e30), cache_of_both, RunsConfig(tmp_path / "runs"))


def test_all_settings_that_are_wrong_are_said_at_once():
    with pytest.raises(ConfigError) as refused:
        JointConfig(
            tasks=("cola",), freeze="mnli", head_from="a", views=("a", "b", "c"), seeds=0, hidden_size=0,
            dropout=1.0, learning_rate=0.0, weight_decay=-1.0, batch_size=0, evaluation_steps=0, patience=0,
            max_steps=0,
        )  # fmt: skip
    names = (
        "tasks", "freeze", "head_from", "views", "seeds", "hidden_size", "dropout", "learning_rate", "weight_decay",
        "batch_size", "evaluation_steps", "patience", "max_steps",
    )  # fmt: skip
    assert all(f"  - {name}: expected" in str(refused.value) for name in names)


def test_weights_that_training_began_with_are_said_to_be_kept(both, write_both, tmp_path, capsys):
    random = np.random.default_rng(4)
    noise = {
        split: replace(corpus, X={name: random.normal(size=X.shape).astype(np.float32) for name, X in corpus.X.items()})
        for split, corpus in both["cola"].items()
    }
    cache = write_both(tmp_path / "cache", {**both, "cola": noise})
    hasty = replace(ONE, learning_rate=0.5, freeze="none")
    found = train_joint(hasty, cache, RunsConfig(tmp_path / "runs"))
    said = capsys.readouterr().err
    [alone] = [run for run in found.runs if run.tasks == ("cola",)]
    assert alone.selection["step"] == 0
    assert "warning: cola, separate, seed 0: the loss on held-out rows never fell" in said
    assert len(alone.selection["warnings"]) == 1
    assert "warning: sst2" not in said
    assert "weights of step 0 of " in said
    assert "which is what always saying the commonest class scores" in said
