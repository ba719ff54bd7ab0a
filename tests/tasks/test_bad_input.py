"""Bad input is one error of the project's own classes, whose message names the file and the row."""

import pyarrow as pa
import pytest

from pipeline.config import DataConfig
from pipeline.errors import DataError
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA, SST2

HEADER = "sentence,label\n"
TWICE = pa.Table.from_arrays([pa.array(["one"]), pa.array(["two"])], names=["sentence", "sentence"])
GOOD = HEADER + "one,odd\ntwo,dull\n"


def refusal(task, data, splits=("train",)):
    with pytest.raises(DataError) as caught:
        read_task(task, data, splits)
    return str(caught.value)


def test_the_good_file_that_the_bad_ones_are_made_of_is_read(own_folder, tone):
    assert read_task(tone, own_folder({"train.csv": GOOD}), ("train",))["train"].labels == (2, 0)


@pytest.mark.parametrize("label", ["Odd", "3", "-1", "1.0", "", " odd", "²", "٢", "None"])
def test_a_label_that_is_no_class_names_file_row_and_classes(own_folder, tone, label):
    message = refusal(tone, own_folder({"train.csv": f"{GOOD}three,{label}\n"}))
    assert "train.csv, row 4, task 'tone'" in message
    assert "expected: 0 (dull) | 1 (lively) | 2 (odd)" in message
    assert f"found: {label!r}" in message


@pytest.mark.parametrize("label", ["3", "-1", "true", "1.0", "null", "[1]"])
def test_a_json_label_that_is_no_class_is_refused(own_folder, tone, label):
    good, bad = '{"sentence": "one", "label": 2}\n', f'{{"sentence": "two", "label": {label}}}\n'
    assert read_task(tone, own_folder({"train.jsonl": good}), ("train",))["train"].labels == (2,)
    assert "train.jsonl, row 2" in refusal(tone, own_folder({"train.jsonl": good + bad}))


@pytest.mark.parametrize("text", ["", " ", "   ", "\u00a0", "\u3000 "])
def test_an_empty_or_white_space_sentence_names_file_and_row(own_folder, tone, text):
    message = refusal(tone, own_folder({"train.csv": f"{GOOD}{text},odd\n"}))
    assert "a sentence is empty" in message
    assert "train.csv, row 4" in message


def test_an_empty_sentence_of_a_glue_file_counts_lines_with_the_header(glue_folder):
    data = glue_folder(
        {"SST-2/train.tsv": "sentence\tlabel\ngood\t1\n \t0\n", "CoLA/train.tsv": "a\t1\t\tA.\nb\t1\t\t\n"}
    )
    assert "SST-2/train.tsv, row 3" in refusal(SST2, data)
    assert "CoLA/train.tsv, row 2" in refusal(COLA, data)


@pytest.mark.parametrize("value", [None, 7, ["one"]])
def test_a_sentence_that_is_no_text_is_refused(own_folder, tone, value):
    table = pa.table({"sentence": [value], "label": [1]})
    message = refusal(tone, own_folder({"train.parquet": table}))
    assert "a sentence is not a text" in message
    assert "train.parquet, row 1" in message


@pytest.mark.parametrize("row", ["three", "three,odd,more", "three,odd,"])
def test_a_row_with_the_wrong_number_of_columns_is_refused(own_folder, tone, row):
    message = refusal(tone, own_folder({"train.csv": f"{GOOD}{row}\n"}))
    assert "wrong number of columns" in message
    assert "train.csv, row 4" in message
    assert "expected: 2 (sentence, label)" in message


@pytest.mark.parametrize("line", ["a\t1\tA sentence.", "a\t1\t\tA\tsentence.", ""])
def test_a_cola_row_with_the_wrong_number_of_columns_is_refused(glue_folder, line):
    data = glue_folder({"CoLA/train.tsv": f"a\t1\t\tFine.\n{line}\nb\t1\t\tFine.\n"})
    message = refusal(COLA, data)
    assert "CoLA/train.tsv, row 2" in message
    assert "expected: 4 (source, label, mark, sentence)" in message


def test_wrong_column_names_are_refused_and_both_named(own_folder, tone):
    message = refusal(tone, own_folder({"train.csv": GOOD.replace("sentence", "text")}))
    assert "train.csv" in message
    assert "expected: a column 'sentence'" in message
    assert "found: 'text', 'label'" in message


@pytest.mark.parametrize("header", ["sentence\tlabels", "sentence", "sentence\tlabel\tidx", "a film\t1"])
def test_an_sst2_file_with_other_columns_is_refused(glue_folder, header):
    row = "\t".join(["good", "1", "0"][: header.count("\t") + 1])
    message = refusal(SST2, glue_folder({"SST-2/train.tsv": f"{header}\n{row}\n"}))
    assert "SST-2/train.tsv" in message
    assert "expected: sentence, label" in message


@pytest.mark.parametrize("index", ["x", "-1", "1.5", ""])
def test_a_test_row_whose_index_is_no_number_is_refused(glue_folder, index):
    data = glue_folder({"CoLA/test.tsv": f"index\tsentence\n0\tFine.\n{index}\tFine too.\n"})
    assert "CoLA/test.tsv, row 3" in refusal(COLA, data, ("test",))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_missing_label_column_is_refused_outside_test(own_folder, tone, split):
    data = own_folder({f"{split}.csv": "sentence\none\n", "test.csv": "sentence\none\n"})
    message = refusal(tone, data, (split,))
    assert f"{split}.csv" in message
    assert "expected: a column 'label'" in message
    assert read_task(tone, data, ("test",))["test"].labels is None


def test_an_unlabelled_validation_split_is_refused(own_folder, tone):
    data = own_folder({"train.csv": GOOD, "validation.csv": "sentence,label\none,-1\n"})
    message = refusal(tone, data, None)
    assert "validation.csv, row 2" in message


def test_an_unlabelled_validation_split_of_the_hub_is_refused(hub_folder):
    hidden = {"sentence": ["A."], "label": [-1], "idx": [0]}
    labelled = hidden | {"label": [1]}
    data = hub_folder({"train": labelled, "validation": hidden, "test": hidden})
    message = refusal(COLA, data, None)
    assert "this split has no labels" in message
    assert "split validation" in message


@pytest.mark.parametrize(
    "names", [("train.csv", "train.parquet"), ("train.csv", "train.tsv"), ("train.jsonl", "train.tsv")]
)
def test_two_files_that_claim_one_split_are_refused_and_both_named(own_folder, tone, names):
    data = own_folder(dict.fromkeys(names, GOOD))
    message = refusal(tone, data)
    assert "two files disagree" in message
    assert all(name in message for name in names)


def test_two_names_of_validation_are_one_split(own_folder, tone):
    message = refusal(tone, own_folder({"valid.csv": GOOD, "dev.csv": GOOD}), ("validation",))
    assert "valid.csv, dev.csv" in message


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_a_file_that_is_not_utf8_is_refused_and_the_byte_named(own_folder, tone, name):
    content = b'{"sentence":  "caf\xe9"}\n' if name.endswith("jsonl") else b"sentence,label\ncaf\xe9,odd\n"
    message = refusal(tone, own_folder({name: content}))
    assert "not UTF-8" in message
    assert name in message
    assert "byte 18" in message


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("train.parquet", "sentence,label", "not Parquet"),
        ("train.jsonl", "{", "not JSON"),
        ("train.jsonl", f'{{"sentence": "one", "label": {"1" * 5000}}}', "row 1"),
        ("train.jsonl", "[" * 100_000, "row 1"),
        ("train.jsonl", '{"sentence": "one", "label": "\\ud800"}', "surrogates"),
        ("train.jsonl", '{"sentence": "one", "label": 1, "label": 2}', "two columns have one name"),
        ("train.parquet", TWICE, "two columns have one name"),
        ("train.csv", HEADER + f'"{"x" * 132_000}",odd\n', "mark that is never closed"),
        ("train.jsonl", "[1]", "wrong columns"),
        ("train.csv", HEADER + '"one,odd\n', "not CSV"),
        ("train.csv", "", "empty"),
        ("train.csv", HEADER, "no example"),
        ("train.tsv", "", "empty"),
        ("train.jsonl", "", "column 'sentence'"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_by_name(own_folder, tone, name, content, what):
    message = refusal(tone, own_folder({name: content}))
    assert what in message
    assert name in message


def test_a_json_row_with_other_keys_is_refused_with_its_row(own_folder, tone):
    message = refusal(tone, own_folder({"train.jsonl": '{"sentence": "a", "label": 1}\n{"sentence": "b"}\n'}))
    assert "train.jsonl, row 2" in message
    assert "sentence, label" in message


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path, tone):
    (tmp_path / "own" / "train.csv").mkdir(parents=True)
    assert "cannot be read" in refusal(tone, DataConfig(data=str(tmp_path / "own")))


def test_no_glue_at_all_names_the_three_ways(tmp_path):
    message = refusal(COLA, DataConfig(data="glue", glue_dir=tmp_path / "nowhere"), None)
    assert all(way in message for way in ("make data", "GLUE_DIR=", "DATA=sample", "DATA=<folder>"))
    assert str(tmp_path / "nowhere" / "CoLA" / "train.tsv") in message
    assert str(tmp_path / "nowhere" / "CoLA" / "dev.tsv") in message


def test_a_source_that_is_no_folder_is_refused_and_the_sources_named(tone, tmp_path):
    message = refusal(tone, DataConfig(data=str(tmp_path / "nowhere")))
    assert "expected: glue | hub | sample | a folder" in message
    assert str(tmp_path / "nowhere") in message


def test_a_folder_without_a_split_names_the_files_it_looked_for(own_folder, tone):
    message = refusal(tone, own_folder({"train.csv": GOOD}), None)
    assert "validation.{csv,tsv,parquet,jsonl} or valid." in message
