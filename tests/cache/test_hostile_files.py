"""Files made to mislead: each is refused with a clear error, and nothing outside the cache is read or written."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.index import SCHEMA
from pipeline.cache.json_files import DEEPEST, MOST_BYTES, parse_json
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.shard import write_shard
from pipeline.cache.verify import verify_feature_set
from pipeline.digests import sha256_of_file, with_digest, xxh3_of_file
from pipeline.errors import DamagedFeatureSet, FeatureSetNotFound


@pytest.fixture(autouse=True)
def no_hanging():
    """A pipe that nobody writes to must not be waited for."""

    def stop(number, frame):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def small(corpus):
    return corpus()


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def folder(small, cache_dir):
    return small.write(cache_dir).folder


def read_all(folder):
    feature_set = FeatureSet(folder)
    if feature_set.is_tokens:
        return [feature_set.tokens(row) for row in range(len(feature_set))], feature_set.y
    return feature_set.X, feature_set.y, feature_set.index


def write_json(path, record):
    """As the project writes it, with a digest that holds."""
    record = with_digest({name: value for name, value in record.items() if name != "digest"})
    layout = {"indent": 2} if path.name == MANIFEST else {"separators": (",", ":")}
    path.write_bytes((json.dumps(record, sort_keys=True, ensure_ascii=False, **layout) + "\n").encode())


def seal_anew(folder, **changes):
    """Make seals and manifest agree with whatever the files now are, as someone would who wants to mislead."""
    record = json.loads((folder / MANIFEST).read_bytes())
    seals = []
    for number in range(-(-record["rows"] // record["shard_rows"])):
        states, index, path = shard_paths(folder, number)
        old = {**json.loads(path.read_bytes()), **changes.get("seal", {})}
        old["states_bytes"], old["states_sha256"] = states.stat().st_size, sha256_of_file(states)
        old["states_xxh3"] = xxh3_of_file(states)
        old["index_bytes"], old["index_sha256"] = index.stat().st_size, sha256_of_file(index)
        write_json(path, old)
        seals.append(Seal.read(path))
    record |= {"seals": digest_of_seals(seals), "passport": passport_of_seals(seals)}
    write_json(folder / MANIFEST, record | changes.get("manifest", {}))
    return folder


def refused(action, *words):
    with pytest.raises(DamagedFeatureSet) as caught:
        action()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_the_control_a_set_sealed_anew_reads_as_before(folder, small):
    small.check(FeatureSet(seal_anew(folder), verify=True))


# --- links and what is no file ---


@pytest.mark.parametrize("name", ["shard-00001.h5", "shard-00001.parquet", "shard-00001.json", MANIFEST])
@pytest.mark.parametrize("leads", ["out", "within"])
def test_a_file_that_is_a_link(folder, tmp_path, name, leads):
    target = (tmp_path if leads == "out" else folder) / "elsewhere"
    (folder / name).rename(target)
    (folder / name).symlink_to(target)
    refused(lambda: read_all(folder), name, "a link")


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["set", "split", "task"])
def test_a_folder_that_is_a_link(folder, cache_dir, tmp_path, depth):
    path = [folder, folder.parent, folder.parent.parent][depth]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(lambda: FeatureSet(folder), "a link", str(path))
    refused(lambda: FeatureCache(cache_dir).open("cola", "train"), "a link", str(path))
    refused(lambda: FeatureCache(cache_dir).manifests(), "a link", str(path))


def test_a_link_elsewhere_in_the_cache_does_not_bar_the_way(folder, small, cache_dir, tmp_path):
    (tmp_path / "outside").mkdir()
    (cache_dir / "sst2").symlink_to(tmp_path / "outside")
    small.check(FeatureCache(cache_dir).open("cola", "train"))


def test_the_cache_itself_may_be_a_link(folder, small, cache_dir, tmp_path):
    (tmp_path / "way").symlink_to(cache_dir)
    small.check(FeatureCache(tmp_path / "way").open("cola", "train"))


@pytest.mark.parametrize("name", ["shard-00001.h5", "shard-00001.parquet", "shard-00001.json", MANIFEST])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(lambda: read_all(folder), name)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_in_the_place_of_a_manifest(folder, device):
    (folder / MANIFEST).unlink()
    try:
        os.mknod(folder / MANIFEST, 0o600 | 0o020000, Path(device).stat().st_rdev)
    except OSError as error:
        pytest.skip(f"devices cannot be made here: {error}")
    refused(lambda: FeatureSet(folder), MANIFEST)


@pytest.mark.parametrize("way", ["../..", "..", "/etc", "cola/../cola", "co\0la", "", ".", "*", "c?la", "**"])
def test_a_task_split_or_name_that_is_a_path(folder, cache_dir, way):
    cache = FeatureCache(cache_dir)
    for ask in (lambda: cache.open(way, "train"), lambda: cache.open("cola", way), lambda: cache.open_folder(way)):
        with pytest.raises(FeatureSetNotFound):
            ask()
    assert cache.manifests(way) == cache.manifests(None, way) == []


@pytest.mark.parametrize("field", ["task", "split", "backbone"])
@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", "", "a\0b", "a\nb", "\x1b[2J", "a\\b"])
def test_a_manifest_with_a_name_that_is_a_path(folder, field, name):
    refused(lambda: FeatureSet(seal_anew(folder, manifest={field: name})), MANIFEST, "no name of a folder")


def test_a_manifest_that_is_outside_of_the_cache_is_not_reached_by_its_names(folder, cache_dir, tmp_path, small):
    small.write(tmp_path / "other")
    assert [m.name for m in FeatureCache(cache_dir / "cola").manifests()] == []
    with pytest.raises(FeatureSetNotFound):
        FeatureCache(cache_dir).open("../../other/cola", "train")


# --- JSON ---

DEEP = "[" * 50_000 + "]" * 50_000
BAD_JSON = {
    "NaN": '{"a": NaN}',
    "Infinity": '{"a": [-Infinity]}',
    "too large a number": '{"a": 1e999}',
    "a huge integer": '{"a": ' + "9" * 5000 + "}",
    "beyond 64 bits": '{"a": 9223372036854775808}',
    "a key twice": '{"a": 1, "a": 2}',
    "a key twice within": '{"b": [{"a": 1, "a": 1}]}',
    "a nesting bomb": DEEP,
    "objects in objects": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "too deep": "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    "a lone surrogate": '{"a": "\\ud800"}',
    "a lone surrogate in a key": '{"\\ud800": 1}',
    "no UTF-8": b'{"a": "\xff"}',
    "NUL": b"\0" * 100,
    "a comment": '{"a": 1} // yes',
    "two records": "{} {}",
    "nothing": "",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_that_no_reader_should_take(what):
    content = BAD_JSON[what]
    with pytest.raises(ValueError):
        parse_json(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("what", BAD_JSON)
@pytest.mark.parametrize("name", [MANIFEST, "shard-00000.json"])
def test_such_json_in_the_place_of_a_manifest_or_seal(folder, what, name):
    content = BAD_JSON[what]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: FeatureSet(folder), name)


@pytest.mark.parametrize(
    "text", ['{"a": [1, -2.5, null, true, "ä"]}', "9223372036854775807", "[" * DEEPEST + "]" * DEEPEST, "1e300"]
)
def test_ordinary_json_is_read_as_it_is(text):
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("name", [MANIFEST, "shard-00000.json"])
def test_a_huge_json_file_is_not_read_to_its_end(folder, name):
    with (folder / name).open("r+b") as file:
        file.truncate(2**40)  # a hole: it takes no room
    refused(lambda: FeatureSet(folder), str(MOST_BYTES))


@pytest.mark.parametrize("field", ["recorded", "passport", "labels", "identity"])
@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {"a": {"b": ["../x", "/etc"]}}, [["x"]]])
def test_a_field_of_another_type_or_content(folder, small, field, value):
    changed = json.loads((folder / MANIFEST).read_bytes()) | {field: value}
    write_json(folder / MANIFEST, changed)
    if field == "recorded" and isinstance(value, dict):
        small.check(FeatureSet(folder))  # what is only recorded is shown, and leads nowhere
    else:
        refused(lambda: FeatureSet(folder))


@pytest.mark.parametrize(
    "changes",
    [{"rows": 2**62}, {"rows": 2**62, "shard_rows": 2**62}, {"shard_rows": 2**62}, {"rows": 2**62, "shard_rows": 1}],
)
def test_huge_claims_of_rows(folder, changes):
    changed = json.loads((folder / MANIFEST).read_bytes()) | changes
    write_json(folder / MANIFEST, changed)
    refused(lambda: read_all(folder))


@pytest.mark.parametrize("value", [0, -6, True, 2**62, "6", 6.0, None])
def test_a_hidden_size_that_is_none(folder, identity, value):
    record = json.loads((folder / MANIFEST).read_bytes())
    record["identity"]["architecture"]["hidden_size"] = value
    record["fingerprint"] = type(identity).from_dict(record["identity"]).fingerprint
    place = folder.with_name(folder.name[:-12] + record["fingerprint"][:12])
    folder.rename(place)
    write_json(place / MANIFEST, record)
    refused(lambda: read_all(place))


# --- HDF5 ---


def replace_states(folder, write):
    """Put another HDF5 file in the place of the second shard's, seals and manifest to match."""
    path = shard_paths(folder, 1)[0]
    path.unlink()
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        write(file)
    return seal_anew(folder)


VALUES = np.ones((4, 6), np.float32)


def link_to_another_file(file, outside):
    with h5py.File(outside, "w") as other:
        other["hidden_states"] = VALUES
    file["hidden_states"] = h5py.ExternalLink(str(outside), "/hidden_states")


def soft_link(file, outside):
    file["values"] = VALUES
    file["hidden_states"] = h5py.SoftLink("/values")


def virtual(file, outside):
    with h5py.File(outside, "w") as other:
        other["hidden_states"] = VALUES
    layout = h5py.VirtualLayout((4, 6), "<f4")
    layout[:] = h5py.VirtualSource(str(outside), "hidden_states", (4, 6))
    file.create_virtual_dataset("hidden_states", layout)


def external_data(file, outside):
    outside.write_bytes(VALUES.tobytes())
    file.create_dataset("hidden_states", (4, 6), "<f4", external=[(str(outside), 0, VALUES.nbytes)])


def named_type(file, outside):
    file["kind"] = np.dtype("<f4")
    file.create_dataset("hidden_states", (4, 6), file["kind"])[...] = VALUES


def offsets_elsewhere(file, outside):
    with h5py.File(outside, "w") as other:
        other["offsets"] = np.arange(5)
    file["hidden_states"] = VALUES
    file["offsets"] = h5py.ExternalLink(str(outside), "/offsets")


def huge_and_sparse(file, outside):
    file.create_dataset("hidden_states", (2**40, 6), "<f4")


def compressed(file, outside):
    file.create_dataset("hidden_states", data=VALUES, chunks=(4, 6), compression="gzip")


def checksummed(file, outside):
    file.create_dataset("hidden_states", data=VALUES, fletcher32=True)


def chunked(file, outside):
    file.create_dataset("hidden_states", data=VALUES, chunks=(1, 6))


def compact(file, outside):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4, 6))
    h5py.h5d.create(file.id, b"hidden_states", h5py.h5t.IEEE_F32LE, space, plan).write(
        h5py.h5s.ALL, h5py.h5s.ALL, VALUES
    )


def of(values):
    def write(file, outside):
        file["hidden_states"] = values

    return write


def objects(file, outside):
    kind = h5py.special_dtype(vlen=str)
    file.create_dataset("hidden_states", (4, 6), kind)


def group(file, outside):
    file.create_group("hidden_states")["x"] = VALUES


def only_a_type(file, outside):
    file["hidden_states"] = np.dtype("<f4")


def never_written(file, outside):
    file.create_dataset("hidden_states", (4, 6), "<f4")


HOSTILE_SHARDS = {
    "an external link": link_to_another_file,
    "a soft link": soft_link,
    "virtual": virtual,
    "external data": external_data,
    "a named type": named_type,
    "offsets elsewhere": offsets_elsewhere,
    "a huge shape without data": huge_and_sparse,
    "compressed": compressed,
    "a filter": checksummed,
    "chunked": chunked,
    "compact": compact,
    "big-endian": of(VALUES.astype(">f4")),
    "doubles": of(VALUES.astype("<f8")),
    "integers": of(VALUES.astype("<i4")),
    "half floats": of(VALUES.astype("<f2")),
    "one dimension": of(VALUES.reshape(-1)),
    "three dimensions": of(VALUES.reshape(4, 6, 1)),
    "another width": of(np.ones((6, 4), np.float32)),
    "fewer rows": of(VALUES[:3]),
    "more rows": of(np.ones((5, 6), np.float32)),
    "no rows": of(VALUES[:0]),
    "a scalar": of(np.float32(1)),
    "empty": of(h5py.Empty("f4")),
    "a record": of(np.zeros(4, [("a", "<f4", (6,))])),
    "objects": objects,
    "a group": group,
    "a type alone": only_a_type,
    "never written": never_written,
    "nothing": lambda file, outside: None,
}


@pytest.mark.parametrize("how", HOSTILE_SHARDS)
def test_a_shard_that_is_not_a_plain_array_of_its_own_file(folder, tmp_path, how):
    outside = tmp_path / "outside"
    replace_states(folder, lambda file: HOSTILE_SHARDS[how](file, outside))
    before = outside.stat() if outside.exists() else None
    refused(lambda: read_all(folder), "shard-00001.h5")
    assert before is None or outside.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("how", ["an external link", "virtual", "external data", "offsets elsewhere"])
def test_what_lies_outside_is_not_even_opened(folder, tmp_path, how):
    """In the place of the file that the shard leads to waits a pipe: whoever opens it hangs, and the test fails."""
    outside = tmp_path / "outside"
    replace_states(folder, lambda file: HOSTILE_SHARDS[how](file, outside))
    outside.unlink()
    os.mkfifo(outside)
    refused(lambda: read_all(folder), "shard-00001.h5")


@pytest.mark.parametrize("how", ["numpy", "pickle", "text", "zip"])
def test_another_format_in_disguise(folder, tmp_path, how):
    path = shard_paths(folder, 1)[0]
    if how == "numpy":
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        shutil.copyfile(tmp_path / "a.npy", path)
    elif how == "zip":
        np.savez(tmp_path / "a.npz", hidden_states=VALUES)
        shutil.copyfile(tmp_path / "a.npz", path)
    else:
        path.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR." if how == "pickle" else b"hidden_states: 1, 2, 3\n")
    refused(lambda: read_all(seal_anew(folder)), "shard-00001.h5")


@pytest.mark.parametrize(
    "offsets",
    [
        np.array([0, 3, 2, 5, 6]),
        np.array([0, 1, 2, 3]),
        np.array([0, 1, 2, 3, 7]),
        np.array([1, 2, 3, 4, 6]),
        np.array([0, -1, 2, 3, 6]),
        np.array([0, 2**62, 2, 3, 6]),
        np.zeros((5, 1), np.int64),
        np.arange(5, dtype=np.int32),
        np.arange(5, dtype=np.float64),
        np.zeros(0, np.int64),
    ],
    ids=str,
)
def test_offsets_that_lead_astray(corpus, cache_dir, offsets):
    tokens = corpus(changes={"pooling": "tokens"})
    folder = tokens.write(cache_dir).folder

    def write(file):
        file["hidden_states"] = np.ones((6, 6), np.float32)
        file["offsets"] = offsets

    refused(lambda: read_all(replace_states(folder, write)), "shard-00001.h5")


@pytest.mark.parametrize("pooling", ["mean", "tokens"])
def test_a_value_that_is_not_finite_under_seals_that_agree(corpus, cache_dir, pooling):
    folder = corpus(changes={"pooling": pooling}).write(cache_dir).folder
    with h5py.File(shard_paths(folder, 1)[0], "r+") as file:
        file["hidden_states"][-1, 2] = np.inf
    seal_anew(folder)
    refused(lambda: read_all(folder), "not finite", "shard-00001.h5")


def test_a_shape_larger_than_the_file_is_refused_before_it_is_mapped(folder):
    """Early allocation makes HDF5 promise the room; the file is cut behind it, sealed as it is."""

    def write(file):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((4, 6))
        h5py.h5d.create(file.id, b"hidden_states", h5py.h5t.IEEE_F32LE, space, plan)

    replace_states(folder, write)
    path = shard_paths(folder, 1)[0]
    os.truncate(path, path.stat().st_size - 4)
    refused(lambda: read_all(seal_anew(folder)), "shard-00001.h5")


# --- Parquet ---


def replace_index(folder, table, **options):
    path = shard_paths(folder, 1)[1]
    path.unlink()
    pq.write_table(table, path, **options)
    return seal_anew(folder)


def index_of(small, rows=range(4, 8)):
    return small.shard(rows)[1].cast(SCHEMA)


def test_the_control_an_index_written_anew_reads_as_before(folder, small):
    small.check(FeatureSet(replace_index(folder, index_of(small))))


@pytest.mark.parametrize("rows", [range(4, 7), range(4, 9), range(0), range(3, 7)])
def test_an_index_of_other_rows(folder, small, rows):
    refused(
        lambda: read_all(
            replace_index(folder, index_of(small).schema.empty_table() if not rows else index_of(small, rows))
        )
    )


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()])
def test_texts_that_another_writer_stored_in_its_own_way_are_the_same_texts(folder, small, kind):
    table = index_of(small)
    replace_index(folder, table.set_column(3, pa.field("text", kind, nullable=False), table["text"].cast(kind)))
    small.check(FeatureSet(folder))


def test_texts_that_are_bytes(folder, small):
    table = index_of(small)
    changed = table.set_column(3, pa.field("text", pa.binary(), nullable=False), table["text"].cast(pa.binary()))
    refused(lambda: read_all(replace_index(folder, changed)), "shard-00001.parquet")


@pytest.mark.parametrize("how", ["a column more", "a column less", "other order", "nullable", "nested"])
def test_an_index_of_other_columns(folder, small, how):
    table = index_of(small)
    changed = {
        "a column more": lambda: table.append_column("more", table["row"]),
        "a column less": lambda: table.drop(["source"]),
        "other order": lambda: table.select(table.column_names[::-1]),
        "nullable": lambda: table.cast(pa.schema([field.with_nullable(True) for field in SCHEMA])),
        "nested": lambda: table.set_column(3, "text", pa.array([["a"]] * 4)),
    }[how]()
    refused(lambda: read_all(replace_index(folder, changed)), "shard-00001.parquet", "columns")


def test_an_index_of_many_rows_is_refused_by_its_footer(folder, small, monkeypatch):
    """Ten million rows in some kilobytes: they are counted where the file says so, and never unpacked."""
    rows = 10_000_000
    columns = {
        field.name: pa.repeat(pa.scalar("x" if field.type == pa.string() else 1, field.type), rows) for field in SCHEMA
    }
    replace_index(folder, pa.table(columns).cast(SCHEMA), compression="zstd")
    read = pq.ParquetFile.read

    def small_enough(self, **how):
        assert self.metadata.num_rows < 100, "it was unpacked"
        return read(self, **how)

    monkeypatch.setattr(pq.ParquetFile, "read", small_enough)
    assert shard_paths(folder, 1)[1].stat().st_size < 2**20
    with pytest.raises(DamagedFeatureSet, match="another number of rows"):
        _ = FeatureSet(folder).index


def test_one_long_text_in_every_row_is_counted_before_it_is_written_out(folder, small, monkeypatch):
    monkeypatch.setattr("pipeline.cache.index.MOST_TEXT_BYTES", 3_000_000)
    table = index_of(small)
    texts = pa.array(["x" * 1_000_000] * 4, pa.string())
    replace_index(folder, table.set_column(3, SCHEMA.field("text"), texts), compression="zstd")
    refused(lambda: read_all(folder), "longer than 3000000 bytes")
    monkeypatch.setattr("pipeline.cache.index.MOST_TEXT_BYTES", 5_000_000)
    assert len(FeatureSet(folder).texts[4]) == 1_000_000


def test_texts_that_are_no_utf8(folder, small):
    table = index_of(small)
    buffers = table["text"].combine_chunks().buffers()
    data = bytearray(buffers[2].to_pybytes())
    data[3] = 0xFF
    texts = pa.StringArray.from_buffers(4, buffers[1], pa.py_buffer(bytes(data)))
    changed = table.set_column(3, SCHEMA.field("text"), pa.chunked_array([texts]))
    refused(lambda: read_all(replace_index(folder, changed)), "shard-00001.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1", b"ARROW1\0\0"])
def test_an_index_that_is_no_parquet(folder, content):
    shard_paths(folder, 1)[1].write_bytes(content)
    refused(lambda: read_all(seal_anew(folder)), "shard-00001.parquet")


def test_labels_beyond_the_classes(folder, small):
    table = index_of(small)
    changed = table.set_column(2, SCHEMA.field("label"), pa.array([0, 1, 2, 0], pa.int64()))
    refused(lambda: read_all(replace_index(folder, changed)), "no class")


def test_reading_writes_nothing(folder, small, cache_dir):
    before = {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*")}
    feature_set = FeatureCache(cache_dir).open("cola", "train", verify=True)
    small.check(feature_set)
    list(feature_set.batches(3, shuffle=True))
    assert {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*")} == before


# --- contradictions under seals that agree: nothing here is malformed, and verify --deep is what finds it ---


def found_deep(folder):
    [damage] = verify_feature_set(seal_anew(folder), deep=True).damages
    return damage.file, damage.problem


@pytest.mark.parametrize("label", [2, -1])
def test_a_deep_verification_finds_labels_beyond_the_classes(folder, small, label):
    labels = pa.array([0, 1, label, 0], pa.int64())
    replace_index(folder, index_of(small).set_column(2, SCHEMA.field("label"), labels))
    assert found_deep(folder) == ("shard-00001.parquet", "a label is no class of the manifest")


@pytest.mark.parametrize("pooling", ["mean", "tokens"])
def test_a_deep_verification_finds_a_shard_of_another_pooling(corpus, cache_dir, pooling):
    """One position a row reads like one vector a row, but for the offsets."""
    odd = corpus(rows=4, changes={"pooling": pooling})
    folder = odd.write(cache_dir).folder
    data, index = corpus(rows=4).shard(range(4))
    if pooling == "mean":
        data = dataclasses.replace(data, offsets=np.arange(5))
    counts = index.set_column(7, SCHEMA.field("n_pooled"), pa.array([1] * 4, pa.int32())).cast(SCHEMA)
    states, index_path, _ = shard_paths(folder, 0)
    for path in (states, index_path):
        path.unlink()
    write_shard(states, data)
    pq.write_table(counts, index_path)
    values = {"minimum": float(data.hidden_states.min()), "maximum": float(data.hidden_states.max())}
    [damage] = verify_feature_set(seal_anew(folder, seal=values), deep=True).damages
    assert (damage.file, damage.problem) == ("shard-00000.h5", "the shard is of another pooling than the manifest says")


def test_a_deep_verification_finds_another_text_under_an_identity_of_other_texts(folder, small):
    texts = ["sentence number 4", "sentence number 6", "sentence number 5", "sentence number 7"]
    replace_index(folder, index_of(small).set_column(3, SCHEMA.field("text"), pa.array(texts)))
    assert found_deep(folder) == (MANIFEST, "its digest of the texts is not that of its shards' texts")
    (shard_paths(folder, 2)[1]).write_bytes(b"")  # where a shard is damaged, its texts are not known
    assert [d.shard for d in verify_feature_set(folder, deep=True).damages] == [2]
