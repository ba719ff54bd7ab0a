"""How an unfinished feature set is cut, noted before the first shard; afterwards the manifest has it."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from pipeline.cache.files import whole_file
from pipeline.cache.json_files import parse_json, read_bounded
from pipeline.cache.manifest import ORDERS, Manifest, Order, shard_paths
from pipeline.cache.seal import Seal
from pipeline.errors import DamagedFeatureSet

CUT = "cut.json"


@dataclass(frozen=True)
class Cut:
    """How a split is cut into shards, and these into batches: with the tokens it decides every byte of the features.

    Args:
        shard_rows: rows a shard; the last one holds the rest.
        order: of the rows that are cut.
        token_budget: tokens a batch, padding included.
    """

    shard_rows: int
    order: Order
    token_budget: int

    def __str__(self) -> str:
        return f"{self.shard_rows} rows a shard, ordered by {self.order}, batches of {self.token_budget} tokens"


def write_cut(folder: Path, cut: Cut) -> None:
    """Note a cut."""
    with whole_file(folder / CUT) as partial:
        partial.write_text(json.dumps(asdict(cut)) + "\n", "utf-8")


def read_cut(folder: Path) -> Cut | None:
    """The cut that was noted, or that the sealed shards agree on; None where nothing says so."""
    try:
        record: Any = parse_json(read_bounded(folder / CUT))
        if isinstance(record, dict) and set(record) == {field.name for field in fields(Cut)}:
            cut = Cut(**record)
            if all(type(count) is int and count > 0 for count in (cut.shard_rows, cut.token_budget)):
                return cut if cut.order in ORDERS else None
    except (OSError, ValueError, DamagedFeatureSet):
        pass
    cuts = {_cut_of(folder, path) for path in folder.glob("shard-*.json")} - {None}
    return cuts.pop() if len(cuts) == 1 else None


def _cut_of(folder: Path, path: Path) -> Cut | None:
    """The cut that a sealed shard is of; the first shard says its own rows, any other how many came before it."""
    number = path.stem.removeprefix("shard-")
    if not number.isdigit():
        return None
    try:
        seal = Seal.read(shard_paths(folder, int(number))[2])
    except DamagedFeatureSet:
        return None
    rows = seal.first_place // int(number) if int(number) else seal.rows
    return Cut(rows, cast(Order, seal.order), seal.token_budget) if rows else None


def is_of_cut(manifest: Manifest, number: int, seal: Seal) -> bool:
    """Whether a seal is of shard `number` as a manifest, finished or not, has the split cut."""
    places = manifest.places_of(number)
    cut = (manifest.order, manifest.token_budget, places.start, len(places))
    return (seal.order, seal.token_budget, seal.first_place, seal.rows) == cut


def forget_cut(folder: Path, shards: int) -> None:
    """Remove the note, and shards beyond the cut that is now in the manifest."""
    (folder / CUT).unlink(missing_ok=True)
    for path in folder.glob("shard-*"):
        number = path.name.removeprefix("shard-").split(".")[0]
        if number.isdigit() and int(number) >= shards:
            path.unlink(missing_ok=True)
