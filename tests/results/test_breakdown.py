"""Scores by where sentences are from; CoLA's own division among them."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.results.breakdown import IN_DOMAIN, OUT_OF_DOMAIN, domain_masks, score_domains, score_sources
from pipeline.results.intervals import bootstrap_interval
from pipeline.results.metrics import score

BESIDE = Path(__file__).parents[3] / "shared" / "glue"
Y = np.asarray([0, 1, 1, 0, 1, 0, 1, 1])
PREDICTIONS = np.asarray([0, 1, 0, 0, 1, 1, 1, 0])
SOURCES = ("a", "a", "a", "b", "b", None, "c", "c")


def _sources(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def test_the_sources_that_train_has_divide_colas_development_set_as_published():
    folder = Path(os.environ.get("GLUE_DIR") or BESIDE) / "CoLA"
    if not folder.is_dir():
        pytest.skip(f"the real CoLA is not in {folder}; set GLUE_DIR")
    train, validation = (_sources(folder / name) for name in ("train.tsv", "dev.tsv"))
    rows = {domain: int(mask.sum()) for domain, mask in domain_masks(validation, set(train)).items()}
    assert rows == {IN_DOMAIN: 527, OUT_OF_DOMAIN: 516}
    of_domain = [{validation[row] for row in np.flatnonzero(m)} for m in domain_masks(validation, set(train)).values()]
    assert [len(names) for names in of_domain] == [17, 6]
    fewer = domain_masks(validation, set(train) - {"ks08"})
    assert fewer[IN_DOMAIN].sum() == 527 - 104


def test_domains_are_scored_row_by_row_and_rows_without_a_source_are_in_none():
    found = score_domains(Y, PREDICTIONS, SOURCES, {"a", "b"})
    assert list(found) == [IN_DOMAIN, OUT_OF_DOMAIN]
    for domain, rows in ((IN_DOMAIN, slice(0, 5)), (OUT_OF_DOMAIN, slice(6, 8))):
        expected = score(Y[rows], PREDICTIONS[rows])
        assert found[domain]["rows"] == len(Y[rows])
        assert {name: found[domain][name] for name in ("mcc", "accuracy")} == {
            name: expected[name] for name in ("mcc", "accuracy")
        }
        interval = bootstrap_interval("accuracy", Y[rows], PREDICTIONS[rows])
        assert found[domain]["intervals"]["accuracy"] == interval.to_dict()
    assert found[IN_DOMAIN]["accuracy"] != found[OUT_OF_DOMAIN]["accuracy"]


def test_a_domain_without_rows_is_not_there():
    assert list(score_domains(Y, PREDICTIONS, SOURCES, {"a", "b", "c"})) == [IN_DOMAIN]
    assert list(score_domains(Y, PREDICTIONS, SOURCES, {"z"})) == [OUT_OF_DOMAIN]
    assert score_domains(Y, PREDICTIONS, [None] * 8, {"a"}) == {}


def test_sources_are_scored_each_alone():
    found = score_sources(Y, PREDICTIONS, SOURCES)
    assert {name: each["rows"] for name, each in found.items()} == {"a": 3, "b": 2, "c": 2}
    assert {name: each["accuracy"] for name, each in found.items()} == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 0.5}
    assert found["b"]["mcc"] == 1.0
    assert found["a"]["mcc"] == score(Y[:3], PREDICTIONS[:3])["mcc"] == pytest.approx(0.5)
    assert score_sources(Y, PREDICTIONS, ["", None] * 4) == {}
