"""A cache with feature sets in every state, and runs that use them."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cache.manifest import MANIFEST
from pipeline.partials import this_host

PATH = Path(__file__).parents[1] / "cache" / "conftest.py"
SPEC = importlib.util.spec_from_file_location("small_corpus", PATH)
small_corpus = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = small_corpus
SPEC.loader.exec_module(small_corpus)
Corpus, quick_disk = small_corpus.Corpus, small_corpus.quick_disk


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def whole(cache_dir):
    """The folder of a whole feature set of 11 rows."""
    return Corpus().write(cache_dir).folder


@pytest.fixture
def unfinished(cache_dir):
    """The folder of a feature set with 8 of its 11 rows."""
    small = Corpus(changes={"layer": 3})
    writer = small.writer(cache_dir)
    for number in (0, 1):
        small.write_shard(writer, number)
    return writer.folder


@pytest.fixture
def damaged(cache_dir):
    """The folder of a feature set whose manifest is not readable."""
    folder = Corpus(changes={"layer": 4}, facts={"split": "test"}).write(cache_dir).folder
    (folder / MANIFEST).write_text("{")
    return folder


@pytest.fixture
def enter_run(runs_dir):
    """Enter a run that trained on feature sets: `enter_run("name", fingerprint, …)`."""

    def enter(name, *fingerprints):
        record = {
            "run": name, "path": "cached", "tasks": ["cola"], "head": "logreg", "config": {}, "seed": 0,
            "features": {"cola": {"train": list(fingerprints), "validation": ["77" * 32]}}, "seconds": 1.0,
            "scores": {}, "baseline": {}, "selection": {}, "created": "2026-01-01T00:00:00.000000Z", "versions": {},
        }  # fmt: skip
        (runs_dir / name).mkdir(parents=True)
        (runs_dir / name / "run.json").write_text(json.dumps(record))
        return runs_dir / name

    return enter


@pytest.fixture
def dead():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def plant_partial():
    """Leave a partial file (or folder) as a writer does: `plant_partial(folder, "name", pid)`."""

    def plant(folder, name, pid, *, is_folder=False, host=None):
        path = folder / f".{name}.{host or this_host()}.{pid}.0123abcd.partial"
        folder.mkdir(parents=True, exist_ok=True)
        if is_folder:
            (path / "inner").mkdir(parents=True)
            (path / "inner" / "file").write_text("half")
        else:
            path.write_text("half")
        return path

    return plant


HOLDER = """
import sys
from pathlib import Path
from pipeline.cache.lock import FeatureSetLock
assert FeatureSetLock(Path(sys.argv[1])).try_hold(int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Within, another process holds a lock of a feature set: `with hold(folder, shard)`."""

    @contextlib.contextmanager
    def held(folder, shard):
        words = [sys.executable, "-c", HOLDER, str(folder), str(shard)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as other:
            assert other.stdout.readline() == "held\n"
            yield

    return held
