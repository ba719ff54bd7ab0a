"""`pipeline adapt` and `pipeline predict` on the command line, and stage one on what they made."""

import json

import numpy as np
import pytest

from pipeline.cache import FeatureCache
from tests import forked


def pipeline(live, *words, stdin="", rc=0):
    done = forked.pipeline([*map(str, words)], live.folder, {}, given=stdin)
    assert done.returncode == rc, done.stderr
    return done


def places(live, *names):
    return [word for name in names for word in (f"--{name.replace('_', '-')}", live.defaults[name])]


@pytest.fixture
def trained(live):
    return live, live.lora(learning_rate=1e-2)[0]


def test_predict_says_label_and_probabilities_of_arguments_and_of_lines(trained):
    live, run = trained
    where = places(live, "runs_dir", "models_dir")
    texts = ["The cat sat .", "He have gone ."]
    of_words = json.loads(pipeline(live, "predict", live.runs_dir / run.run, *texts, *where, "--json").stdout)
    of_lines = json.loads(
        pipeline(live, "predict", run.run[:22], *where, "--json", stdin="\n".join(texts) + "\n").stdout
    )
    assert of_words == of_lines
    for text, row in zip(texts, of_words, strict=True):
        assert row["sentence"] == text
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert ("unacceptable", "acceptable")[row["prediction"]] == row["label"]


def test_predict_asks_which_task_where_a_run_has_several(live):
    (run,) = live.lora(tasks=("cola", "sst2"), freeze="none", epochs=1)
    where = places(live, "runs_dir", "models_dir")
    assert "several tasks" in pipeline(live, "predict", run.run, "fine", *where, rc=2).stderr
    (row,) = json.loads(pipeline(live, "predict", run.run, "fine", "--task", "sst2", *where, "--json").stdout)
    assert row["label"] in ("negative", "positive")
    assert "another task" in pipeline(live, "predict", run.run, "fine", "--task", "nonsense", *where, rc=2).stderr


def test_predict_refuses_no_sentences_and_what_a_live_run_has_no_use_for(trained):
    live, run = trained
    where = places(live, "runs_dir", "models_dir")
    assert "a sentence is empty" in pipeline(live, "predict", run.run, "fine", " ", *where, rc=2).stderr
    assert "there is no sentence" in pipeline(live, "predict", run.run, *where, stdin="", rc=2).stderr
    said = pipeline(live, "predict", run.run, "fine", *where, "--adapter", live.folder, rc=2).stderr
    assert "has its adapter in its own folder" in said


def test_stage_one_extracts_features_of_the_adapted_backbone_under_their_own_identity(trained):
    live, run = trained
    folder = live.runs_dir / run.run / "adapter"
    (written,) = live.extract(adapter=folder, layers=("-1",), poolings=("last",), splits=("validation",))
    assert "-lora-" in written["name"]
    (plain,) = live.extract(layers=("-1",), poolings=("last",), splits=("validation",))
    cache = FeatureCache(live.cache_dir)
    adapted, usual = (cache.open_folder(each["fingerprint"]).X for each in (written, plain))
    assert np.abs(adapted - usual).max() > 1e-3

    from pipeline.adapters.loading import LiveRun
    from pipeline.views import View

    network = LiveRun.load(live.runs_dir / run.run, models_dir=live.folder / "models")
    from pipeline.config import DataConfig
    from pipeline.tasks.read import read_task
    from pipeline.tasks.spec import find_tasks

    examples = read_task(find_tasks(("cola",))[0], live.settings(DataConfig, {}))["validation"]
    rows = network.rows("cola", list(examples.texts))
    seen = network.network.pooled_rows(rows, np.arange(len(rows)), [View(2, "last")])
    np.testing.assert_allclose(seen, adapted, rtol=1e-4, atol=1e-4)


def test_settings_that_are_wrong_end_with_one_message_and_exit_code_2(live):
    said = pipeline(live, "adapt", "lora", "--rank", "0", "--held-out", "0.9", rc=2).stderr
    assert "rank: expected at least 1, found 0" in said
    assert "Traceback" not in said
    assert "freeze" in pipeline(
        live, "adapt", "lora", "--tasks", "cola", "--freeze", "sst2", *places(live, "glue_dir", "backbone"), rc=2
    ).stderr  # fmt: skip
