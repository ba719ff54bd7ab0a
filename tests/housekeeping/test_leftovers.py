"""What is not whole goes, and what a living process may be writing stays."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from pipeline.cache import FeatureCache
from pipeline.cache.inventory import find_whole
from pipeline.cache.local_copy import STORES
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.manifest import MANIFEST
from pipeline.cache.verify import verify_feature_set
from pipeline.housekeeping import leftovers
from pipeline.housekeeping.leftovers import collect_leftovers, find_leftovers
from pipeline.housekeeping.tables import leftovers_table
from pipeline.results.ledger import TRAININGS
from tests.cache.small_corpus import Corpus


def yes(question):
    return True


def never(question):
    pytest.fail(f"it asked: {question}")


@pytest.fixture
def places(cache_dir, runs_dir, tmp_path):
    return cache_dir, runs_dir, tmp_path / "models"


@pytest.fixture
def full(whole, unfinished, damaged, places, plant_partial, dead, enter_run):
    """Leftovers of every kind: those that may go at once, those that are asked about, those that stay."""
    cache_dir, runs_dir, models_dir = places
    enter_run("run-a", "ab" * 32)
    set_aside = whole / "shard-00001.h5.damaged"
    set_aside.write_text("odd")
    gone = [
        plant_partial(whole, "shard-00001.h5", dead),
        plant_partial(unfinished, "manifest.json", dead),
        plant_partial(unfinished, "shard-00002.h5", os.getpid()),
        plant_partial(cache_dir, "x", dead),
        plant_partial(runs_dir, "run-b", dead, is_folder=True),
        plant_partial(models_dir, "smollm2-135m", dead, is_folder=True),
        plant_partial(models_dir, "digests.json", dead),
        set_aside,
    ]
    kept = [
        plant_partial(runs_dir, "run-c", os.getpid(), is_folder=True),
        plant_partial(models_dir, "smollm2-135m", dead, is_folder=True, host="another-machine"),
        models_dir / ".of-unknown-origin.partial",
    ]
    kept[-1].write_text("x")
    (models_dir / "smollm2-135m").mkdir()
    (models_dir / "digests.json").write_text("{}")
    return {"gone": set(gone), "kept": set(kept), "asked": {unfinished}}


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def collected(places, **settings):
    records = collect_leftovers(find_leftovers(*places), **settings)
    by_status = {}
    for record in records:
        by_status.setdefault(record["status"], set()).add(record["path"])
    return records, by_status


def text(paths):
    return {str(path) for path in paths}


def test_all_that_is_not_whole_goes_and_nothing_else(full, places, tmp_path, whole, damaged):
    before = tree(tmp_path)
    records, by_status = collected(places, dry_run=False, ask=yes)
    assert by_status == {"removed": text(full["gone"] | full["asked"]), "kept": text(full["kept"])}
    gone = full["gone"] | full["asked"]
    expected = {path: c for path, c in before.items() if not any(path == g or g in path.parents for g in gone)}
    assert tree(tmp_path) == expected
    assert {"removed", "kept"} <= set(leftovers_table(records).columns[4]._cells)
    _, again = collected(places, dry_run=False, ask=never)
    assert again == {"kept": text(full["kept"])}


def test_what_was_set_aside_stays_with_its_set_until_that_is_written_again(whole, places):
    (whole / "shard-00001.h5").write_text("short")
    verify_feature_set(whole, deep=False).set_aside(timeout=0.0)
    aside = sorted(whole.glob("*.damaged"))
    _, by_status = collected(places, dry_run=False, ask=lambda question: False)
    assert by_status == {"kept": {str(whole)}}
    assert sorted(whole.glob("*.damaged")) == aside != []
    _, by_status = collected(places, dry_run=False, ask=yes)
    assert by_status == {"removed": {str(whole)}}


def test_a_dry_run_says_the_same_and_touches_nothing(full, places, tmp_path):
    before = tree(tmp_path)
    _, by_status = collected(places, dry_run=True, ask=never)
    assert by_status == {"would be removed": text(full["gone"] | full["asked"]), "kept": text(full["kept"])}
    assert tree(tmp_path) == before


def test_work_that_is_not_agreed_to_go_stays(full, places, unfinished):
    asked = []

    def ask(question):
        asked.append(question)
        return False

    records, by_status = collected(places, dry_run=False, ask=ask)
    assert len(asked) == 1
    assert f"{unfinished}: 8 rows done" in asked[0]
    assert by_status == {"removed": text(full["gone"]), "kept": text(full["kept"] | full["asked"])}
    [record] = [record for record in records if record["path"] == str(unfinished)]
    assert (record["kind"], record["rows"]) == ("unfinished set", 8)
    assert "--yes" in record["why"]
    assert unfinished.is_dir()


def test_what_a_process_that_holds_a_lock_is_writing_stays(unfinished, whole, places, plant_partial, dead, hold):
    """Whoever wrote the partial files: this host's processes need not be seen from here."""
    partials = {plant_partial(folder, "shard-00002.h5", dead) for folder in (unfinished, whole)}
    with hold(unfinished, 2), hold(whole, 2):
        records, by_status = collected(places, dry_run=False, ask=never)
    assert by_status == {"kept": text(partials | {unfinished})}
    assert all("a process is writing this feature set" in record["why"] for record in records)
    assert collected(places, dry_run=False, ask=yes)[1] == {"removed": text(partials | {unfinished})}


def test_a_lock_that_is_taken_after_looking_keeps_the_partial_file(whole, places, plant_partial, dead, hold):
    plant_partial(whole, "shard-00002.h5", dead)
    found = find_leftovers(*places)
    with hold(whole, 2):
        [record] = collect_leftovers(found, dry_run=False, ask=never)
    assert (record["status"], "is writing" in record["why"]) == ("kept", True)


def test_an_unfinished_set_that_runs_refer_to_stays(whole, places, enter_run):
    enter_run("run-a", find_whole(places[0], whole.name)[1].fingerprint)
    (whole / MANIFEST).unlink()
    [record], _ = collected(places, dry_run=False, ask=yes)
    assert record["status"] == "kept"
    assert "runs refer to it" in record["why"]


def test_where_the_ledger_cannot_be_read_work_stays(unfinished, places, enter_run):
    (enter_run("run-a", "x") / "run.json").write_text("{")
    [record], _ = collected(places, dry_run=False, ask=yes)
    assert (record["status"], record["path"]) == ("kept", str(unfinished))


def test_folders_of_other_people_are_no_leftovers(places):
    folder = places[0] / "photos" / "2025" / "summer"
    folder.mkdir(parents=True)
    (folder / "me.damaged").write_text("x")
    assert find_leftovers(*places) == []


def test_links_are_no_leftovers(whole, places, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    whole.rename(elsewhere)
    (elsewhere / MANIFEST).unlink()
    (elsewhere / "x.damaged").write_text("x")
    whole.symlink_to(elsewhere)
    assert find_leftovers(*places) == []


def test_a_partial_that_is_a_link_goes_and_what_it_points_to_stays(places, tmp_path, plant_partial, dead):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    link = plant_partial(places[2], "smollm2-135m", dead)
    link.unlink()
    link.symlink_to(tmp_path / "mine")
    assert collected(places, dry_run=False, ask=never)[1] == {"removed": {str(link)}}
    assert not link.is_symlink()
    assert (tmp_path / "mine" / "file").read_text() == "keep"


def test_nothing_is_there_to_collect(places):
    assert find_leftovers(*places) == []
    assert collect_leftovers([], dry_run=False, ask=never) == []


def test_what_cannot_be_removed_is_said_and_the_rest_goes(full, places, monkeypatch):
    stuck = sorted(full["gone"])[0]
    real = leftovers.remove

    def refuse(path):
        if path == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        real(path)

    monkeypatch.setattr(leftovers, "remove", refuse)
    records, by_status = collected(places, dry_run=False, ask=yes)
    assert by_status["removed"] == text((full["gone"] | full["asked"]) - {stuck})
    [record] = [record for record in records if record["path"] == str(stuck)]
    assert "Permission denied" in record["why"]


@pytest.fixture
def stopped(places):
    """The state of a training whose command was stopped."""
    _, runs_dir, _ = places
    folder = runs_dir / TRAININGS / "0123456789abcdef"
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "state.safetensors").write_bytes(b"x" * 100)
    (folder / "lock").touch()
    return folder


def test_a_stopped_training_goes_where_that_is_agreed_to(places, stopped):
    [left] = find_leftovers(*places)
    assert (left.path, left.kind, left.size_bytes) == (stopped, "stopped training", 100)
    asked = []
    _, by_status = collected(places, dry_run=False, ask=lambda question: asked.append(question))
    assert by_status == {"kept": {str(stopped)}}
    assert "a stopped training, 100 B" in asked[0]
    _, by_status = collected(places, dry_run=False, ask=yes)
    assert by_status == {"removed": {str(stopped)}}
    assert not stopped.parent.exists()


def test_a_training_under_way_stays(places, stopped):
    with (stopped / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [left] = find_leftovers(*places)
        assert "a process is at this training" in left.kept
    [left] = find_leftovers(*places)
    with (stopped / "lock").open() as lock:  # taken after looking
        fcntl.flock(lock, fcntl.LOCK_EX)
        [record] = collect_leftovers([left], dry_run=False, ask=yes)
    assert record["status"] == "kept"
    assert "a process is at this training" in record["why"]
    assert (stopped / "0" / "state.safetensors").exists()


@pytest.fixture
def copy(tmp_path, cache_dir):
    """A local copy of a store, with one set of it read and another's fetch stopped half-way."""
    read, stopped = Corpus(), Corpus(changes={"layer": 3})
    for each in (read, stopped):
        each.write(tmp_path / "there")
    cache = FeatureCache(cache_dir, store=str(tmp_path / "there"))
    read.check(cache.open("cola", "train", layer=2))
    cache.open("cola", "train", layer=3)
    [half] = (cache_dir / STORES).glob("*/cola/train/*L3-*")
    (half / MANIFEST).unlink()
    [whole] = (cache_dir / STORES).glob("*/cola/train/*L2-*")
    return cache, read, whole, half


def test_of_a_local_copy_what_a_stopped_fetch_left_goes_and_the_rest_where_it_is_asked_for(
    copy, places, plant_partial, dead
):
    cache, corpus, whole, half = copy
    plant_partial(whole, "shard-00001.h5", dead)
    records = collect_leftovers(find_leftovers(*places), dry_run=False, ask=yes)
    assert {(record["kind"], record["status"]) for record in records} == {
        ("partial", "removed"),
        ("unfinished set", "removed"),
    }
    assert whole.is_dir() and not half.exists()
    found = find_leftovers(*places, local_copies=True)
    [kept] = collect_leftovers(found, dry_run=False, ask=lambda question: "was whole at its store" not in question)
    assert kept["status"] == "kept" and "--yes" in kept["why"] and whole.is_dir()
    [record] = collect_leftovers(found, dry_run=False, ask=yes)
    assert (record["kind"], record["path"], record["status"]) == ("local copy", str(whole), "removed")
    assert record["size_bytes"] > 1000 and not whole.exists()
    corpus.check(FeatureCache(places[0], store=cache.store).open("cola", "train", layer=2))  # it comes again


def test_a_local_copy_that_is_being_fetched_stays(copy, places):
    _, _, whole, half = copy
    with FeatureSetLock(half).held(timeout=0.0), FeatureSetLock(whole).held(timeout=0.0):
        child = [sys.executable, "-m", "pipeline", "cache", "gc", "--json", "--yes", "--local-copies"]
        child += ["--cache-dir", str(places[0]), "--runs-dir", str(places[1]), "--models-dir", str(places[2])]
        for words in ([], ["--dry-run"]):
            found = json.loads(subprocess.run([*child, *words], stdout=subprocess.PIPE, check=True).stdout)
            assert [(record["status"], record["why"].split(":")[0]) for record in found] == [
                ("kept", "a process is writing this feature set")
            ] * 2
    assert whole.is_dir() and half.is_dir()
