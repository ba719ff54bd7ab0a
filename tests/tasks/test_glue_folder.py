"""GLUE's folder layout, read and written."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.tasks.examples import Examples
from pipeline.tasks.glue import glue_file, read_glue, write_glue
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA, SST2

FILES = {
    "CoLA/train.tsv": 'gj04\t1\t\tThe dog barked.\nbc01\t0\t*\tDog the barked.\nks08\t1\t\tHe said "no.\n',
    "CoLA/dev.tsv": 'gj04\t0\t*\t"Nobody\'s" here not.\n',
    "CoLA/test.tsv": "index\tsentence\n0\tShe left.\n7\tLeft she's \"\n",
    "SST-2/train.tsv": 'sentence\tlabel\na " moving film \t1\n"quoted" throughout\t0\n',
    "SST-2/dev.tsv": "sentence\tlabel\nit 's dull\t0\n",
    "SST-2/test.tsv": "index\tsentence\n0\tfine\n",
}


def test_cola_has_no_header_and_keeps_its_first_row(glue_folder):
    train = read_task(COLA, glue_folder(FILES))["train"]
    assert train.texts == ("The dog barked.", "Dog the barked.", 'He said "no.')
    assert train.labels == (1, 0, 1)
    assert train.sources == ("gj04", "bc01", "ks08")
    assert train.idx == (0, 1, 2)


def test_sst2_has_a_header_that_is_no_example(glue_folder):
    train = read_task(SST2, glue_folder(FILES))["train"]
    assert train.texts == ('a " moving film', '"quoted" throughout')
    assert train.labels == (1, 0)
    assert train.sources is None


def test_the_columns_of_a_header_may_stand_in_another_order(glue_folder):
    data = glue_folder(FILES | {"SST-2/train.tsv": "label\tsentence\n1\tgood\n0\tbad\n"})
    assert read_task(SST2, data)["train"].texts == ("good", "bad")


def test_lone_quotes_survive(glue_folder):
    """A CSV reader with quoting on would swallow rows from one lone quote to the next."""
    data = glue_folder(FILES | {"SST-2/train.tsv": 'sentence\tlabel\n"one\t1\ntwo"\t0\nth"ree""\t1\n\'four\t0\n'})
    assert read_task(SST2, data)["train"].texts == ('"one', 'two"', 'th"ree""', "'four")


def test_a_byte_order_mark_and_windows_line_ends_do_not_count(glue_folder):
    plain = read_task(SST2, glue_folder(FILES))["train"]
    windows = "\ufeff" + FILES["SST-2/train.tsv"].replace("\n", "\r\n")
    assert read_task(SST2, glue_folder(FILES | {"SST-2/train.tsv": windows}))["train"] == plain


def test_line_separators_of_unicode_do_not_cut_a_row(glue_folder):
    data = glue_folder(FILES | {"SST-2/dev.tsv": "sentence\tlabel\none\u2028two\x85three\x0bfour\t1\n"})
    assert read_task(SST2, data)["validation"].texts == ("one\u2028two\x85three\x0bfour",)


def test_the_last_line_needs_no_newline(glue_folder):
    data = glue_folder(FILES | {"SST-2/dev.tsv": "sentence\tlabel\nfine\t1\nbad\t0"})
    assert read_task(SST2, data)["validation"].labels == (1, 0)


@pytest.mark.parametrize("task", [COLA, SST2], ids=lambda task: task.name)
def test_the_test_split_is_unlabelled_and_keeps_its_numbers(glue_folder, task):
    splits = read_task(task, glue_folder(FILES))
    assert list(splits) == ["train", "validation", "test"]
    assert splits["test"].labels is None
    assert splits["validation"].labels == (0,)
    if task is COLA:
        assert splits["test"].idx == (0, 7)


def test_a_folder_may_lack_test_but_not_dev(glue_folder):
    without_test = {name: text for name, text in FILES.items() if name != "CoLA/test.tsv"}
    assert list(read_task(COLA, glue_folder(without_test))) == ["train", "validation"]


def test_a_folder_without_dev_is_refused_and_the_file_named(glue_folder):
    data = glue_folder({"CoLA/train.tsv": FILES["CoLA/train.tsv"]})
    with pytest.raises(DataError) as caught:
        read_task(COLA, data)
    assert caught.value.where == str(data.glue_dir / "CoLA" / "dev.tsv")
    assert list(read_task(COLA, data, ("train",))) == ["train"]


def test_a_split_that_is_asked_for_and_not_there_is_refused(glue_folder):
    data = glue_folder({name: text for name, text in FILES.items() if name != "CoLA/test.tsv"})
    with pytest.raises(DataError, match=r"CoLA/test\.tsv"):
        read_task(COLA, data, ("test",))


SENTENCE = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text == text.strip()
)
ROWS = st.lists(st.tuples(SENTENCE, st.integers(0, 1)), min_size=1, max_size=8)


@pytest.mark.parametrize("task", [COLA, SST2], ids=lambda task: task.name)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_a_written_split_reads_back_the_same(task, rows):
    texts, labels = zip(*rows, strict=True)
    sources = tuple(f"s{row}" for row in range(len(rows))) if task is COLA else None
    train = Examples(task, "train", texts, labels, tuple(range(len(rows))), sources, origin="here")
    test = dataclasses.replace(train, split="test", labels=None, sources=None, idx=tuple(range(5, 5 + len(rows))))
    with tempfile.TemporaryDirectory() as folder:
        for examples in (train, test):
            path = write_glue(Path(folder), examples, task.glue)
            assert path == glue_file(Path(folder), task.glue, examples.split)
            again = read_glue(Path(folder), task, task.glue, examples.split, "glue")
            assert again.origin == f"glue: {path}"
            assert dataclasses.replace(again, origin="here") == examples


def test_a_written_cola_row_carries_glues_mark(tmp_path):
    examples = Examples(COLA, "train", ("Fine.", "Wrong the."), (1, 0), (0, 1), ("a", "b"), origin="here")
    path = write_glue(tmp_path, examples, COLA.glue)
    assert path.read_bytes() == b"a\t1\t\tFine.\nb\t0\t*\tWrong the.\n"
    assert [file.name for file in path.parent.iterdir()] == ["train.tsv"]


@pytest.mark.parametrize("text", ["a\tb", "a\nb"])
def test_a_sentence_that_the_layout_cannot_hold_is_refused_and_nothing_written(tmp_path, text):
    good = Examples(SST2, "train", ("fine", "bad"), (1, 0), (0, 1), None, origin="here")
    before = write_glue(tmp_path, good, SST2.glue).read_bytes()
    with pytest.raises(DataError, match="cannot hold this sentence") as caught:
        write_glue(tmp_path, dataclasses.replace(good, texts=("fine", text)), SST2.glue)
    assert str(caught.value.where).endswith("train.tsv, row 1")
    assert glue_file(tmp_path, SST2.glue, "train").read_bytes() == before
