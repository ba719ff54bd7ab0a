"""Files of sentences come out with their columns and what the run says beside them, whole or not at all."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.predicting import files as predicting_files
from pipeline.predicting import load_predictor, predictor, sheets
from pipeline.predicting.files import SentenceFile, check_target, predict_file
from pipeline.tasks.tables import SUFFIXES, read_table

TEXTS = ['He said "no" , twice .', "Two, commas, here", "plain", "crème brûlée", "It 's done ."]
COLUMNS = {"id": ["007", "8", "9", "10", "11"], "sentence": TEXTS, "note": ["", "a", "b", "c", "d"]}
NEW = ["prediction", "label", "probability_unacceptable", "probability_acceptable"]


@pytest.fixture(scope="module")
def words(place):
    """A run that needs no backbone."""
    return load_predictor(place.run("tfidf"))


@pytest.fixture(autouse=True)
def two_at_once(monkeypatch):
    for module in (predicting_files, predictor):
        monkeypatch.setattr(module, "AT_ONCE", 2)


def write(path, columns):
    rows = len(next(iter(columns.values())))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path, row_group_size=3)
        return path
    with sheets.WRITERS[path.suffix](path, path) as writer:
        writer.write(sheets.Sheet(columns, range(1, rows + 1)))
    return path


def predict(words, source, to, **settings):
    check_target(to, source, force=settings.get("force", False))
    return predict_file(words, SentenceFile.check(source, to=to), to, task="cola", **settings)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(SUFFIXES, SUFFIXES)))
def test_columns_stay_and_predictions_stand_beside_them(words, tmp_path, one, other):
    result = predict(words, write(tmp_path / f"in{one}", COLUMNS), tmp_path / f"out{other}")
    found = read_table(tmp_path / f"out{other}")
    answers = words.answer(TEXTS)
    assert list(found.columns) == [*COLUMNS, *NEW]
    assert {name: found.columns[name] for name in COLUMNS} == COLUMNS
    assert [int(value) for value in found.columns["prediction"]] == answers.predictions.tolist()
    assert found.columns["label"] == answers.names
    np.testing.assert_array_equal(
        np.array([found.columns[name] for name in NEW[2:]], dtype=np.float64).T, answers.probabilities
    )
    assert result["sentences"] == 5
    assert sum(result["labels"].values()) == 5
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_parquet_keeps_its_types(words, tmp_path):
    columns = {"sentence": TEXTS, "when": pa.array([1, 2, None, 4, 5], pa.timestamp("ns")), "score": [0.5] * 5}
    predict(words, write(tmp_path / "in.parquet", columns), tmp_path / "out.parquet")
    before, after = (pq.read_table(tmp_path / name) for name in ("in.parquet", "out.parquet"))
    assert after.select(before.column_names).equals(before)


def test_glues_own_test_file_is_taken_as_it_is(words, place, tmp_path):
    source = place.folder / "glue" / "CoLA" / "test.tsv"
    predict(words, source, tmp_path / "out.tsv")
    before, after = read_table(source), read_table(tmp_path / "out.tsv")
    assert [after.columns[name] for name in ("index", "sentence")] == list(before.columns.values())


def test_what_is_there_is_not_overwritten_unless_that_is_asked_for(words, tmp_path):
    labelled = write(tmp_path / "in.csv", {"sentence": TEXTS, "label": list("10101")})
    with pytest.raises(ConfigError, match="columns of these names"):
        predict(words, labelled, tmp_path / "out.csv")
    predict(words, labelled, tmp_path / "out.csv", prefix="model_")
    assert list(read_table(tmp_path / "out.csv").columns) == ["sentence", "label", *(f"model_{name}" for name in NEW)]
    with pytest.raises(ConfigError, match="there already"):
        predict(words, labelled, tmp_path / "out.csv", prefix="model_")
    predict(words, labelled, tmp_path / "out.csv", force=True)
    assert sorted(read_table(tmp_path / "out.csv").columns) == sorted(["sentence", *NEW])
    with pytest.raises(ConfigError, match="over the sentences"):
        predict(words, labelled, labelled, force=True)
    with pytest.raises(ConfigError, match=r"\.csv \| \.tsv"):
        check_target(tmp_path / "out.xlsx", labelled)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("in.csv", "sentence\nFine .\n\nGood .\n", ("a sentence is empty", "in.csv, row 3")),
        ("in.csv", "sentence,n\nFine .,1\n,2\n", ("a sentence is empty", "in.csv, row 3")),
        ("in.tsv", "index\tsentence\n0\tFine .\n1\n", ("wrong number of columns", "row 3")),
        ("in.jsonl", '{"text": "Fine ."}\n{"text": null}\n', ("not a text", "row 2", "None")),
        ("in.csv", "a,b\n1,2\n", ("no such column of sentences", "'a', 'b'", "--text-column")),
        ("in.csv", "Fine .\nGood .\n", ("no such column of sentences", "'Fine .'", "first line", "standard input")),
        ("in.jsonl", '{"text": "Fine .", "text": "Good ."}\n', ("two columns have one name", "row 1")),
        ("in.csv", "sentence\n", ("holds no sentence",)),
        ("in.txt", "Fine .\n", ("plain list", "pipeline predict RUN < /")),
        ("my in.txt", "Fine .\n", ("pipeline predict RUN < '/", "/my in.txt'")),
        ("in.doc", "Fine .\n", ("no reader",)),
        ("in.parquet", "no", ("not Parquet",)),
    ],
)
def test_what_cannot_be_predicted_is_refused_before_anything_is_computed(tmp_path, name, content, parts):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        SentenceFile.check(tmp_path / name)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("review_txt", "did you mean --text-column 'review text'?"),
        ("body", "leave --text-column out: 'sentence' is taken by itself"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_what_is(tmp_path, asked, part):
    path = write(tmp_path / "in.csv", {"sentence": TEXTS, "review text": TEXTS})
    with pytest.raises(DataError, match="found: 'sentence', 'review text'") as caught:
        SentenceFile.check(path, asked)
    assert part in str(caught.value)
    assert "name the column" not in str(caught.value)


def test_a_parquet_file_that_is_not_there_is_not_called_a_broken_one(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        SentenceFile.check(tmp_path / "none.parquet")


def test_a_prediction_that_breaks_off_leaves_nothing(words, tmp_path, monkeypatch):
    source = write(tmp_path / "in.csv", COLUMNS)
    checked = SentenceFile.check(source)
    changes = [
        ("id,sentence,note\n1,Fine .,\n2,Fine .,\n3,,\n", "row 4"),
        ("id,sentence,note\n1,Fine .,\n", "not what it was"),
        ("id,sentence,note\n" + "1,Fine .,\n" * 6, "not what it was"),
        ("id,text,note\n" + "1,Fine .,\n" * 5, "not what it was"),
    ]
    for content, part in changes:  # since it was checked
        source.write_text(content)
        with pytest.raises(DataError, match=part):
            predict_file(words, checked, tmp_path / "out.csv", task="cola")
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_computed(tmp_path):
    source = write(tmp_path / "in.csv", COLUMNS)
    (tmp_path / "folder.csv").mkdir()
    for to, part in (("folder.csv", "a folder"), ("nowhere/out.csv", "No such file"), ("in.csv/out.csv", "Not a dir")):
        with pytest.raises(ConfigError, match=part):
            check_target(tmp_path / to, source, force=True)
    check_target(tmp_path / "out.csv", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "in.csv"]


def test_what_json_or_a_text_has_no_word_for(words, tmp_path):
    columns = {"sentence": ["one", "two"], "x": [float("nan"), 0.5], "y": [[float("inf")], []]}
    source = write(tmp_path / "in.parquet", columns)
    predict(words, source, tmp_path / "out.JSONL")
    records = [
        json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "out.JSONL").read_text().splitlines()
    ]
    assert [(record["x"], record["y"]) for record in records] == [(None, [None]), (0.5, [])]
    write(source, {"sentence": ["one"], "x": [[b"\xff"]]})
    for suffix in (".csv", ".tsv", ".jsonl"):
        with pytest.raises(DataError, match=r"hold bytes(.|\n)*column 'x'"):
            predict(words, source, tmp_path / f"bytes{suffix}")
    predict(words, source, tmp_path / "out.parquet")
    assert read_table(tmp_path / "out.parquet").columns["x"] == [[b"\xff"]]
    twice = pa.Table.from_arrays([pa.array(["one"])] * 2, names=["sentence", "sentence"])
    pq.write_table(twice, source)
    with pytest.raises(DataError, match="two columns have one name"):
        SentenceFile.check(source)


def test_a_column_has_the_kind_of_all_its_rows(words, tmp_path):
    source, to = tmp_path / "in.jsonl", tmp_path / "out.parquet"

    def write_rows(*values):
        source.write_text("".join(json.dumps({"sentence": "x", "n": n, "label": n}) + "\n" for n in values))

    for values, kind in (
        ((None, None, None, 7), pa.int64()),
        ((1, 2, 3, 0.5), pa.float64()),
        ((None,) * 3, pa.string()),
    ):
        write_rows(*values)
        predict(words, source, to, force=True)
        assert pq.read_table(to).column("n").type == kind
        assert read_table(to).columns["n"] == list(values)
    for values in ((1, 2, 3, "four"), (1, 2, 3, 10**30), (None, None, "x", 4)):
        write_rows(*values)
        with pytest.raises(DataError, match="column 'n', of row 4"):
            SentenceFile.check(source, to=to)


def test_a_value_that_the_target_cannot_hold_is_named(words, tmp_path):
    source = write(tmp_path / "in.csv", {"sentence": ["one", "two\nlines"]})
    with pytest.raises(DataError, match="tab or a newline"):
        predict(words, source, tmp_path / "out.tsv")
    mixed = tmp_path / "in.jsonl"
    mixed.write_text("".join(json.dumps({"sentence": "x", "n": n}) + "\n" for n in (1, 2, "three")))
    predict(words, mixed, tmp_path / "out.jsonl")
    assert read_table(tmp_path / "out.jsonl").columns["n"] == [1, 2, "three"]
    with pytest.raises(DataError, match="several kinds"):
        predict(words, mixed, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
