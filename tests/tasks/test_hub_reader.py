"""GLUE as the Hub has it, read from a local folder of the same layout; the Hub itself is out of reach here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import DataConfig
from pipeline.errors import ConfigError, DataError
from pipeline.tasks.fetch import check_or_fetch
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA, SST2

ROOT = Path(__file__).parents[2]
SPLITS = {
    "train": {"sentence": ["The dog barked.", "Dog the ' barked.", 'A "'], "label": [1, 0, 1], "idx": [0, 1, 2]},
    "validation": {"sentence": ["She left."], "label": [1], "idx": [0]},
    "test": {"sentence": ["Left she.", "We stay."], "label": [-1, -1], "idx": [4, 5]},
}


def test_a_local_folder_laid_out_as_on_the_hub_is_read(hub_folder):
    data = hub_folder(SPLITS)
    splits = read_task(COLA, data)
    assert splits["train"].texts == tuple(SPLITS["train"]["sentence"])
    assert splits["train"].labels == (1, 0, 1)
    assert splits["validation"].labels == (1,)
    assert splits["test"].labels is None
    assert splits["test"].idx == (4, 5)
    assert splits["test"].origin == f"hub: {data.hub_dataset}/cola, split test"


def test_the_hubs_test_split_is_as_optional_as_a_folders(hub_folder):
    data = hub_folder({split: SPLITS[split] for split in ("train", "validation")})
    assert list(read_task(COLA, data, ("train", "validation"))) == ["train", "validation"]
    assert list(read_task(COLA, data)) == ["train", "validation"]


def test_a_split_that_the_data_set_lacks_is_refused_by_name(hub_folder):
    data = hub_folder({"train": SPLITS["train"]})
    with pytest.raises(DataError, match="split validation"):
        read_task(COLA, data, ("validation",))


def test_a_label_that_is_no_class_is_refused_with_its_row(hub_folder):
    columns = {"sentence": ["a.", "b."], "label": [1, 2], "idx": [0, 1]}
    with pytest.raises(DataError, match="not a class") as caught:
        read_task(COLA, hub_folder(SPLITS | {"train": columns}), ("train",))
    assert "cola, split train, row 2" in str(caught.value)


def test_wrong_columns_are_refused_and_named(hub_folder):
    splits = {split: {"text": ["a."], "label": [1]} for split in SPLITS}
    with pytest.raises(DataError, match="wrong columns") as caught:
        read_task(COLA, hub_folder(splits), ("train",))
    assert caught.value.found == "text, label"


def test_a_configuration_that_the_data_set_lacks_is_refused(hub_folder):
    with pytest.raises(DataError, match="sst2, split train"):
        read_task(SST2, hub_folder(SPLITS), ("train",))


def test_fetching_writes_a_glue_folder_that_reads_the_same(hub_folder):
    data = hub_folder(SPLITS)
    records = check_or_fetch(("cola",), data)
    assert [(record["split"], record["rows"], record["labels"]) for record in records] == [
        ("train", 3, "unacceptable:1 acceptable:2"),
        ("validation", 1, "unacceptable:0 acceptable:1"),
        ("test", 2, "none"),
    ]
    fetched = read_task(COLA, DataConfig(data="glue", glue_dir=data.glue_dir))
    assert {split: (examples.texts, examples.labels, examples.idx) for split, examples in fetched.items()} == {
        split: (examples.texts, examples.labels, examples.idx) for split, examples in read_task(COLA, data).items()
    }


def test_fetching_a_second_time_reads_the_folder_and_not_the_hub(hub_folder):
    data = hub_folder(SPLITS)
    check_or_fetch(("cola",), data)
    before = (data.glue_dir / "CoLA" / "train.tsv").stat().st_mtime_ns
    assert all(record["origin"].startswith("glue: ") for record in check_or_fetch(("cola",), data))
    assert (data.glue_dir / "CoLA" / "train.tsv").stat().st_mtime_ns == before


@pytest.mark.parametrize("broken", ["validation", "test"])
def test_fetching_goes_on_after_one_that_was_broken_off(hub_folder, broken):
    """What the first one wrote must not pass for a whole GLUE folder."""
    tab = {split: {**columns, "sentence": ["A\ttab.", *columns["sentence"][1:]]} for split, columns in SPLITS.items()}
    data = hub_folder(SPLITS | {broken: tab[broken]})
    with pytest.raises(DataError, match="cannot hold this sentence"):
        check_or_fetch(("cola",), data)
    data = hub_folder(SPLITS)
    check_or_fetch(("cola",), data)
    fetched = read_task(COLA, DataConfig(data="glue", glue_dir=data.glue_dir))
    assert {split: list(examples.texts) for split, examples in fetched.items()} == {
        split: columns["sentence"] for split, columns in SPLITS.items()
    }


def test_a_task_that_glue_does_not_have_is_not_fetched(hub_folder):
    with pytest.raises(ConfigError, match="no such task"):
        check_or_fetch(("mnli",), hub_folder(SPLITS))


CODE = """
from pipeline.config import DataConfig
from pipeline.errors import DataError
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA
try:
    read_task(COLA, DataConfig(data="hub"))
except DataError as error:
    print(error)
"""


def test_a_hub_out_of_reach_is_a_data_error_that_says_what_to_do(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "the data set cannot be had from the Hub" in done.stdout
    assert "where: nyu-mll/glue/cola, split train" in done.stdout
    assert "GLUE_DIR=<folder>" in done.stdout
