"""Corpora that are streamed: read stretch by stretch, the features are those of the corpus read as a whole."""

import json
import pickle
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cache import FeatureCache
from pipeline.cache.index import write_index
from pipeline.cache.seal import Seal
from pipeline.cache.verify import verify_feature_set
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.corpus_config import CorpusConfig
from pipeline.digests import sha256_of_file
from pipeline.errors import ConfigError, DataError, FeatureSetNotFound
from pipeline.file_memory import state_of
from pipeline.heads.train import train_heads
from pipeline.own_rows import own_rows
from pipeline.tasks import row_files
from pipeline.tasks.row_files import MOST_OFFSETS, measured
from pipeline.tasks.spec import BUILT_IN
from pipeline.tasks.stream import stream_task

ROWS = [
    {"sentence": f" The {'cat' if n % 2 else 'soup'} of day {n} {'sat' * (n % 5)}.", "label": n % 2} for n in range(70)
]
ASKED = {"tasks": ("cola",), "splits": ("train",), "layers": ("1",), "poolings": ("mean",), "order": "split"}


@pytest.fixture(autouse=True)
def memory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def written(folder, kind):
    """The rows as one file, as several, or as JSON lines; give the folder."""
    folder.mkdir()
    table = pa.Table.from_pylist(ROWS)
    if kind == "jsonl":
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    elif kind == "parquet":
        pq.write_table(table, folder / "train.parquet", row_group_size=9)
    else:
        (folder / "train").mkdir()
        for number, (first, stop) in enumerate(((0, 23), (23, 64), (64, 70))):
            pq.write_table(
                table.slice(first, stop - first), folder / "train" / f"{number:03d}.parquet", row_group_size=9
            )
    return folder


def stream(folder, **settings):
    return stream_task(BUILT_IN["cola"], CorpusConfig(str(folder), stream=True, **settings), ("train",))["train"]


@pytest.mark.parametrize("kind", ["parquet", "several", "jsonl"])
def test_any_stretch_is_what_stands_there(tmp_path, kind):
    corpus = stream(written(tmp_path / "data", kind))
    assert len(corpus) == 70 and corpus.labelled
    for first, stop in ((0, 70), (5, 6), (22, 41), (63, 70), (8, 10)):
        found = corpus.read(first, stop)
        assert found.texts == tuple(row["sentence"].strip() for row in ROWS[first:stop])
        assert found.labels == tuple(row["label"] for row in ROWS[first:stop])
        assert found.idx == tuple(range(first, stop))


@pytest.mark.parametrize("kind", ["parquet", "several", "jsonl"])
def test_streamed_the_features_are_those_of_the_corpus_read_as_a_whole(stage_one, tmp_path, kind):
    whole, streamed = written(tmp_path / "whole", "parquet"), written(tmp_path / "streamed", kind)
    stage_one(tmp_path / "one", data=str(whole), **ASKED)
    for share in ("0::2", "1::2"):
        stage_one(tmp_path / "two", data=str(streamed), stream=True, only_shards=share, **ASKED)
    [record] = stage_one(tmp_path / "two", data=str(streamed), stream=True, finish=True, **ASKED)
    assert record["rows"] == 70
    one, two = (FeatureCache(tmp_path / name).open("cola", "train", layer=1, pooling="mean") for name in ("one", "two"))
    assert two.manifest.identity.texts.startswith("files:") and one.fingerprint != two.fingerprint
    assert (one.X == two.X).all() and one.texts == two.texts and (one.y == two.y).all()
    for path in one.folder.glob("shard-*.h5"):
        assert path.read_bytes() == (two.folder / path.name).read_bytes()
    [again] = stage_one(tmp_path / "two", data=str(streamed), stream=True, **ASKED)
    assert again["status"] == "present"


def test_other_rows_are_other_features(tmp_path):
    folder = written(tmp_path / "data", "jsonl")
    before = stream(folder).digest
    assert stream(folder).digest == before
    path = folder / "train.jsonl"
    path.write_text(path.read_text("utf-8").replace("soup", "soap", 1), "utf-8")
    assert stream(folder).digest != before


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("travelled", [False, True])
def test_a_file_that_is_replaced_while_it_is_read_is_refused(tmp_path, kind, travelled):
    corpus = stream(written(tmp_path / "data", kind))
    if travelled:
        corpus = pickle.loads(pickle.dumps(corpus))
    [path] = (tmp_path / "data").iterdir()
    assert corpus.read(0, 9).texts[0].startswith("The soup")
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes().replace(b"soup", b"soap"))  # as long as before
    other.replace(path)
    with pytest.raises(DataError, match="not the one that was hashed") as caught:
        corpus.read(9, 40)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(DataError, match=r"went away|cannot be read"):
        corpus.read(40, 60)


def test_a_set_whose_file_is_replaced_meanwhile_does_not_become_whole(stage_one, tmp_path, monkeypatch):
    folder = written(tmp_path / "data", "parquet")
    read, reads = row_files.ParquetFile.read, []

    def read_and_replace(self, *words):
        found = read(self, *words)
        reads.append(words)
        if len(reads) == 3:
            (folder / "other").write_bytes((folder / "train.parquet").read_bytes())
            (folder / "other").replace(folder / "train.parquet")
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(row_files.ParquetFile, "read", read_and_replace)
        with pytest.raises(DataError, match="not the one that was hashed"):
            stage_one(tmp_path / "cache", data=str(folder), stream=True, shard_rows=9, **ASKED)
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    [record] = stage_one(tmp_path / "cache", data=str(folder), stream=True, shard_rows=9, **ASKED)
    assert record["status"] in ("resumed", "written")  # its bytes are the same: what was sealed is kept


def test_streamed_features_pass_a_deep_look_and_other_rows_do_not(stage_one, tmp_path):
    stage_one(tmp_path / "cache", data=str(written(tmp_path / "data", "parquet")), stream=True, shard_rows=20, **ASKED)
    feature_set = FeatureCache(tmp_path / "cache").open("cola", "train", layer=1, pooling="mean")
    assert not verify_feature_set(feature_set.folder, deep=True).damages
    path = feature_set.folder / "shard-00001.parquet"
    table = pq.read_table(path)
    path.unlink()
    write_index(path, table.set_column(0, "row", [list(range(21, 41))]))
    seal = Seal.read(path.with_suffix(".json"))
    changed = {"index_sha256": sha256_of_file(path), "index_bytes": path.stat().st_size}
    replace(seal, **changed).write(path.with_suffix(".json"))
    assert verify_feature_set(feature_set.folder, deep=True).damages


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_file_without_rows_is_refused(tmp_path, suffix):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / f"train.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(b"")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), path)
    with pytest.raises(DataError, match="no rows"):
        stream(tmp_path / "data")


def test_without_labels_rows_have_none(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"sentence": ["a b", "c d"]}), tmp_path / "data" / "train.parquet")
    corpus = stream(tmp_path / "data")
    assert not corpus.labelled and corpus.read(0, 2).labels is None
    with pytest.raises(DataError, match="no labels"):
        stream(tmp_path / "data", label_column="label")


@pytest.mark.parametrize("lines", [1, 1023, 1024, 1025, 5000])
def test_every_line_is_found_by_the_offsets_that_are_kept(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(row_files, "BLOCK_BYTES", 1000)
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps({"n": n}) for n in range(lines)), "utf-8")  # no newline at the end
    facts = measured(path)
    assert facts["rows"] == lines and len(facts["offsets"]) <= MOST_OFFSETS + 1
    file = row_files.JsonLines(str(path), facts, row_files.Unchanged(str(path), state_of(path)))
    for first in sorted({0, lines // 2, lines - 1}):
        assert file.read(first, lines, ["n"])["n"] == list(range(first, lines))


def test_what_cannot_be_streamed_is_said(stage_one, tmp_path):
    with pytest.raises(ConfigError, match="read as a whole"):
        stage_one(stream=True)
    folder = written(tmp_path / "data", "parquet")
    with pytest.raises(ConfigError, match="cut as it stands"):
        stage_one(data=str(folder), stream=True, **ASKED | {"order": "tokens"})
    with pytest.raises(DataError, match="a split is not there"):
        stream_task(BUILT_IN["cola"], CorpusConfig(str(folder), stream=True), ("test",))
    (folder / "train-1.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="several kinds"):
        stream(folder)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.jsonl").write_text('{"sentence": "a"}\n[]\n')
    with pytest.raises(DataError, match=r"no object") as caught:
        stream(tmp_path / "bad").read(0, 2)
    assert "row 2" in caught.value.where


def test_a_data_set_of_the_hub_is_read_where_it_lies(tmp_path):
    """A folder laid out as a data set stands for one of the Hub: the same road, by the same library."""
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    (folder / "cola").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "cola" / "train-00000-of-00001.parquet", row_group_size=11)
    front = "---\nconfigs:\n- config_name: cola\n  data_files:\n  - split: train\n    path: cola/train-*\n---\n"
    (folder / "README.md").write_text(front)
    data = CorpusConfig("hub", hub_dataset=str(folder), stream=True)
    corpus = stream_task(BUILT_IN["cola"], data)["train"]
    assert corpus.read(60, 70).texts == tuple(row["sentence"].strip() for row in ROWS[60:])
    with pytest.raises(DataError, match="cannot be had from the Hub"):
        stream_task(BUILT_IN["cola"], CorpusConfig("hub", hub_dataset="nobody/nothing", stream=True))


def test_heads_train_on_what_was_streamed_from_a_folder(stage_one, tmp_path, tiny_backbone):
    folder = written(tmp_path / "data", "several")
    pq.write_table(pa.Table.from_pylist(ROWS[:40]), folder / "validation.parquet")
    asked = {**ASKED, "splits": ("train", "validation")}
    stage_one(tmp_path / "cache", data=str(folder), stream=True, **asked)
    heads = HeadsConfig(
        tasks=("cola",),
        heads=("logreg",),
        views=("L1-mean",),
        data=str(folder),
        backbone=str(tiny_backbone),
        held_out=0.5,
    )
    cache = CacheConfig(tmp_path / "cache")
    own = own_rows(heads, [BUILT_IN["cola"]], cache)
    assert {rows.texts.split(":")[0] for rows in own["cola"].values()} == {"files"}
    [run] = train_heads(heads, cache, RunsConfig(tmp_path / "runs"), own)
    assert run.scores["cola"]["validation"]["accuracy"] >= 0
    other = [{**row, "sentence": f"other {row['sentence']}"} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(other).slice(0, 23), folder / "train" / "000.parquet")
    with pytest.raises(FeatureSetNotFound) as caught:  # of one split alone
        train_heads(heads, cache, RunsConfig(tmp_path / "runs"), own_rows(heads, [BUILT_IN["cola"]], cache))
    assert "--stream" in caught.value.remedy
    assert own_rows(heads, [BUILT_IN["cola"]], CacheConfig(tmp_path / "none")) == {}


def test_of_a_folder_that_was_streamed_and_read_as_a_whole_each_split_is_known_as_the_cache_has_it(stage_one, tmp_path):
    folder = written(tmp_path / "data", "parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:40]), folder / "validation.parquet")
    stage_one(tmp_path / "cache", data=str(folder), stream=True, **ASKED | {"splits": ("validation",)})
    stage_one(tmp_path / "cache", data=str(folder), **ASKED)
    heads = HeadsConfig(tasks=("cola",), data=str(folder))
    own = own_rows(heads, [BUILT_IN["cola"]], CacheConfig(tmp_path / "cache"))["cola"]
    assert {split: rows.texts.split(":")[0] for split, rows in own.items()} == {
        "train": "sha256",
        "validation": "files",
    }
    assert (own["train"].labels, own["validation"].labels) == (tuple(row["label"] for row in ROWS), None)
    pq.write_table(pa.table({"sentence": ["a"], "label": [2]}), folder / "train.parquet")
    with pytest.raises(DataError, match="not a class"):
        own_rows(heads, [BUILT_IN["cola"]], CacheConfig(tmp_path / "cache"))


def test_a_folder_that_is_not_here_is_said_and_one_that_does_not_fit_its_task_is_refused(tmp_path, capsys):
    heads, cache = HeadsConfig(tasks=("cola",), data=str(tmp_path / "my-dta")), CacheConfig(tmp_path / "cache")
    assert own_rows(heads, [BUILT_IN["cola"]], cache) == {}
    assert "there is no folder" in capsys.readouterr().err
    folder = written(tmp_path / "my-dta", "parquet")
    assert own_rows(heads, [BUILT_IN["cola"]], cache) == {}  # without validation
    assert "a split is not there" in capsys.readouterr().err
    pq.write_table(pa.table({"sentence": ["a"], "label": [2]}), folder / "validation.parquet")
    with pytest.raises(DataError, match="not a class") as caught:
        own_rows(heads, [BUILT_IN["cola"]], cache)
    assert "row 1" in str(caught.value)
