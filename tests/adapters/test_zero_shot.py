"""The LLM's own answer: what prompt tuning reports before any tuning, and what transformers itself says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.adapters.zero_shot import ZeroShot
from pipeline.cache import FeatureCache
from pipeline.config import BackboneConfig, RunsConfig
from pipeline.errors import AdapterError
from pipeline.predicting import load_predictor
from pipeline.results.ledger import read_predictions, read_run
from pipeline.results.lines import ledger_table, lines_of
from pipeline.results.table import runs_table
from pipeline.tasks.spec import COLA
from tests.adapters.test_commands import pipeline


@pytest.fixture
def asked(live):
    """Ask the tiny backbone about the cached rows of CoLA; any setting of the backbone changed."""

    def ask(task=COLA, **changed):
        cache = FeatureCache(live.cache_dir)
        train, validation = (cache.open("cola", split, layer=-1, pooling="last") for split in ("train", "validation"))
        config = live.settings(BackboneConfig, changed)
        return ZeroShot.open(config, RunsConfig(live.runs_dir)).answer(task, train, validation)

    return ask


def extract(live, **changed):
    return live.extract(layers=("-1",), poolings=("last",), **changed)


def test_it_is_what_prompt_tuning_reports_before_any_tuning(live, asked):
    extract(live)
    run = asked()
    (tuned,) = live.prompt(epochs=0.5)
    reported = tuned.adapter["zero_shot"]["cola"]["validation"]
    assert run.scores["cola"]["validation"] == pytest.approx(reported, abs=1e-9)
    assert run.baseline["cola"]["validation"] == tuned.baseline["cola"]["validation"]
    assert tuned.scores["cola"]["validation"] != reported  # what was trained does show


@pytest.mark.parametrize("words", [("incorrect", "correct"), ("the", "a")])
def test_its_probabilities_are_those_of_transformers_for_the_words_first_tokens(live, asked, tiny_backbone, words):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    extract(live, quantization="none")
    run = asked(replace(COLA, label_words=words), quantization="none")
    folder = live.runs_dir / run.run
    stored = np.array(read_predictions(folder)["probabilities"].to_pylist())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_backbone), AutoTokenizer.from_pretrained(tiny_backbone)
    texts = FeatureCache(live.cache_dir).open("cola", "validation", layer=-1, pooling="last").texts
    expected = []
    for text in texts:
        prompted = COLA.answer_prompt.replace("{}", text)
        ids = tokenizer(prompted)["input_ids"]
        first = [tokenizer(f"{prompted} {word}")["input_ids"][len(ids)] for word in words]
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1, first]
        expected.append(logits.softmax(dim=0).numpy())
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    assert run.config["label_words"]["cola"] == list(words)


def test_the_run_has_the_rows_of_the_cache_and_stands_in_the_ledger(live, asked, small_glue):
    extract(live)
    run = asked()
    assert read_run(live.runs_dir / run.run) == run
    table = read_predictions(live.runs_dir / run.run)
    rows = FeatureCache(live.cache_dir).open("cola", "validation", layer=-1, pooling="last")
    assert table["idx"].to_pylist() == rows.sample_ids.tolist()
    assert table["label"].to_pylist() == rows.y.tolist()
    assert (run.path, run.head, run.adapter, run.scores["cola"].keys()) == ("live", "zero-shot", None, {"validation"})
    assert runs_table(ledger_table(lines_of([run]))).row_count == 1


def test_it_is_asked_again_about_any_sentences(live, asked):
    extract(live)
    run = asked()
    table = read_predictions(live.runs_dir / run.run)
    predictor = load_predictor(live.runs_dir / run.run, models_dir=live.defaults["models_dir"])
    answers = predictor.answer(table["text"].to_pylist())
    np.testing.assert_array_equal(answers.probabilities, np.array(table["probabilities"].to_pylist()))
    assert np.ptp(answers.probabilities[:, 0]) > 0


def test_another_backbone_than_that_of_the_features_is_not_asked(live, asked, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "adapter")
    written = extract(live, adapter=folder)
    cache = FeatureCache(live.cache_dir)
    digest = cache.open_folder(written[0]["fingerprint"]).manifest.identity.adapter
    train, validation = (
        cache.open("cola", split, layer=-1, pooling="last", identity={"adapter": digest})
        for split in ("train", "validation")
    )
    with pytest.raises(AdapterError, match="not the one that the features are of"):
        ZeroShot.open(live.settings(BackboneConfig, {}), RunsConfig(live.runs_dir)).answer(COLA, train, validation)
    assert not live.runs_dir.exists() or not list(live.runs_dir.iterdir())


def baselines(live, *words, rc=0, **changed):
    values = {**live.defaults, **changed}
    where = [
        f"--{name.replace('_', '-')}={values[name]}" for name in ("backbone", "models_dir", "cache_dir", "runs_dir")
    ]
    small = (
        "--views",
        "L-1-last",
        "--tasks",
        "cola",
        "--seeds",
        1,
        "--draws",
        2,
        "--strengths",
        0.1,
        "--held-out",
        0.25,
    )
    return pipeline(live, "baselines", *small, "--threads", 1, *where, *words, rc=rc)


def test_the_command_asks_it_with_the_backbone_alone(live, small_glue):
    extract(live)
    done = baselines(live, "--json")
    [record] = json.loads(done.stdout)
    line = record["lines"][-1]
    run = record["runs"][-1]
    assert (line["baseline"], line["runs"], run["head"]) == ("zero-shot", [run["run"]], "zero-shot")
    assert line["note"] == "incorrect | correct"
    assert line["score"]["estimate"] == run["scores"]["cola"]["validation"]["mcc"]
    assert line["comparison"]["runs"] == [run["run"], record["runs"][0]["run"]]
    assert line["comparison"]["rows"] == len(FeatureCache(live.cache_dir).open("cola", "validation", layer=-1).texts)


def test_a_backbone_that_is_not_here_is_the_reason_why_it_was_not_asked(live):
    extract(live)
    [record] = json.loads(baselines(live, "--json", backbone="tiny-llama").stdout)
    assert record["lines"][-1]["note"].startswith("not measured: ")
    assert "tiny-llama" in record["lines"][-1]["note"]
    assert record["lines"][0]["score"] is not None
    [record] = json.loads(baselines(live, "--json", "--no-zero-shot").stdout)
    assert record["lines"][-1]["note"] == "not measured: it was not asked for"
