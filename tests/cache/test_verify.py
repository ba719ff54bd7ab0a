"""Verification names each damaged file, takes it out of use, and leaves the rest as it is."""

import dataclasses
import errno
import random
import shutil

import numpy as np
import pytest

from pipeline.cache import FeatureCache, FeatureSet, verify
from pipeline.cache.files import DAMAGED, set_aside
from pipeline.cache.inventory import find_entry
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.verify import damaged, verify_feature_set
from pipeline.errors import CacheError, DamagedFeatureSet, FeatureSetNotFound

FILES = [f"shard-0000{number}.{suffix}" for number in range(3) for suffix in ("h5", "parquet", "json")]


@pytest.fixture(scope="module", params=["mean", "tokens", "bfloat16"])
def written(request, tmp_path_factory, corpus):
    changes = {"storage_dtype": "bfloat16"} if request.param == "bfloat16" else {"pooling": request.param}
    small = corpus(changes=changes)
    return small, small.write(tmp_path_factory.mktemp("written")).folder


@pytest.fixture
def folder(written, tmp_path):
    copy = tmp_path / written[1].relative_to(written[1].parents[2])
    shutil.copytree(written[1], copy)
    return copy


def flip(path, rng):
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_set_is_sound(folder, deep):
    report = verify_feature_set(folder, deep=deep)
    assert (report.status, report.damages, report.shards) == ("sound", (), 3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report.set_aside(timeout=0.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_flipped_bit_is_found_where_it_is(folder, name):
    rng = random.Random(name)
    whole = (folder / name).read_bytes()
    for _ in range(25):
        flip(folder / name, rng)
        report = verify_feature_set(folder, deep=True)
        assert {damage.file for damage in report.damages} == {name}
        shard = None if name == MANIFEST else int(name[6:11])
        assert {damage.shard for damage in report.damages} == {shard}
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_found_without_reading_it(folder, name):
    content = (folder / name).read_bytes()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        (folder / name).write_bytes(content[:size])
        assert [d.file for d in verify_feature_set(folder, deep=False).damages] == [name]
    (folder / name).unlink()
    assert [d.file for d in verify_feature_set(folder, deep=False).damages] == [name]


def test_a_link_in_a_files_place_is_damage(folder, tmp_path):
    states = shard_paths(folder, 1)[0]
    states.rename(tmp_path / "elsewhere.h5")
    states.symlink_to(tmp_path / "elsewhere.h5")
    (damage,) = verify_feature_set(folder, deep=True).damages
    assert (damage.shard, damage.problem) == (1, "a link")


def test_what_is_set_aside_is_served_no_more_and_written_again_alone(written, folder):
    small, cache_dir = written[0], folder.parents[2]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    flip(shard_paths(folder, 1)[0], random.Random(1))
    damaged_bytes = shard_paths(folder, 1)[0].read_bytes()
    report = verify_feature_set(folder, deep=True)
    report.set_aside(timeout=0.0)
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)
    with pytest.raises(FeatureSetNotFound):
        FeatureCache(cache_dir).open("cola", "train")
    assert shard_paths(folder, 1)[0].read_bytes() == damaged_bytes  # to be looked at by a person
    assert (folder / (shard_paths(folder, 1)[2].name + DAMAGED)).exists()
    for deep in (False, True):  # and said as long as it is not written again
        again = verify_feature_set(folder, deep=deep)
        assert [(again.status, d.shard, d.file) for d in again.damages] == [("damaged", 1, "shard-00001.json")]
        again.set_aside(timeout=0.0)
    entry = find_entry(cache_dir, folder.name)
    assert (entry.state, entry.set_aside) == ("damaged", (MANIFEST, "shard-00001.json"))
    assert entry.problem.endswith("yet: shard-00001.json")
    writer = small.writer(cache_dir)
    assert [number for number in range(3) if writer.sealed(number) is None] == [1]
    small.write_shard(writer, 1)
    assert [damage.file for damage in verify_feature_set(folder, deep=False).damages] == [MANIFEST]
    writer.finish()
    assert find_entry(cache_dir, folder.name).state == "whole"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    small.check(FeatureSet(folder))


@pytest.mark.parametrize("renames", range(3))
def test_killed_while_it_sets_damage_aside_a_set_never_becomes_whole_with_the_rest_of_it(
    written, folder, renames, monkeypatch
):
    """Stage one trusts the sizes of what is sealed, unless the set claims to be whole and is not."""
    for number in (1, 2):
        flip(shard_paths(folder, number)[0], random.Random(number))
    report = verify_feature_set(folder, deep=True)
    assert {damage.shard for damage in report.damages} == {1, 2}
    left = [*range(renames)]

    def killed(path):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        set_aside(path)

    monkeypatch.setattr("pipeline.cache.verify.set_aside", killed)
    with pytest.raises(KeyboardInterrupt):
        report.set_aside(timeout=0.0)
    assert (folder / MANIFEST).exists()
    if renames:
        with pytest.raises(DamagedFeatureSet):  # so stage one hashes every shard
            FeatureSet(folder)
    monkeypatch.undo()
    verify_feature_set(folder, deep=True).set_aside(timeout=0.0)
    writer = written[0].writer(folder.parents[2])
    assert [number for number in range(3) if writer.sealed(number) is None] == [1, 2]


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_folder_in_a_files_place_is_set_aside_and_the_file_written_again(written, folder, name):
    small, before = written[0], {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):  # also where what was set aside before is a folder
        (folder / name).unlink()
        (folder / name).mkdir()
        (folder / name / "file").write_text("somebody's")
        assert [damage.file for damage in verify_feature_set(folder, deep=True).damages] == [name]
        verify_feature_set(folder, deep=True).set_aside(timeout=0.0)
        writer = small.writer(folder.parents[2])
        for number in range(3):
            if writer.sealed(number) is None:
                small.write_shard(writer, number)
        writer.finish()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unfinished_set_with_a_folder_in_a_files_place_is_finished(written, folder):
    small, before = written[0], {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / MANIFEST).unlink()
    for path in shard_paths(folder, 1):
        path.unlink()
        path.mkdir()
        path.with_name(path.name + DAMAGED).mkdir()  # and one from before
    writer = small.writer(folder.parents[2])
    small.write_shard(writer, 1)
    writer.finish()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_manifest_edited_by_hand_is_written_again_from_the_seals(written, folder):
    before = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(before.replace(b'"sample"', b'"people"'))
    report = verify_feature_set(folder, deep=False)
    assert [d.file for d in report.damages] == [MANIFEST]
    report.set_aside(timeout=0.0)
    writer = written[0].writer(folder.parents[2])
    writer.finish()
    assert (folder / MANIFEST).read_bytes() == before


def test_nothing_is_set_aside_under_a_writer(folder):
    flip(shard_paths(folder, 0)[0], random.Random(2))
    report = verify_feature_set(folder, deep=True)
    lock = FeatureSetLock(folder)
    assert lock.try_hold()
    try:
        with pytest.raises(CacheError, match="another process is writing the feature set"):
            _set_aside_elsewhere(report)
    finally:
        lock.release()
    assert (folder / MANIFEST).exists()


def _set_aside_elsewhere(report):
    """As another process would: this one's own locks do not stop it."""
    import pipeline.cache.lock as room

    held = FeatureSetLock.is_held
    room.FeatureSetLock.is_held = lambda self, shard=-1: False
    try:
        report.set_aside(timeout=0.0)
    finally:
        room.FeatureSetLock.is_held = held


def test_an_unfinished_set_is_no_damage_and_its_sealed_shards_are_looked_at(corpus, tmp_path):
    small = corpus()
    writer = small.writer(tmp_path)
    for number in (0, 2):
        small.write_shard(writer, number)
    assert verify_feature_set(writer.folder, deep=True).status == "unfinished"
    flip(shard_paths(writer.folder, 2)[0], random.Random(3))
    report = verify_feature_set(writer.folder, deep=True)
    assert [(d.shard, d.file) for d in report.damages] == [(2, "shard-00002.h5")]


@pytest.mark.parametrize(
    ("field", "problem"),
    [("minimum", "another range"), ("values", "not as many"), ("tokens", "not as many"), ("beyond_float16", "not as")],
)
def test_values_that_contradict_a_forged_seal_are_found(folder, field, problem):
    """Someone who mends every digest is still held to the seal's own facts."""
    seals = [Seal.read(shard_paths(folder, number)[2]) for number in range(3)]
    seals[1] = dataclasses.replace(seals[1], **{field: getattr(seals[1], field) - 1})
    seals[1].write(shard_paths(folder, 1)[2])
    manifest = Manifest.read(folder)
    dataclasses.replace(manifest, seals=digest_of_seals(seals), passport=passport_of_seals(seals)).write(folder)
    (damage,) = verify_feature_set(folder, deep=True).damages
    assert (damage.shard, damage.file) == (1, "shard-00001.h5")
    assert problem in damage.problem


def test_a_seal_that_readers_would_refuse_is_found(folder):
    """Readers hold values against the fast digest, verification against SHA-256: they must not disagree."""
    path = shard_paths(folder, 1)[2]
    dataclasses.replace(Seal.read(path), states_xxh3="0" * 32).write(path)
    (folder / MANIFEST).unlink()
    (damage,) = verify_feature_set(folder, deep=True).damages
    assert (damage.shard, damage.file) == (1, path.name)


def test_the_error_names_every_damaged_file(folder):
    for number in (0, 2):
        flip(shard_paths(folder, number)[1], random.Random(number))
    error = damaged([verify_feature_set(folder, deep=True)])
    assert "damaged files: 2, of feature sets: 1" in str(error)
    assert "shard 0 (shard-00000.parquet)" in str(error)
    assert "shard 2 (shard-00002.parquet)" in str(error)
    assert "pipeline extract" in error.remedy


def test_a_link_to_a_feature_set_is_damage_and_what_it_leads_to_is_not_touched(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    (elsewhere / MANIFEST).write_text("edited")
    folder.symlink_to(elsewhere)
    report = verify_feature_set(folder, deep=True)
    assert (report.status, report.damages[0].problem) == ("damaged", "a link, which is not followed")
    report.set_aside(timeout=0.0)
    assert (elsewhere / MANIFEST).read_text() == "edited"


def test_numbers_are_the_corpus_own(written):
    """The premise of all tests above."""
    feature_set = FeatureSet(written[1])
    rows = feature_set.tokens(1) if written[0].identity.pooling == "tokens" else feature_set.X[1]
    assert np.array_equal(rows, written[0].states(1))


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_looked_at(tmp_path, corpus, monkeypatch):
    folder = corpus().write(tmp_path).folder
    flip = folder / "shard-00002.parquet"
    flip.write_bytes(flip.read_bytes()[:-1] + b"?")
    honest = verify.sha256_of_file

    def failing(path):
        if path.name == "shard-00001.h5":
            raise OSError(errno.EIO, "Input/output error")
        return honest(path)

    monkeypatch.setattr(verify, "sha256_of_file", failing)
    report = verify_feature_set(folder, deep=True)
    assert [(damage.shard, damage.file) for damage in report.damages] == [
        (1, "shard-00001.h5"),
        (2, "shard-00002.parquet"),
    ]
    assert "Input/output error" in report.damages[0].problem
