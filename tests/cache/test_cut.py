"""All writers of a feature set cut it alike: the first one's cut is noted, and kept by those who go on."""

import dataclasses
import random

import pytest

from pipeline.cache import FeatureSet
from pipeline.cache.cut import CUT, Cut, read_cut, write_cut
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.verify import verify_feature_set
from pipeline.errors import CacheError, DamagedFeatureSet


def test_the_cut_of_an_unfinished_set_is_kept(corpus, tmp_path):
    first, second = corpus(shard_rows=4), corpus(shard_rows=3)
    writer = first.writer(tmp_path)
    writer.keep_cut(timeout=0.0)
    assert second.writer(tmp_path).manifest.shard_rows == 4  # by the note
    first.write_shard(writer, 1)
    (writer.folder / CUT).unlink()
    again = second.writer(tmp_path)
    assert again.manifest.shard_rows == 4  # by the sealed shard
    again.keep_cut(timeout=0.0)
    assert read_cut(again.folder) == Cut(4, "split", 1024)
    for number in (0, 2):
        first.write_shard(again, number)
    again.finish()
    first.check(FeatureSet(again.folder))
    assert not (again.folder / CUT).exists()


def test_a_process_that_cuts_otherwise_stops_before_it_computes(corpus, tmp_path):
    early, late = corpus(shard_rows=3).writer(tmp_path), corpus(shard_rows=4).writer(tmp_path)
    early.keep_cut(timeout=0.0)
    with pytest.raises(CacheError, match="cuts this feature set into other shards") as caught:
        late.keep_cut(timeout=0.0)
    assert str(caught.value.found) == "3 rows a shard, ordered by split, batches of 1024 tokens"
    assert corpus(shard_rows=4).writer(tmp_path).manifest.shard_rows == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"shard_rows": 4}',
        '{"shard_rows": 4, "order": "split"}',
        '{"shard_rows": 4, "order": "rows", "token_budget": 64}',
        '{"shard_rows": 4, "order": ["split"], "token_budget": 64}',
        '{"shard_rows": 0, "order": "split", "token_budget": 64}',
        '{"shard_rows": true, "order": "split", "token_budget": 64}',
        '{"shard_rows": "4", "order": "split", "token_budget": 64}',
        '{"shard_rows": 4, "order": "split", "token_budget": -1}',
        '{"shard_rows": 4, "order": "split", "token_budget": 64, "more": 1}',
    ],
)
def test_a_note_that_says_nothing_is_none(tmp_path, content):
    (tmp_path / CUT).write_text(content)
    assert read_cut(tmp_path) is None
    write_cut(tmp_path, Cut(7, "tokens", 512))
    assert read_cut(tmp_path) == Cut(7, "tokens", 512)


def test_shards_beyond_the_cut_go_when_the_set_is_finished(corpus, tmp_path):
    small = corpus(shard_rows=4)
    folder = small.write(tmp_path).folder
    for place, suffix in enumerate((".h5", ".parquet", ".json")):
        (folder / f"shard-00007{suffix}").write_bytes(shard_paths(folder, 1)[place].read_bytes())
    small.writer(tmp_path).finish()
    assert not list(folder.glob("shard-00007*"))
    small.check(FeatureSet(folder))


def test_a_manifest_that_claims_a_world_of_shards_is_refused_at_once(corpus, tmp_path):
    folder = corpus().write(tmp_path).folder
    huge = dataclasses.replace(Manifest.read(folder), rows=2**45, shard_rows=1)
    huge.write(folder)
    (damage,) = verify_feature_set(folder, deep=True).damages
    assert (damage.shard, damage.file) == (None, MANIFEST)
    assert "claims 35,184,372,088,832 shards" in damage.problem
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(folder)


@pytest.mark.parametrize("place", ["set", "split", "task"])
def test_nothing_is_written_or_cleared_through_a_link(corpus, tmp_path, place):
    small, cache_dir, outside = corpus(), tmp_path / "cache", tmp_path / "outside"
    writer = small.writer(cache_dir)
    link = {"set": writer.folder, "split": writer.folder.parent, "task": writer.folder.parent.parent}[place]
    link.parent.mkdir(parents=True)
    outside.mkdir()
    (outside / ".foo.host.1.01234567.partial").write_text("precious")
    link.symlink_to(outside)
    with pytest.raises(DamagedFeatureSet, match="link"):
        small.writer(cache_dir)
    with pytest.raises(DamagedFeatureSet, match="link"):
        small.write_shard(writer, 0)
    assert [path.name for path in outside.rglob("*")] == [".foo.host.1.01234567.partial"]


def test_a_shard_that_is_a_link_is_not_whole(corpus, tmp_path):
    small = corpus()
    writer = small.writer(tmp_path / "cache")
    for number in range(3):
        small.write_shard(writer, number)
    states = shard_paths(writer.folder, 1)[0]
    states.rename(tmp_path / "outside.h5")
    states.symlink_to(tmp_path / "outside.h5")
    assert [writer.sealed(number) is None for number in range(3)] == [False, True, False]
    before = (tmp_path / "outside.h5").read_bytes()
    small.write_shard(writer, 1)
    assert not states.is_symlink()
    assert (tmp_path / "outside.h5").read_bytes() == before


def test_damage_that_somebody_mended_meanwhile_is_not_set_aside(corpus, tmp_path):
    folder = corpus().write(tmp_path).folder
    path = shard_paths(folder, 1)[0]
    whole = path.read_bytes()
    place = random.Random(0).randrange(len(whole))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    report = verify_feature_set(folder, deep=True)
    assert report.damages
    path.write_bytes(whole)
    report.set_aside(timeout=0.0)
    assert not list(folder.glob("*.damaged"))
    assert (folder / MANIFEST).exists()
