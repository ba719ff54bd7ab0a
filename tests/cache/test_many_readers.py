"""Many processes read one feature set, from read-only places too, and while a writer puts its files anew."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.manifest import MANIFEST, shard_paths

HERE = Path(__file__).parent
READ, WRITE = HERE / "read_rows.py", HERE / "write_shards.py"


def start(script, *words):
    command = [sys.executable, str(script), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, word):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert word in out
    return out


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """A feature set of 24 shards that fill whole pages, as `write_shards.py` makes it."""
    path = tmp_path_factory.mktemp("cache")
    finish(start(WRITE, path), "done")
    return path


def folder_of(cache_dir):
    [manifest] = FeatureCache(cache_dir).manifests()
    return FeatureCache(cache_dir).folder(manifest)


def test_several_processes_read_the_same_rows_at_once(cache_dir):
    before = {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*")}
    readers = [start(READ, folder_of(cache_dir), 0.5) for _ in range(3)]
    assert all(int(finish(reader, "read").split()[-1]) >= 2 for reader in readers)
    assert {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*")} == before


def test_a_reader_goes_on_while_every_file_is_replaced(cache_dir, tmp_path):
    """A copy or another writer renames each file into its place; what is mapped stays, what is opened is whole."""
    folder = folder_of(shutil.copytree(cache_dir, tmp_path / "cache"))
    reader = start(READ, folder, 2)
    assert reader.stdout.readline() == "ready\n"
    replaced = 0
    while reader.poll() is None and replaced < 200:
        for path in [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]:
            other = path.with_name(f".{path.name}.new")
            shutil.copyfile(path, other)
            other.replace(path)
            replaced += 1
    assert replaced > 70
    finish(reader, "read")


def test_a_read_only_mount_serves_everything(cache_dir):
    """Root ignores the permissions of files, and a read-only mount nobody: there HDF5 must not want a lock."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root and unshare to mount the folder read-only")
    folder = folder_of(cache_dir)
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" && exec "$2" "$3" "$4" 0'
    words = ["unshare", "--mount", "sh", "-c", mount, "sh", *map(str, (cache_dir, sys.executable, READ, folder))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if "ermission denied" in done.stderr and "Traceback" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("read")


def test_a_user_without_any_right_to_write_reads_everything(cache_dir):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    for path in (cache_dir, *cache_dir.parents[:2]):
        path.chmod(0o755)
    nobody = 65534
    drop = f"import os, runpy, sys; os.setgid({nobody}); os.setuid({nobody}); sys.argv = sys.argv[1:]; "
    drop += "assert not os.access(sys.argv[1], os.W_OK); runpy.run_path(sys.argv[0], run_name='__main__')"
    if not os.access(sys.executable, os.X_OK) or not _may_run(nobody):
        pytest.skip("another user may not run this Python")
    words = [sys.executable, "-c", drop, str(READ), str(folder_of(cache_dir)), "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("read")


def _may_run(user):
    words = [sys.executable, "-c", f"import os; os.setgid({user}); os.setuid({user}); import h5py, pipeline.cache"]
    return subprocess.run(words, capture_output=True, timeout=120, check=False).returncode == 0


# --- what others read ---


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_plain_h5py_pyarrow_and_json_read_what_the_set_reads(tmp_path, corpus, dtype):
    small = corpus(changes={"storage_dtype": dtype, "pooling": "tokens"})
    feature_set = small.write(tmp_path)
    for number in range(3):
        states, index, seal = shard_paths(feature_set.folder, number)
        rows = range(4 * number, min(4 * number + 4, 11))
        with h5py.File(states) as file:
            offsets = file["offsets"][:]
            values = file["hidden_states"][:].astype(np.float32)
        for place, row in enumerate(rows):
            assert np.array_equal(values[offsets[place] : offsets[place + 1]], feature_set.tokens(row))
        assert pq.read_table(index).equals(feature_set.index.slice(rows.start, len(rows)))
        assert json.loads(seal.read_text())["rows"] == len(rows)
    assert json.loads((feature_set.folder / MANIFEST).read_text())["identity"]["storage_dtype"] == dtype


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed (Debian: hdf5-tools)")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_h5dump_shows_numbers(tmp_path, corpus, dtype):
    small = corpus(changes={"storage_dtype": dtype})
    folder = small.write(tmp_path).folder
    words = ["h5dump", "-m", "%.4f", "-y", "-w", "0", "-d", "/hidden_states", str(shard_paths(folder, 1)[0])]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    lines = shown[shown.index("DATA {") + 6 :].split("}")[0].strip().strip(",").splitlines()
    numbers = [[float(number) for number in line.strip(" ,").split(", ")] for line in lines]
    assert np.array_equal(numbers, np.stack([small.states(row) for row in range(4, 8)]))


def test_the_control_a_reader_fails_on_other_bytes(cache_dir, tmp_path):
    folder = folder_of(shutil.copytree(cache_dir, tmp_path / "cache"))
    path = shard_paths(folder, 3)[0]
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    assert len(FeatureSet(folder)) > 0
    reader = start(READ, folder, 0)
    assert "bytes that were sealed" in reader.communicate(timeout=120)[1]
    assert reader.returncode == 1
