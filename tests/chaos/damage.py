"""What can happen to the files of a feature set while nobody looks, and what people do to them by hand."""

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cache.manifest import MANIFEST
from pipeline.cache.passport import Drift
from pipeline.digests import canonical_json, with_digest

NOT_VOUCHED_FOR = ("labels", "source", "recorded")
"""What stands in a manifest alone: a forger who mends the digest too is not found out by anything in the folder."""
MEASURED_ONCE = ("truncated", *(field.name for field in dataclasses.fields(Drift)))
"""What stands in a seal alone: the manifest contradicts a forger, but does not say which of the seals is forged."""


def pick(folder: Path, rng: random.Random) -> Path:
    """A file of the set: every kind of file equally often."""
    suffix = rng.choice((".h5", ".parquet", ".json", MANIFEST))
    return rng.choice([path for path in sorted(folder.iterdir()) if path.name.endswith(suffix) and is_of(path, suffix)])


def is_of(path: Path, suffix: str) -> bool:
    """Whether a file is of a kind: the manifest ends like a seal."""
    return (path.name == MANIFEST) == (suffix == MANIFEST)


def truncate(folder: Path, rng: random.Random) -> list[Path]:
    """Cut a file at a random place."""
    path = pick(folder, rng)
    os.truncate(path, rng.randrange(path.stat().st_size))
    return [path]


def flip(folder: Path, rng: random.Random) -> list[Path]:
    """Turn one bit of a file."""
    path = pick(folder, rng)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return [path]


def lose(folder: Path, rng: random.Random) -> list[Path]:
    """Remove a file."""
    path = pick(folder, rng)
    path.unlink()
    return [path]


def swap_shards(folder: Path, rng: random.Random) -> list[Path]:
    """Exchange two shards' files of one kind."""
    suffix = rng.choice((".h5", ".parquet", ".json"))
    one, other = (folder / f"shard-{number:05d}{suffix}" for number in rng.sample(range(4), 2))
    return exchange(one, other)


def swap_sets(folder: Path, rng: random.Random) -> list[Path]:
    """Exchange a file with the same file of the feature set beside this one."""
    path = pick(folder, rng)
    (beside,) = (other for other in folder.parent.iterdir() if other != folder)
    return exchange(path, beside / path.name)


def exchange(one: Path, other: Path) -> list[Path]:
    """Exchange two files."""
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)
    return [one, other]


def link(folder: Path, rng: random.Random) -> list[Path]:
    """Put a link in a file's place, to a copy of the same bytes out of the cache."""
    path = pick(folder, rng)
    elsewhere = folder.parents[3] / f"elsewhere-{path.name}"
    shutil.copy(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)
    return [path]


def folder_instead(folder: Path, rng: random.Random) -> list[Path]:
    """Put a folder in a file's place, with a file in it."""
    path = pick(folder, rng)
    path.unlink()
    path.mkdir()
    (path / "file").write_text("somebody's")
    return [path]


def zeros(folder: Path, rng: random.Random) -> list[Path]:
    """Leave a file its size and nothing else, as some file systems do after a crash."""
    path = pick(folder, rng)
    path.write_bytes(bytes(path.stat().st_size))
    return [path]


def changed(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 1000))
    if isinstance(value, float):
        return value + 0.5
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    if isinstance(value, list):
        return value[::-1]
    if value is None:
        return "sha256:ff"
    name = rng.choice(sorted(value)) if value else None
    return {**value, name: changed(value[name], rng)} if name else {"added": 1}


def edit(folder: Path, rng: random.Random, *, place: int, mend: bool) -> tuple[list[Path], str]:
    """Change a field of the manifest or of a seal, as with an editor; with `mend`, its digest too.

    Args:
        place: which field, counted over both kinds of file.

    Returns:
        the file, and the field's name.
    """
    manifest, seal = folder / MANIFEST, folder / f"shard-{rng.randrange(4):05d}.json"
    fields = [(path, name) for path in (manifest, seal) for name in sorted(json.loads(path.read_bytes()))]
    fields = [(path, name) for path, name in fields if not (mend and name == "digest")]  # mended, it is what it was
    path, name = fields[place % len(fields)]
    record = json.loads(path.read_bytes())
    record[name] = changed(record[name], rng)
    if mend:
        del record["digest"]
        record = with_digest(record)
    if path == manifest:
        path.write_text(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    else:
        path.write_bytes(canonical_json(record) + b"\n")
    return [path], name


BY_CHANCE: dict[str, tuple[Callable[[Path, random.Random], list[Path]], ...]] = {
    "truncated": (truncate,),
    "with one flipped bit": (flip,),
    "missing": (lose,),
    "swapped": (swap_shards, swap_sets),
    "replaced by a link, a folder, zeros": (link, folder_instead, zeros),
}
