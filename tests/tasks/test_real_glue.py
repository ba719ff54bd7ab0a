"""The real GLUE, where there is one: GLUE_DIR, or ../shared/glue beside the project."""

import os
from pathlib import Path

import pytest

from pipeline.config import DataConfig
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA, SST2

BESIDE = Path(__file__).parents[3] / "shared" / "glue"


@pytest.fixture
def glue():
    folder = Path(os.environ.get("GLUE_DIR") or BESIDE)
    if not ((folder / "CoLA").is_dir() and (folder / "SST-2").is_dir()):
        pytest.skip(f"the real GLUE is not in {folder}; set GLUE_DIR")
    return DataConfig(data="glue", glue_dir=folder)


def test_cola_has_its_rows_and_classes(glue):
    splits = read_task(COLA, glue, ("train", "validation"))
    assert (len(splits["train"]), len(splits["validation"])) == (8551, 1043)
    assert set(splits["train"].labels) == set(splits["validation"].labels) == {0, 1}
    assert sum(splits["train"].labels) == 6023
    assert splits["train"].texts[0] == "Our friends won't buy this analysis, let alone the next one we propose."
    assert splits["train"].sources[0] == "gj04"


def test_sst2_has_its_rows_and_classes(glue):
    splits = read_task(SST2, glue)
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 67349,
        "validation": 872,
        "test": 1821,
    }
    assert (sum(splits["train"].labels), sum(splits["validation"].labels)) == (37569, 444)
    assert splits["test"].labels is None
    assert "it 's a charming and often affecting journey ." in splits["validation"].texts
