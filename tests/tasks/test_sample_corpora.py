"""The sample corpora that ship with the project are what their README says."""

import re
from collections import Counter

import pytest

from pipeline.config import DataConfig
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA, SST2

COUNTS = {"train": 520, "validation": 180, "test": 60}


@pytest.fixture(params=[COLA, SST2], ids=lambda task: task.name)
def task(request):
    return request.param


@pytest.fixture
def data(sample_dir):
    return DataConfig(data="sample", sample_dir=sample_dir)


def test_every_split_has_its_rows(task, data):
    splits = read_task(task, data)
    assert {split: len(examples) for split, examples in splits.items()} == COUNTS
    assert splits["test"].labels is None
    assert splits["test"].idx == tuple(range(60))


def test_the_classes_are_shared_as_the_readme_says(data):
    cola, sst2 = read_task(COLA, data), read_task(SST2, data)
    assert (sum(cola["train"].labels), sum(cola["validation"].labels)) == (364, 126)
    assert 364 / 520 == 126 / 180 == 0.7
    assert (sum(sst2["train"].labels), sum(sst2["validation"].labels)) == (286, 92)


def test_no_sentence_stands_twice_within_or_across_the_files_of_a_task(task, data):
    texts = [text.casefold() for examples in read_task(task, data).values() for text in examples.texts]
    assert len(texts) == sum(COUNTS.values())
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def test_every_code_of_cola_stands_in_the_readme_with_both_classes(data, sample_dir):
    readme = (sample_dir / "README.md").read_text("utf-8")
    codes = set(re.findall(r"\| `([a-z]+)` \|", readme)) | set(re.findall(r"`([a-z]+)` \| [a-z]", readme))
    assert len(codes) == 16
    train = read_task(COLA, data)["train"]
    assert set(train.sources) == codes
    assert set(read_task(COLA, data)["validation"].sources) <= codes
    assert len(set(zip(train.sources, train.labels, strict=True))) == 2 * len(codes)


def test_some_sentences_hold_a_lone_quote(data):
    """So that reading them at all shows that quoting is off."""
    lone = [text for text in read_task(SST2, data)["train"].texts if text.count('"') % 2 or text.startswith("'")]
    cola = [text for text in read_task(COLA, data)["train"].texts if text.count('"') % 2]
    assert lone or cola
