"""Feature sets are listed with what uses them, and removed only where that is wanted."""

import datetime
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cache import FeatureCache
from pipeline.cache import remove as room
from pipeline.cache.inventory import find_entry, find_whole, list_entries
from pipeline.cache.lock import LOCK_FILE, SET
from pipeline.cache.manifest import MANIFEST
from pipeline.cache.remove import remove_set
from pipeline.errors import CacheError, FeatureSetNotFound, RunError
from pipeline.housekeeping.feature_sets import feature_sets, remove_feature_sets
from pipeline.housekeeping.leftovers import find_leftovers
from pipeline.housekeeping.tables import (
    feature_sets_table,
    manifest_tables,
    readable_age,
    readable_size,
    sets_in_columns,
)


def fingerprint_of(folder, cache_dir):
    return find_whole(cache_dir, folder.name)[1].fingerprint


def yes(question):
    return True


def never(question):
    pytest.fail(f"it asked: {question}")


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def text_of(table, width=200):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_each_set_is_one_record_whatever_its_state(whole, unfinished, damaged, cache_dir, runs_dir, enter_run):
    used = fingerprint_of(whole, cache_dir)
    enter_run("run-b", used)
    enter_run("run-a", used, used)
    enter_run("run-c", "ab" * 32)
    records = {record["name"]: record for record in feature_sets(cache_dir, runs_dir)}
    assert set(records) == {whole.name, unfinished.name, damaged.name}
    record = records[whole.name]
    assert (record["task"], record["split"], record["view"], record["rows"]) == ("cola", "train", "L2-mean", 11)
    assert (record["state"], record["source"], record["problem"]) == ("whole", "sample", None)
    assert (record["runs"], record["fingerprint"]) == (["run-a", "run-b"], used)
    assert record["size_bytes"] == sum(path.stat().st_size for path in whole.iterdir())
    created = datetime.datetime.fromisoformat(record["created"]).timestamp()
    assert created == int((whole / MANIFEST).stat().st_mtime)
    assert [records[f.name]["state"] for f in (unfinished, damaged)] == ["unfinished", "damaged"]
    assert (records[unfinished.name]["view"], records[unfinished.name]["rows"]) == ("L3-mean", 8)
    assert records[unfinished.name]["runs"] == []
    table = text_of(feature_sets_table(list(records.values())))
    assert "in all: 3 feature sets, 30 rows" in table
    assert f"{damaged.name}: a manifest cannot be read" in table
    assert [line.split("│")[10].strip() for line in table.split("\n") if whole.name in line] == ["2"]


def test_in_a_narrow_terminal_the_state_stays_and_names_are_what_finds_them(whole, damaged, cache_dir, runs_dir):
    text = text_of(feature_sets_table(feature_sets(cache_dir, runs_dir)), width=80)
    for folder, state in ((whole, "whole"), (damaged, "damaged")):
        [line] = [line for line in text.split("\n") if f"│ {folder.name[-12:]} │" in line]
        assert state in line and find_entry(cache_dir, folder.name[-12:]).folder == folder
    assert f"{damaged.name}: a manifest cannot be read" in " ".join(text.split())
    assert max(map(len, text.split("\n"))) <= 80


def test_digests_are_whole_in_any_terminal(whole, cache_dir):
    manifest = find_whole(cache_dir, whole.name)[1]
    text = text_of(manifest_tables(manifest.to_dict()), width=80)
    values = "".join(line.split("│")[2].strip() for line in text.split("\n") if line.startswith("│"))
    assert manifest.fingerprint in values and manifest.seals in values
    assert "…" not in text


def test_what_became_of_sets_is_said_on_whole_lines():
    def record(split, name):
        return {"task": "cola", "split": split, "name": name, "tokens": 123_456, "status": "written"}

    long = "smollm2-135m-nf4-L20-mean-"
    twins = [record("train", f"{long}{'a' * 12}"), record("test", f"{long}{'a' * 12}")]
    columns = ("task", "split", "name", "tokens", "status")
    text = text_of(sets_in_columns([record("train", f"{long}{'b' * 12}")], columns), width=66)
    assert f"│ L20-mean {'b' * 12} │ 123456 │" in text
    assert f"{long}{'a' * 12}" in text_of(sets_in_columns(twins, columns), width=80)  # the digits would find two


def test_a_ledger_that_cannot_be_read_hides_no_feature_set(whole, cache_dir, runs_dir, enter_run, capsys):
    (enter_run("run-a", "x") / "run.json").write_text("{")
    [record] = feature_sets(cache_dir, runs_dir)
    assert record["runs"] is None
    assert "run-a" in capsys.readouterr().err
    assert " ? " in text_of(feature_sets_table([record]))


def test_names_are_text_and_never_markup(cache_dir, runs_dir):
    (cache_dir / "[bold]x" / "y[/]" / "z[red]").mkdir(parents=True)
    assert "[bold]x" in text_of(feature_sets_table(feature_sets(cache_dir, runs_dir)))


def test_what_nobody_uses_is_removed_with_its_empty_folders(whole, damaged, unfinished, cache_dir, runs_dir):
    asked = []

    def ask(question):
        asked.append(question)
        return True

    gone = remove_feature_sets([whole.name, damaged.name], cache_dir, runs_dir, force=False, ask=ask)
    assert [record["name"] for record in gone] == [whole.name, damaged.name]
    [question] = asked
    assert f"cola/train/{whole.name}: 11 rows, " in question
    assert "0 runs refer to it" in question
    assert not whole.exists()
    assert not damaged.parent.exists()  # it was the only one of its split
    assert unfinished.is_dir()
    remove_feature_sets([unfinished.name], cache_dir, runs_dir, force=False, ask=yes)
    assert not list(cache_dir.iterdir())


def test_no_is_no(whole, cache_dir, runs_dir):
    before = files(cache_dir)
    assert remove_feature_sets([whole.name], cache_dir, runs_dir, force=False, ask=lambda question: False) == []
    assert files(cache_dir) == before


@pytest.mark.parametrize("state", ["whole", "without its manifest"])
def test_what_runs_refer_to_goes_by_force_alone(whole, cache_dir, runs_dir, enter_run, state):
    enter_run("run-a", fingerprint_of(whole, cache_dir))
    if state != "whole":
        (whole / MANIFEST).unlink()
    with pytest.raises(CacheError, match="runs refer to these features") as caught:
        remove_feature_sets([whole.name], cache_dir, runs_dir, force=False, ask=never)
    assert f"{whole.name}: run-a" in str(caught.value)
    assert whole.is_dir()
    [record] = remove_feature_sets([whole.name], cache_dir, runs_dir, force=True, ask=yes)
    assert record["runs"] == ["run-a"]
    assert not whole.exists()


def test_one_name_that_is_wrong_or_used_removes_none(whole, unfinished, cache_dir, runs_dir, enter_run):
    before = files(cache_dir)
    with pytest.raises(FeatureSetNotFound):
        remove_feature_sets([unfinished.name, "nothing"], cache_dir, runs_dir, force=False, ask=never)
    enter_run("run-a", fingerprint_of(whole, cache_dir))
    with pytest.raises(CacheError):
        remove_feature_sets([unfinished.name, whole.name], cache_dir, runs_dir, force=False, ask=never)
    assert files(cache_dir) == before


@pytest.mark.parametrize("features", ["x", {"cola": "x"}, {"cola": {"train": 3}}, None, "not JSON"])
def test_a_ledger_that_cannot_be_read_removes_nothing_but_by_force(whole, cache_dir, runs_dir, enter_run, features):
    path = enter_run("run-a", "x") / "run.json"
    if features == "not JSON":
        path.write_text("{")
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"features": features}))
    with pytest.raises(RunError):
        remove_feature_sets([whole.name], cache_dir, runs_dir, force=False, ask=never)
    assert whole.is_dir()
    remove_feature_sets([whole.name], cache_dir, runs_dir, force=True, ask=yes)
    assert not whole.exists()


def test_one_named_twice_is_removed_once(whole, cache_dir, runs_dir):
    names = [whole.name, str(whole), fingerprint_of(whole, cache_dir)]
    assert len(remove_feature_sets(names, cache_dir, runs_dir, force=False, ask=yes)) == 1


def sealed(folder):
    return {path: content for path, content in files(folder).items() if path.name != LOCK_FILE}


@pytest.mark.parametrize("shard", [SET, 0, 2])
def test_what_another_process_has_locked_stays(unfinished, cache_dir, runs_dir, shard, hold):
    with hold(unfinished, shard):
        before = sealed(unfinished)
        with pytest.raises(CacheError, match="a process is writing this feature set"):
            remove_set(find_entry(cache_dir, unfinished.name))
        [left] = find_leftovers(cache_dir, runs_dir, cache_dir.parent / "models")
        assert (left.path, left.kind) == (unfinished, "unfinished set")
        assert "a process is writing this feature set" in left.kept
        assert sealed(unfinished) == before
    remove_set(find_entry(cache_dir, unfinished.name))
    assert not unfinished.exists()


def test_one_that_is_being_written_keeps_all_that_are_named(whole, unfinished, cache_dir, runs_dir, hold):
    before = files(whole)
    with hold(unfinished, 1), pytest.raises(CacheError, match="a process is writing this feature set"):
        remove_feature_sets([whole.name, unfinished.name], cache_dir, runs_dir, force=False, ask=yes)
    assert files(whole) == before
    remove_feature_sets([whole.name, unfinished.name], cache_dir, runs_dir, force=False, ask=yes)
    assert not list(cache_dir.iterdir())


def test_one_that_the_disk_refuses_is_named_with_those_that_went_before(whole, unfinished, cache_dir, monkeypatch):
    real = room.remove

    def refuse(path):
        if path.parent == unfinished:
            raise PermissionError(13, "Permission denied", str(path))
        real(path)

    monkeypatch.setattr(room, "remove", refuse)
    with pytest.raises(CacheError, match="cannot be removed") as caught:
        room.remove_sets([find_entry(cache_dir, folder.name) for folder in (whole, unfinished)])
    assert caught.value.found == f"Permission denied; removed before: {whole.name}"
    assert (whole.exists(), unfinished.exists()) == (False, True)


def test_a_partial_file_that_nobody_holds_a_lock_for_keeps_no_set(whole, cache_dir, plant_partial):
    """A process id says nothing of who writes: the locks do."""
    plant_partial(whole, "shard-00001.h5", os.getpid())
    remove_set(find_entry(cache_dir, whole.name))
    assert not whole.exists()


@pytest.mark.parametrize("link", ["set", "split", "task"])
def test_links_are_neither_followed_nor_removed(whole, cache_dir, tmp_path, link):
    name = whole.name
    place = {"set": whole, "split": whole.parent, "task": whole.parent.parent}[link]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    before = files(tmp_path / "elsewhere")
    assert before
    with pytest.raises(CacheError):
        remove_feature_sets([name], cache_dir, tmp_path / "runs", force=True, ask=yes)
    for entry in list_entries(cache_dir):
        with pytest.raises(CacheError, match="is not removed"):
            remove_set(entry)
    assert files(tmp_path / "elsewhere") == before
    assert place.is_symlink()


def test_a_link_inside_a_set_is_removed_and_not_what_it_points_to(whole, cache_dir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    (whole / "inner").symlink_to(tmp_path / "mine")
    (whole / "shard-00009.h5").symlink_to(tmp_path / "mine" / "file")
    remove_set(find_entry(cache_dir, whole.name))
    assert not whole.exists()
    assert (tmp_path / "mine" / "file").read_text() == "keep"


def test_a_folder_that_is_not_called_as_a_set_is_not_removed(cache_dir):
    folder = cache_dir / "photos" / "2025" / "summer"
    folder.mkdir(parents=True)
    (folder / "me.jpg").write_text("x")
    with pytest.raises(CacheError, match="no feature set's folder"):
        remove_set(find_entry(cache_dir, "summer"))
    assert (folder / "me.jpg").is_file()


SCRIPT = """
import os, signal, sys
from pathlib import Path
from pipeline.cache.inventory import find_entry
from pipeline.cache.remove import remove_set

left, unlink = int(sys.argv[3]), os.unlink

def unlink_or_die(*args, **kwargs):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    unlink(*args, **kwargs)

os.unlink = unlink_or_die
remove_set(find_entry(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("unlinked", range(10))
def test_killed_at_any_step_it_leaves_nothing_that_looks_whole(whole, cache_dir, runs_dir, unlinked):
    """The set has ten files; `unlinked` of them are gone when the process dies."""
    assert len(list(whole.iterdir())) == 10
    words = [sys.executable, "-c", SCRIPT, str(cache_dir), whole.name, str(unlinked)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len([path for path in whole.iterdir() if path.name != LOCK_FILE]) == 10 - unlinked
    if unlinked:
        assert FeatureCache(cache_dir).manifests() == []
        assert find_entry(cache_dir, whole.name).state == "unfinished"
    remove_feature_sets([whole.name], cache_dir, runs_dir, force=False, ask=yes)
    assert not list(cache_dir.iterdir())


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (617_600_000, "618 MB"), (999_600, "1 MB"), (3.2e15, "3.2e+03 TB")],
)
def test_sizes_are_said_in_the_unit_that_fits(size_bytes, text):
    assert readable_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (0, "now"), (1, "1 second"), (119, "1 minute"), (7200, "2 hours"), (86400 * 40, "40 days")],
)
def test_ages_are_said_in_the_unit_that_fits(seconds, text):
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    created = now - datetime.timedelta(seconds=seconds)
    assert readable_age(created.strftime("%Y-%m-%dT%H:%M:%SZ"), now) == text
