"""Contenders of one tiny backbone: what is measured, what is kept, what a missing one does to the others."""

import json
import multiprocessing
from itertools import product

import numpy as np
import pytest

from pipeline.cache import FeatureCache, cost_of
from pipeline.cache.passes import PASSES
from pipeline.choosing import measure, stage_one
from pipeline.choosing.stage_one import Request, make_features
from pipeline.choosing_config import BackbonesConfig
from pipeline.config import CacheConfig
from pipeline.errors import ConfigError, HeadError
from pipeline.progress import be_quiet
from pipeline.results.ledger import read_runs
from pipeline.results.logme import logme
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import BUILT_IN


def opened(compare, sample, layer, pooling):
    """A view of a sample: the cache may hold others."""
    texts = {"texts": sample.texts}
    return FeatureCache(compare.cache.cache_dir).open(
        sample.task, sample.split, layer=layer, pooling=pooling, identity=texts
    )


def test_each_contender_is_scored_on_each_task_and_its_run_is_in_the_ledger(compare, compared):
    assert [(each.contender.layer, each.task) for each in compared.measured] == [
        (1, "cola"),
        (1, "sst2"),
        (-1, "cola"),
        (-1, "sst2"),
    ]
    runs = {run.run: run for run in read_runs(compare.runs.runs_dir)}
    for each in compared.measured:
        run = runs[each.run.run]
        assert each.score.estimate == run.scores[each.task]["validation"][run.config["metric"]]
        assert each.score.low <= each.score.estimate <= each.score.high
        assert each.held_out == run.scores[each.task]["held_out"][run.config["metric"]]
        assert run.config["contender"] == str(each.contender)
        assert [sample["rows"] for sample in run.config["sample"]] == [50, 24]
        assert run.selection["tried"] > 1


def test_features_are_of_the_layer_where_it_is_cut_and_of_the_sample(compare, compared):
    first, _, whole, _ = compared.measured
    assert (first.layer, whole.layer, whole.num_hidden_layers) == (1, 2, 2)
    texts = compared.samples[0].texts
    sets = [m for m in FeatureCache(compare.cache.cache_dir).manifests("cola", "train") if m.identity.texts == texts]
    assert {(m.identity.layer, m.identity.layer_norm, m.identity.pooling) for m in sets} == {
        (layer, norm, pooling) for layer, norm in ((1, "none"), (2, "final")) for pooling in ("mean", "last")
    }
    assert {m.rows for m in sets} == {50}


def test_logme_is_of_the_cached_training_features(compare, compared):
    each = compared.measured[0]
    mean, last = (opened(compare, compared.samples[0], 1, pooling) for pooling in ("mean", "last"))
    assert each.logme == pytest.approx(
        {
            "L1-last": logme(last.X, last.y),
            "L1-mean": logme(mean.X, mean.y),
            "L1-last+L1-mean": logme(np.concatenate([last.X, mean.X], axis=1), mean.y),
        },
        rel=1e-9,
    )


def test_costs_are_of_the_contenders_own_passes(compare, compared):
    for each in compared.of_task("cola"):
        samples = [sample for sample in compared.samples if sample.task == "cola"]
        sets = [opened(compare, sample, each.layer, "mean") for sample in samples]
        costs = [cost_of([one]) for one in sets]
        assert each.seconds_per_thousand == pytest.approx(1000 * sum(c.backbone_seconds for c in costs) / 74)
        assert each.processor_seconds_per_thousand > 0
        assert each.cost.peak_memory_bytes == max(cost.peak_memory_bytes for cost in costs) > 50e6
        assert each.cost.weights_bytes == 4 * sum(weights_of_tiny_backbone())
        poolings = [view.split("-")[1] for view in each.views.split("+")]
        folders = [opened(compare, *which).folder for which in product(samples, [each.layer], poolings)]
        size_bytes = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        assert each.bytes_per_thousand == pytest.approx(1000 * size_bytes / 74)


def weights_of_tiny_backbone():
    """Numbers in it: embeddings, two blocks, the final norm; and what rotary embeddings hold, twice 8."""
    attention, mlp, norms = 64 * 64 * 2 + 64 * 32 * 2, 3 * 64 * 128, 2 * 64
    return 600 * 64, 2 * (attention + mlp + norms), 64, 16


def test_what_cannot_be_had_is_said_and_harms_no_other(compared):
    cut, hub = compared.not_had
    assert "no such layer" in cut.reason
    assert "Hub cannot be reached" in hub.reason
    assert len(compared.measured) == 4
    record = compared.to_dict()
    assert [each["contender"] for each in record["not_had"]] == [str(cut.contender), str(hub.contender)]
    assert json.loads(json.dumps(record)) == record


def test_what_is_there_is_not_computed_again(compare, compared, in_this_process):
    logs = {path: path.stat().st_mtime_ns for path in compare.cache.cache_dir.glob(f"*/*/*/{PASSES}")}
    again = compare("{}:none@1", "{}:none", "{}:none@2")
    assert {path: path.stat().st_mtime_ns for path in compare.cache.cache_dir.glob(f"*/*/*/{PASSES}")} == logs
    assert [each.cost for each in again.measured] == [each.cost for each in compared.of_task("cola")]  # one once
    first, whole, twin = again.to_dict()["contenders"]
    assert [first["same_as"], whole["same_as"], twin["same_as"]] == [None, None, whole["contender"]]
    assert twin == whole | {"contender": str(compare.contenders("{}:none@2")[0]), "same_as": whole["contender"]}
    assert [each.score for each in again.measured] == [each.score for each in compared.of_task("cola")]


def test_another_seed_is_another_sample_in_the_same_cache(compare, compared, in_this_process):
    [other] = compare("{}:none@1", seed=1).measured
    assert set(other.run.features["cola"]["train"]).isdisjoint(compared.measured[0].run.features["cola"]["train"])


def test_a_stopped_comparison_goes_on_after_the_heads_that_were_selected(compare, in_this_process, monkeypatch):
    before = len(read_runs(compare.runs.runs_dir))
    select, calls = measure.sweep, []

    def stopped(*words):
        calls.append(words[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return select(*words)

    monkeypatch.setattr(measure, "sweep", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare("{}:none@1", "{}:none", seed=2)
    assert len(compare("{}:none@1", "{}:none", seed=2).measured) == 2
    assert len(calls) == 3
    assert len(read_runs(compare.runs.runs_dir)) == before + 2


def test_a_sample_too_small_to_hold_rows_out_is_refused_before_anything_is_computed(compare, monkeypatch):
    monkeypatch.setattr(measure, "make_features", lambda request: pytest.fail("features were computed"))
    with pytest.raises(HeadError, match="too few"):
        compare("{}:none", rows=4)


def test_a_process_of_its_own_says_what_it_took_and_to_people_nothing_where_they_want_quiet(request_of, capfd):
    request = request_of("{}:none@1")
    with be_quiet():
        records = make_features(request)
    assert capfd.readouterr().err == ""
    assert [record["status"] for record in records] == ["written", "written"]
    cost = cost_of([FeatureCache(request.cache.cache_dir).open("cola", "validation", layer=1, pooling="mean")])
    assert 100e6 < cost.peak_memory_bytes < 3e9


def test_what_goes_wrong_in_a_process_is_told_to_its_parent(request_of, monkeypatch, capsys):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    stage_one._work(sender, request_of("{}:none@7"))
    assert isinstance(error := receiver.recv(), ConfigError)
    assert "no such layer" in str(error)
    monkeypatch.setattr(stage_one, "extract_request", lambda request: 1 / 0)
    stage_one._work(sender, request_of("{}:none"))
    assert "ZeroDivisionError" in str(receiver.recv())
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def request_of(compare, tmp_path):
    """Validation rows of CoLA, for one contender."""
    splits = tuple(read_task(BUILT_IN["cola"], compare.data, ("validation",)).values())
    what = BackbonesConfig(models_dir=tmp_path / "models", threads=1)

    def make(text):
        return Request(*compare.contenders(text), splits, "glue", what, CacheConfig(tmp_path / "cache"))

    return make


def test_a_process_that_was_killed_is_told_from_one_that_failed(compare):
    [contender] = compare.contenders("{}:none")
    assert "killed" in str(stage_one._ended(contender, -9))
    assert "--compute-dtype bfloat16" in str(stage_one._ended(contender, -9))
    assert "exit code 1" in str(stage_one._ended(contender, 1))
