"""The cut of an unfinished feature set into shards, noted before the first one; afterwards the manifest has it."""

import json
from pathlib import Path
from typing import Any

from pipeline.cache.files import whole_file
from pipeline.cache.json_files import parse_json, read_bounded
from pipeline.cache.manifest import shard_paths
from pipeline.cache.seal import Seal
from pipeline.errors import DamagedFeatureSet

CUT = "cut.json"


def write_cut(folder: Path, shard_rows: int) -> None:
    """Note how many rows a shard has."""
    with whole_file(folder / CUT) as partial:
        partial.write_text(json.dumps({"shard_rows": shard_rows}) + "\n", "utf-8")


def read_cut(folder: Path) -> int | None:
    """How many rows a shard has: as was noted, or as the sealed shards agree; None where nothing says so."""
    try:
        record: Any = parse_json(read_bounded(folder / CUT))
        noted = record.get("shard_rows") if isinstance(record, dict) else None
        if isinstance(noted, int) and not isinstance(noted, bool) and noted > 0:
            return noted
    except (OSError, ValueError, DamagedFeatureSet):
        pass
    cuts = {_cut_of(folder, path) for path in folder.glob("shard-*.json")} - {None}
    return cuts.pop() if len(cuts) == 1 else None


def _cut_of(folder: Path, path: Path) -> int | None:
    """The cut that a sealed shard is of; the first shard says its own rows, any other how many came before it."""
    number = path.stem.removeprefix("shard-")
    if not number.isdigit():
        return None
    try:
        seal = Seal.read(shard_paths(folder, int(number))[2])
    except DamagedFeatureSet:
        return None
    if not int(number):
        return seal.rows or None
    return seal.first_row // int(number) or None


def forget_cut(folder: Path, shards: int) -> None:
    """Remove the note, and shards beyond the cut that is now in the manifest."""
    (folder / CUT).unlink(missing_ok=True)
    for path in folder.glob("shard-*"):
        number = path.name.removeprefix("shard-").split(".")[0]
        if number.isdigit() and int(number) >= shards:
            path.unlink(missing_ok=True)
