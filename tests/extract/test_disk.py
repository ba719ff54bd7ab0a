"""A disk that is full, or would be: said before the model loads, or when it happens; what was whole stays."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stored_files import files_of

from pipeline.cache.index import SCHEMA, write_index
from pipeline.cache.writer import SHARD_OVERHEAD_BYTES
from pipeline.errors import DiskFull
from pipeline.extract.part import Size
from pipeline.extract.preflight import most_index_bytes
from tests import forked

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    def say(size_bytes):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - size_bytes, size_bytes))

    return say


def test_what_cannot_fit_is_refused_before_the_model_loads(stage_one, tmp_path, free, monkeypatch):
    free(50_000)
    monkeypatch.setattr("pipeline.backbone.known.load_backbone", lambda *a, **k: pytest.fail("the model was loaded"))
    with pytest.raises(DiskFull, match="no room") as caught:
        stage_one()
    assert caught.value.found == "50,000 bytes free"
    assert not list((tmp_path / "cache").rglob("shard-*"))


def test_rows_tokens_bytes_and_room_are_said_first(stage_one, capsys):
    stage_one(tasks=("cola",))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("to do: "))
    assert line.startswith("to do: 100 rows, ")
    assert " tokens after the prompt, " in line
    assert " free in " in line


@pytest.mark.parametrize("poolings", [("mean",), ("tokens", "last")])
@pytest.mark.parametrize("storage_dtype", ["float32", "float16"])
def test_the_estimate_is_enough_and_not_far_too_much(stage_one, tmp_path, capsys, poolings, storage_dtype):
    import re

    stage_one(poolings=poolings, storage_dtype=storage_dtype, shard_rows=1000)
    (said,) = re.findall(r"tokens after the prompt, ([\d.]+) MB", capsys.readouterr().err)
    written = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("shard-*"))
    assert written <= float(said) * 1e6 + 50_000  # it is said to a tenth of a MB
    assert float(said) * 1e6 <= 2 * written + 2_000_000


@pytest.mark.parametrize("characters", [1, 40, 2000])
def test_texts_that_cannot_be_compressed_fit_into_the_estimate(tmp_path, characters):
    random = np.random.default_rng(0)
    rows = 3000
    texts = ["".join(map(chr, random.integers(0x4E00, 0x9FFF, characters))) for _ in range(rows)]
    numbers = {
        field.name: random.integers(0, 2**31 - 1, rows) for field in SCHEMA if field.name not in ("text", "source")
    }
    table = pa.table({**numbers, "text": texts, "source": texts if characters == 1 else ["gj04"] * rows})
    write_index(tmp_path / "index.parquet", table.select(SCHEMA.names))
    assert (tmp_path / "index.parquet").stat().st_size <= most_index_bytes(
        rows, Size(0, sum(len(text.encode()) for text in texts))
    ) + SHARD_OVERHEAD_BYTES


def test_a_cut_that_makes_x_a_copy_is_said(stage_one, capsys):
    stage_one(tasks=("cola",), shard_rows=41)
    said = [line for line in capsys.readouterr().err.splitlines() if "end within a page" in line]
    assert said
    assert all("shards of 41 rows" in line for line in said)
    assert len(said) == len(set(said))
    stage_one(tasks=("sst2",))
    assert "end within a page" not in capsys.readouterr().err


def test_a_resumed_run_needs_room_for_what_is_left_alone(stage_one, tmp_path, free):
    stage_one(tasks=("cola",))
    for path in sorted((tmp_path / "cache").rglob("shard-00000.json"))[:1]:
        path.unlink()
        (path.parent / "manifest.json").unlink()
    free(60_000)
    stage_one(tasks=("cola",))


FILL = """
import sys
from pathlib import Path
from pipeline.config import *
from pipeline.errors import DiskFull
from pipeline.extract import run
run.check_room = lambda *a: None  # another process takes the room only afterwards
backbone, glue, models, cache = map(Path, sys.argv[1:5])
try:
    run.extract(
        ExtractConfig(tasks=("cola",), layers=("1", "-1"), poolings=("tokens",)), DataConfig(glue_dir=glue),
        BackboneConfig(backbone=str(backbone), models_dir=models), TokensConfig(),
        PassConfig(shard_rows=4, threads=1), CacheConfig(cache),
    )
except DiskFull as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.slow
def test_a_small_disk_that_fills_up_stops_the_run_and_keeps_what_was_whole(tiny_backbone, small_glue, tmp_path):
    """A real one: a tmpfs of some hundred KiB in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = [tiny_backbone, small_glue, tmp_path / "models"]
    command = [sys.executable, "-c", FILL, *map(str, arguments)]
    script = (
        f"mount -t tmpfs -o size=300k tmpfs {disk} || exit 77; "
        f'"$@" {disk}/cache; code=$?; cp -r {disk}/cache {tmp_path}/left; exit $code'
    )
    enter = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to mount a small disk")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*enter, "sh", "-c", script, "sh", *command], capture_output=True, text=True, env=environment)
    if done.returncode in (1, 77) and "DiskFull" not in done.stderr and "mount" in done.stderr + "unshare":
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()[:200]}")
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stdout
    assert "bytes for what is left of this feature set" in done.stdout
    left = tmp_path / "left"
    assert not list(left.rglob("*.partial"))
    sealed = list(left.rglob("shard-*.json"))
    assert sealed
    places = (left, tmp_path / "whole")
    again, whole = (forked.python(FILL, [*arguments, place], tmp_path) for place in places)
    assert again.returncode == 0, again.stderr
    assert "are whole already" in again.stderr
    assert whole.returncode == 0, whole.stderr
    assert files_of(left) == files_of(tmp_path / "whole")
