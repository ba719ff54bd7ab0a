"""A damaged feature set is an error, never wrong data."""

import contextlib
import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.seal import Seal
from pipeline.digests import with_digest
from pipeline.errors import DamagedFeatureSet

SHARD_FILES = [f"shard-0000{number}.{suffix}" for number in range(3) for suffix in ("h5", "parquet", "json")]


def read_all(folder):
    """Everything that a feature set can be asked for."""
    feature_set = FeatureSet(folder)
    if feature_set.manifest.identity.pooling == "tokens":
        values = [feature_set.tokens(row) for row in range(len(feature_set))]
    else:
        values = feature_set.X
    return values, feature_set.y, feature_set.texts, feature_set.sample_ids


@pytest.fixture(scope="module")
def written(tmp_path_factory, corpus):
    """A whole feature set of each pooling, which reads right before it is damaged."""
    sets = {}
    for pooling in ("mean", "tokens"):
        small = corpus(changes={"pooling": pooling})
        sets[pooling] = small, small.write(tmp_path_factory.mktemp(pooling)).folder
        small.check(FeatureSet(sets[pooling][1]))
        read_all(sets[pooling][1])
    return sets


def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / folder.relative_to(folder.parents[2]))


@pytest.fixture
def folder(written, tmp_path):
    """A whole feature set of a pooled view."""
    return copy(written["mean"][1], tmp_path)


@pytest.fixture(params=["mean", "tokens"])
def either(request, written, tmp_path):
    """A whole feature set of a pooled view, and one of the tokens view."""
    return copy(written[request.param][1], tmp_path)


def edit(path, *, mends_digest=True, **changes):
    """Change fields of a JSON file by hand; `...` removes one. Someone who knows the format mends the digest too."""
    record = {**json.loads(path.read_text("utf-8")), **changes}
    record = {name: value for name, value in record.items() if value is not ...}
    if mends_digest:
        with contextlib.suppress(ValueError):  # numbers that are not finite have none
            record = with_digest({name: value for name, value in record.items() if name != "digest"})
    layout = {"indent": 2} if path.name == MANIFEST else {"separators": (",", ":")}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, **layout) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", [*SHARD_FILES, MANIFEST])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


@pytest.mark.parametrize("name", [*SHARD_FILES, MANIFEST])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file(folder, name, kept):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DamagedFeatureSet) as caught:
        FeatureSet(folder)
    assert name in str(caught.value.where)


@pytest.mark.parametrize("name", [name for name in SHARD_FILES if not name.endswith("json")])
def test_a_file_that_grew(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DamagedFeatureSet, match="not as long as its seal says"):
        FeatureSet(folder)


@pytest.mark.parametrize("name", [*SHARD_FILES, MANIFEST])
def test_a_file_whose_bytes_are_all_zero(either, name):
    (either / name).write_bytes(bytes((either / name).stat().st_size))
    with pytest.raises(DamagedFeatureSet):
        read_all(either)


@pytest.mark.parametrize("name", [*SHARD_FILES, MANIFEST])
def test_a_folder_in_the_place_of_a_file(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


SEAL_FIELDS = (
    ("first_place", 5),
    ("rows", 3),
    ("tokens", 0),
    ("truncated", 7),
    ("minimum", -99.5),
    ("maximum", 99.5),
    ("states_bytes", 1),
    ("states_sha256", "0" * 64),
    ("index_bytes", 1),
    ("index_sha256", "0" * 64),
)


@pytest.mark.parametrize(("field", "value"), SEAL_FIELDS)
@pytest.mark.parametrize("how", ["another", "absent", "null", "of another type"])
def test_a_seal_edited_by_hand(folder, field, value, how):
    other = {"another": value, "absent": ..., "null": None, "of another type": [value]}[how]
    edit(folder / "shard-00001.json", **{field: other})
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", "{", '"x"', "\xff"])
@pytest.mark.parametrize("name", ["shard-00000.json", MANIFEST])
def test_a_seal_or_manifest_that_is_none(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_seal_with_a_number_that_is_not_finite(folder, number):
    path = folder / "shard-00001.json"
    minimum = json.loads(path.read_bytes())["minimum"]
    text = path.read_text("utf-8")
    assert f'"minimum":{minimum}' in text
    path.write_text(text.replace(f'"minimum":{minimum}', f'"minimum":{number}'), "utf-8")
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


@pytest.mark.parametrize("value", [float("nan"), "\ud800"], ids=["NaN", "lone surrogate"])
def test_a_manifest_whose_identity_has_no_canonical_json(folder, value):
    identity = json.loads((folder / MANIFEST).read_bytes())["identity"]
    edit(folder / MANIFEST, identity={**identity, "architecture": {**identity["architecture"], "more": value}})
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


MANIFEST_FIELDS = (
    ("format", 1),
    ("fingerprint", "0" * 64),
    ("task", "sst2"),
    ("split", "validation"),
    ("backbone", "other"),
    ("rows", 10),
    ("rows", 12),
    ("rows", 8),
    ("rows", 1000),
    ("shard_rows", 5),
    ("shard_rows", 3),
    ("shard_rows", 11),
    ("seals", "sha256:" + "0" * 64),
    ("labelled", False),
    ("passport", {"tokens": 1, "truncated": 0, "minimum": 0.0, "maximum": 0.0, "non_finite": 0}),
    ("labels", ["only"]),
)


@pytest.mark.parametrize(("field", "value"), MANIFEST_FIELDS)
def test_a_manifest_edited_by_hand(either, field, value):
    edit(either / MANIFEST, **{field: value})
    with pytest.raises(DamagedFeatureSet):
        read_all(either)


IN_NO_OTHER_FILE = (
    ("labels", ["acceptable", "unacceptable"]),
    ("source", "glue"),
    ("recorded", {"numpy": "3"}),
)


@pytest.mark.parametrize(("field", "value"), [*MANIFEST_FIELDS, *IN_NO_OTHER_FILE])
def test_a_manifest_edited_by_hand_by_someone_who_leaves_the_digest(folder, field, value):
    edit(folder / MANIFEST, mends_digest=False, **{field: value})
    with pytest.raises(DamagedFeatureSet, match=r"changed after it was written|another format"):
        FeatureSet(folder)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Seal)])
@pytest.mark.parametrize("mends_digest", [False, True])
def test_every_field_of_a_seal_is_held_against_its_digest_and_the_manifest(folder, field, mends_digest):
    """With its digest mended it is a seal again, but not the one that the manifest was written for."""
    path = folder / "shard-00001.json"
    value = json.loads(path.read_bytes())[field]
    edit(path, mends_digest=mends_digest, **{field: value + "0" if isinstance(value, str) else value + 1})
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


def test_a_manifest_that_calls_an_unlabelled_split_labelled(corpus, tmp_path):
    folder = corpus(facts={"labelled": False}).write(tmp_path).folder
    assert read_all(folder)[1] is None
    edit(folder / MANIFEST, labelled=True)
    with pytest.raises(DamagedFeatureSet, match="no class"):
        read_all(folder)


@pytest.mark.parametrize("field", ["format", "fingerprint", *(field for field, _ in MANIFEST_FIELDS)])
@pytest.mark.parametrize("value", [..., None, [None], -1])
def test_a_manifest_with_a_field_that_is_absent_or_of_another_type(folder, field, value):
    edit(folder / MANIFEST, **{field: value})
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


def test_a_manifest_with_one_field_more(folder):
    edit(folder / MANIFEST, colour="red")
    with pytest.raises(DamagedFeatureSet, match="wrong fields"):
        FeatureSet(folder)


IDENTITY_FIELDS = {
    "weights": "x",
    "architecture": {"num_hidden_layers": 4, "hidden_size": 6},
    "adapter": "x",
    "quantization": {"type": "nf4"},
    "tokenizer": "x",
    "prompt": "{}",
    "special_tokens": False,
    "max_length": 1,
    "truncation": True,
    "layer": 3,
    "layer_norm": "final",
    "pooling": "last",
    "storage_dtype": "float16",
    "texts": "x",
}


@pytest.mark.parametrize("field", IDENTITY_FIELDS)
def test_an_identity_edited_by_hand(folder, identity, field):
    changed = {**json.loads((folder / MANIFEST).read_bytes())["identity"], field: IDENTITY_FIELDS[field]}
    assert set(IDENTITY_FIELDS) == set(identity.to_dict())
    edit(folder / MANIFEST, identity=changed)
    with pytest.raises(DamagedFeatureSet, match="fingerprint is not that of its identity"):
        FeatureSet(folder)
    fingerprint = type(identity).from_dict(changed).fingerprint
    edit(folder / MANIFEST, fingerprint=fingerprint)
    with pytest.raises(DamagedFeatureSet, match="it belongs to"):
        FeatureSet(folder)


def swap(folder, *suffixes):
    for one, other in zip(shard_paths(folder, 0), shard_paths(folder, 1), strict=True):
        if one.suffix in suffixes:
            content = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(content)


def test_swapped_shards(either):
    swap(either, ".h5", ".parquet", ".json")
    with pytest.raises(DamagedFeatureSet, match="not about these shards"):
        FeatureSet(either)


def test_swapped_seals(folder):
    swap(folder, ".json")
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


def test_a_shard_twice(either):
    for one, other in zip(shard_paths(either, 0), shard_paths(either, 1), strict=True):
        shutil.copyfile(one, other)
    with pytest.raises(DamagedFeatureSet, match="not about these shards"):
        FeatureSet(either)


def test_swapped_indexes(folder):
    """Their sizes may agree; the rows that they say do not."""
    swap(folder, ".parquet")
    with pytest.raises(DamagedFeatureSet):
        _ = FeatureSet(folder).y


def test_a_shard_of_another_identity_in_the_place_of_the_own(corpus, tmp_path):
    small = corpus()
    folder = small.write(tmp_path).folder
    other = corpus(changes={"layer": 3}, rows=7).write(tmp_path).folder
    for one, mine in zip(shard_paths(other, 1), shard_paths(folder, 1), strict=True):
        shutil.copyfile(one, mine)
    with pytest.raises(DamagedFeatureSet, match="not about these shards"):
        FeatureSet(folder)


NOT_FINITE = {
    "float32": (0x7FC00000, 0x7F800000, 0xFF800000),
    "float16": (0x7E00, 0x7C00, 0xFC00),
    "bfloat16": (0x7FC0, 0x7F80, 0xFF80),
}


@pytest.mark.parametrize(
    ("dtype", "bits"), [(dtype, bits) for dtype, all_bits in NOT_FINITE.items() for bits in all_bits]
)
@pytest.mark.parametrize("pooling", ["mean", "tokens"])
@pytest.mark.parametrize("number", [0, 2])
def test_nan_or_infinity_in_the_bytes_of_a_file(corpus, tmp_path, dtype, bits, pooling, number):
    small = corpus(changes={"storage_dtype": dtype, "pooling": pooling})
    folder = small.write(tmp_path).folder
    path = shard_paths(folder, number)[0]
    with h5py.File(path) as file:
        place, shape = file["hidden_states"].id.get_offset(), file["hidden_states"].shape
    width = 4 if dtype == "float32" else 2
    with path.open("r+b") as file:
        file.seek(place + width * (int(np.prod(shape)) - 1))
        file.write(bits.to_bytes(width, "little"))
    with pytest.raises(DamagedFeatureSet, match="not finite") as caught:
        read_all(folder)
    assert caught.value.where == path
    if pooling == "mean":
        last = FeatureSet(folder).rows_of_shards[number][-1]
        assert caught.value.found.startswith(f"row {last}, feature {shape[1] - 1}, ")


def test_damage_in_one_shard_of_the_tokens_view_spares_the_others(corpus, tmp_path):
    small = corpus(changes={"pooling": "tokens"})
    folder = small.write(tmp_path).folder
    path = shard_paths(folder, 2)[0]
    with h5py.File(path, "r+") as file:
        file["hidden_states"][-1, 0] = np.nan
    feature_set = FeatureSet(folder)
    assert np.array_equal(feature_set.tokens(7), small.states(7))
    assert np.array_equal(feature_set.tokens(1), small.states(1))
    for row in (9, 10):
        with pytest.raises(DamagedFeatureSet):
            feature_set.tokens(row)


def test_a_damaged_shard_is_written_again_and_the_set_is_whole(corpus, tmp_path):
    """What the error's remedy promises: remove the seal and the manifest, and go on."""
    small = corpus()
    folder = small.write(tmp_path).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    states, _, seal = shard_paths(folder, 1)
    states.write_bytes(bytes(states.stat().st_size))
    with pytest.raises(DamagedFeatureSet, match="extract with --verify"):
        read_all(folder)
    seal.unlink()
    (folder / MANIFEST).unlink()
    writer = small.writer(tmp_path)
    assert [writer.sealed(number) is not None for number in range(3)] == [True, False, True]
    small.write_shard(writer, 1)
    writer.finish()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_manifest_is_not_passed_over_by_the_cache(folder, tmp_path):
    edit(folder / MANIFEST, rows="many")
    with pytest.raises(DamagedFeatureSet) as caught:
        FeatureCache(tmp_path).open("cola", "train")
    assert caught.value.where == folder / MANIFEST
