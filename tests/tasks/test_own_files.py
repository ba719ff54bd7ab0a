"""Files of one's own: CSV, TSV, Parquet and JSON lines say the same thing in four ways."""

import csv
import io
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import DataConfig
from pipeline.errors import ConfigError, DataError
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import COLA

TEXTS = ("plain", 'with "quotes"', "with, a comma", "ünïcödé 猫", "'lone", 'lone "')
LABELS = ("dull", "lively", "odd", "odd", "dull", "lively")
NUMBERS = (0, 1, 2, 2, 0, 1)


def as_csv(columns):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def as_tsv(columns):
    rows = [columns, *zip(*columns.values(), strict=True)]
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def as_jsonl(columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS = {"csv": as_csv, "tsv": as_tsv, "jsonl": as_jsonl, "parquet": lambda columns: pa.table(columns)}


@pytest.fixture(params=WRITERS)
def form(request):
    return request.param


@pytest.mark.parametrize("labels", [LABELS, NUMBERS], ids=["names", "numbers"])
def test_every_form_says_the_same_by_name_or_by_number(own_folder, tone, form, labels):
    content = WRITERS[form]({"sentence": list(TEXTS), "label": list(labels)})
    train = read_task(tone, own_folder({f"train.{form}": content}), ("train",))["train"]
    assert train.texts == TEXTS
    assert train.labels == NUMBERS
    assert train.idx == tuple(range(6))


def test_other_columns_and_other_orders_do_not_matter(own_folder, tone, form):
    content = WRITERS[form]({"id": list("abcdef"), "label": list(LABELS), "sentence": list(TEXTS)})
    train = read_task(tone, own_folder({f"train.{form}": content}), ("train",))["train"]
    assert (train.texts, train.labels) == (TEXTS, NUMBERS)


def test_columns_may_have_names_of_their_own(own_folder, tone, form):
    content = WRITERS[form]({"body": list(TEXTS), "verdict": list(LABELS)})
    files = {f"train.{form}": content}
    named = read_task(tone, own_folder(files, text_column="body", label_column="verdict"), ("train",))["train"]
    assert (named.texts, named.labels) == (TEXTS, NUMBERS)
    with pytest.raises(DataError, match=r"expected: a column 'sentence'") as caught:
        read_task(tone, own_folder(files), ("train",))
    assert caught.value.found == "'body', 'verdict'"


def test_a_task_may_name_its_columns_itself(own_folder, tone, form):
    content = WRITERS[form]({"body": list(TEXTS), "verdict": list(LABELS)})
    task = type(tone)(name="tone", labels=tone.labels, prompt=tone.prompt, text_column="body", label_column="verdict")
    assert read_task(task, own_folder({f"train.{form}": content}), ("train",))["train"].labels == NUMBERS


@pytest.mark.parametrize("label", [-1, None, ""])
def test_a_test_split_without_labels_is_unlabelled(own_folder, tone, label):
    line = json.dumps({"sentence": "one", "label": label}) + "\n"
    labelled = json.dumps({"sentence": "one", "label": "odd"}) + "\n"
    assert read_task(tone, own_folder({"test.jsonl": line}), ("test",))["test"].labels is None
    assert read_task(tone, own_folder({"test.jsonl": '{"sentence": "one"}'}), ("test",))["test"].labels is None
    assert read_task(tone, own_folder({"test.jsonl": labelled}), ("test",))["test"].labels == (2,)


def test_a_test_split_labelled_in_part_is_refused(own_folder, tone):
    data = own_folder({"test.csv": "sentence,label\none,odd\ntwo,-1\n"})
    with pytest.raises(DataError, match="not a class") as caught:
        read_task(tone, data, ("test",))
    assert "test.csv, row 3" in str(caught.value)


@pytest.mark.parametrize("name", ["validation", "valid", "dev"])
def test_validation_has_three_names(own_folder, tone, name):
    data = own_folder({"train.csv": "sentence,label\na,odd\n", f"{name}.csv": "sentence,label\nb,dull\n"})
    splits = read_task(tone, data)
    assert list(splits) == ["train", "validation"]
    assert splits["validation"].texts == ("b",)


def test_one_folder_may_hold_several_tasks(own_folder, tone):
    data = own_folder({"tone/train.csv": "sentence,label\ninner,odd\n", "train.csv": "sentence,label\nouter,odd\n"})
    assert read_task(tone, data, ("train",))["train"].texts == ("inner",)


def test_a_built_in_task_can_be_read_from_files(own_folder):
    data = own_folder({"train.csv": "sentence,label\nFine.,acceptable\nFine the.,0\n"})
    assert read_task(COLA, data, ("train",))["train"].labels == (1, 0)


def test_glue_does_not_have_a_task_of_ones_own(tone):
    for source in ("glue", "sample", "hub"):
        with pytest.raises(ConfigError, match=f"'{source}' does not have this task"):
            read_task(tone, DataConfig(data=source))


def test_a_newline_inside_quotes_belongs_to_its_sentence(own_folder, tone):
    data = own_folder({"train.csv": 'sentence,label\n"one\ntwo",odd\n"say ""hi"", then",dull\nthree,lively\n'})
    train = read_task(tone, data, ("train",))["train"]
    assert train.texts == ("one\ntwo", 'say "hi", then', "three")
    assert train.labels == (2, 0, 1)


def test_a_row_number_counts_lines_of_the_file_also_after_a_newline_in_quotes(own_folder, tone):
    data = own_folder({"train.csv": 'sentence,label\n"one\ntwo",odd\nthree,nonsense\n'})
    with pytest.raises(DataError, match=r"train\.csv, row 4"):
        read_task(tone, data, ("train",))


def test_an_empty_line_of_a_csv_file_is_no_example(own_folder, tone):
    data = own_folder({"train.csv": "sentence,label\none,odd\n\ntwo,dull\n"})
    assert read_task(tone, data, ("train",))["train"].texts == ("one", "two")


def test_an_empty_line_of_a_csv_file_of_one_column_is_an_empty_sentence_unless_it_is_the_last(own_folder, tone):
    for between, after in (("", "\n"), ("", "\n\n"), ("\n", "")):
        data = own_folder({"test.csv": f'sentence\n"one\ntwo"\n{between}three\n{after}'})
        if not between:
            assert read_task(tone, data, ("test",))["test"].texts == ("one\ntwo", "three")
            continue
        with pytest.raises(DataError, match="a sentence is empty") as caught:
            read_task(tone, data, ("test",))
        assert "test.csv, row 4" in str(caught.value)


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x0c", "\x1e"])
def test_line_separators_of_unicode_do_not_cut_a_sentence(own_folder, tone, form, separator):
    """Only a newline ends a row: `str.splitlines` would cut these sentences in two."""
    text = f"one{separator}two"
    content = WRITERS[form]({"sentence": [text, "three"], "label": ["odd", "dull"]})
    assert read_task(tone, own_folder({f"train.{form}": content}), ("train",))["train"].texts == (text, "three")


FREE_TEXT = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs", "Zl", "Zp", "Cc"]), min_size=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(FREE_TEXT.filter(lambda text: text == text.strip()), st.integers(0, 2)), min_size=1, max_size=6
    )
)
def test_any_sentences_survive_csv_parquet_and_json_lines(own_folder, tone, rows):
    texts, labels = zip(*rows, strict=True)
    columns = {"sentence": list(texts), "label": list(labels)}
    for form, split in (("csv", "train"), ("parquet", "validation"), ("jsonl", "test")):
        examples = read_task(tone, own_folder({f"{split}.{form}": WRITERS[form](columns)}), (split,))[split]
        assert (examples.texts, examples.labels) == (texts, labels)
