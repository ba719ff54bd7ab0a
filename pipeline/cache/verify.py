"""Is a feature set what it says? Sizes, digests, shapes, rows and values are looked at; what is wrong is named."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.cache.files import set_aside, set_aside_from
from pipeline.cache.index import read_index
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.passport import FLOAT16_MAX, passport_of_seals
from pipeline.cache.reading import FileKey, open_to_read
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.shard import map_shard, to_float32
from pipeline.cache.sound import note_sound
from pipeline.digests import sha256_of_file, sha256_of_texts, xxh3_of_file
from pipeline.errors import DamagedFeatureSet

BLOCK_ROWS = 4096
SHARD_FILE = re.compile(r"shard-(?P<number>\d{5,})\..+")
MOST_MISSING = 1000
"""Shards that are missing are named one by one up to so many; beyond that it is the manifest that is wrong."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Args:
        shard: its number, or None for the manifest.
        file: the file's name.
        problem: what is wrong with it.
        is_aside: whether it was taken out of use before, and nothing stands in its place yet.
    """

    shard: int | None
    file: str
    problem: str
    is_aside: bool = False

    def __str__(self) -> str:
        return f"{'manifest' if self.shard is None else f'shard {self.shard}'} ({self.file}): {self.problem}"


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Args:
        folder: the feature set's.
        is_finished: whether there is a manifest.
        shards: how many shards were looked at.
        damages: what is wrong, also what was set aside and is not written again; empty for a sound set.
        is_link: whether it is, or lies behind, a link: nothing there is looked at or touched.
        again: looks once more, when nobody can write any longer.
    """

    folder: Path
    is_finished: bool
    shards: int
    damages: tuple[Damage, ...]
    is_link: bool = False
    again: Callable[[], "Report"] | None = None

    def __str__(self) -> str:
        return "\n".join([f"{self.folder}: {len(self.damages)} damaged", *(f"    {each}" for each in self.damages)])

    @property
    def status(self) -> str:
        """`sound`, `damaged` or `unfinished`."""
        return "damaged" if self.damages else "sound" if self.is_finished else "unfinished"

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "task": self.folder.parent.parent.name,
            "split": self.folder.parent.name,
            "name": self.folder.name,
            "status": self.status,
            "shards": self.shards,
            "damages": [{"shard": d.shard, "file": d.file, "problem": d.problem} for d in self.damages],
        }

    def set_aside(self, *, timeout: float) -> None:
        """Take what is damaged out of use, so that nothing of it is served and stage one writes just that again.

        The seal of a damaged shard, and the manifest, keep their bytes under another name. The manifest goes last: as
        long as it is there without a seal, the set claims to be whole and is not, and stage one looks at every shard.

        Raises:
            CacheError: another process is writing the set, or the folder cannot be written to.
        """
        if self.is_link or all(damage.is_aside for damage in self.damages):
            return
        with FeatureSetLock(self.folder).alone(timeout=timeout):
            damages = self.again().damages if self.again else self.damages
            if not damages:
                return  # somebody else saw to it meanwhile
            numbers = {damage.shard for damage in damages if damage.shard is not None}
            paths = [*(shard_paths(self.folder, number)[2] for number in sorted(numbers)), self.folder / MANIFEST]
            for path in paths:
                if path.exists() or path.is_symlink():
                    set_aside(path)


def damaged(reports: Sequence[Report]) -> DamagedFeatureSet:
    """The error that names everything that is wrong."""
    wrong = [report for report in reports if report.damages]
    return DamagedFeatureSet(
        f"damaged files: {sum(len(report.damages) for report in wrong)}, of feature sets: {len(wrong)}\n"
        + "\n".join(str(report) for report in wrong),
        remedy="run the same pipeline extract again: it writes what is damaged and nothing else",
    )


def verify_feature_set(folder: Path, *, deep: bool) -> Report:
    """Look for damage in a feature set, whole or unfinished.

    Args:
        folder: its folder.
        deep: besides sizes, seals and manifest, read every byte: SHA-256, HDF5 and Parquet structure, the index against
            the shard, finite values and their range.
    """
    if link := next((path for path in (folder, *list(folder.parents)[:2]) if path.is_symlink()), None):
        return Report(folder, False, 0, (Damage(None, link.name, "a link, which is not followed"),), is_link=True)
    damages: list[Damage] = []
    manifest: Manifest | None = None
    is_finished = (folder / MANIFEST).exists() or (folder / MANIFEST).is_symlink()
    if is_finished:
        try:
            manifest = Manifest.read(folder)
        except DamagedFeatureSet as error:
            damages.append(Damage(None, MANIFEST, _in_short(error)))
    numbers = sorted(
        {int(path.name[6:11]) for path in folder.glob("shard-[0-9][0-9][0-9][0-9][0-9].*") if path.suffix != ".damaged"}
    )
    if manifest is not None and manifest.shards > len(numbers) + MOST_MISSING:
        claim = f"it claims {manifest.shards:,} shards, of which {len(numbers):,} are here"
        damages.append(Damage(None, MANIFEST, claim))
        manifest = None
    elif manifest is not None:
        numbers = list(range(manifest.shards))
    seals: list[Seal] = []
    for number in numbers:
        seal_path = shard_paths(folder, number)[2]
        if manifest is None and not seal_path.exists():
            continue  # not sealed yet: nothing is claimed of it
        try:
            seal = Seal.read(seal_path)
        except DamagedFeatureSet as error:
            damages.append(Damage(number, seal_path.name, _in_short(error)))
            continue
        seals.append(seal)
        damages += damages_of_shard(folder, number, seal, manifest, deep=deep)
    if manifest is not None and len(seals) == len(numbers):
        if digest_of_seals(seals) != manifest.seals:
            damages.append(Damage(None, MANIFEST, "it is not about these shards"))
        elif dict(manifest.passport) != passport_of_seals(seals):
            damages.append(Damage(None, MANIFEST, "its passport is not that of its shards"))
    if not is_finished:
        aside = set_aside_from(folder)
        of_shards = [path for path in aside if path.name != MANIFEST]  # for which the manifest had to go
        before = "set aside as damaged, and not written again yet"
        damages += [Damage(_shard_of(path), path.name, before, is_aside=True) for path in of_shards or aside]
    if deep and manifest is not None and not damages and (problem := _problem_of_texts(folder, manifest)):
        damages.append(Damage(None, MANIFEST, problem))
    again = partial(verify_feature_set, folder, deep=deep)
    return Report(folder, is_finished, len(numbers), tuple(damages), again=again)


def _shard_of(path: Path) -> int | None:
    match = SHARD_FILE.fullmatch(path.name)
    return int(match["number"]) if match else None


def _in_short(error: DamagedFeatureSet) -> str:
    found = str(error.found).splitlines()[0] if error.found is not None and str(error.found) else ""
    return f"{error.what}: {found}" if found else error.what


def damages_of_shard(
    folder: Path, number: int, seal: Seal, manifest: Manifest | None, *, deep: bool, key: FileKey | None = None
) -> Iterator[Damage]:
    """What is wrong with one shard: at most one damage a file, as what follows from it would only repeat it.

    Args:
        deep: as in `verify_feature_set`; what is sound is noted, so that reading need not look again.
        key: of the hidden states, if the caller has seen to it that a later write must show.
    """
    states, index, seal_path = shard_paths(folder, number)
    if manifest is not None:
        places = manifest.places_of(number)
        cut = f"ordered by {manifest.order}, batches of {manifest.token_budget} tokens"
        expected = f"{len(places)} rows from {places.start}, {cut}"
        cut = f"ordered by {seal.order}, batches of {seal.token_budget} tokens"
        found = f"{seal.rows} rows from {seal.first_place}, {cut}"
        if found != expected:
            yield Damage(number, seal_path.name, f"expected {expected}, found {found}")
            return
    sound = True
    if deep and key is None:
        key = _key_of(states)
    for path, size_bytes, sha256 in (
        (states, seal.states_bytes, seal.states_sha256),
        (index, seal.index_bytes, seal.index_sha256),
    ):
        if problem := _file_problem(path, size_bytes, sha256 if deep else None):
            sound = False
            yield Damage(number, path.name, problem)
    if deep and sound and xxh3_of_file(states) != seal.states_xxh3:
        sound = False
        yield Damage(number, seal_path.name, "its fast digest is not that of the bytes that its SHA-256 is of")
    if deep and sound and manifest is not None:
        try:
            _check_content(states, index, seal, manifest)
        except DamagedFeatureSet as error:
            yield Damage(number, Path(str(error.where)).name if error.where else states.name, _in_short(error))
        else:
            if key is not None:
                note_sound(states, key, seal.states_xxh3)


def _key_of(path: Path) -> FileKey | None:
    """A file's key if any later write must show: nothing of it waits to be written, and its last change is past."""
    with contextlib.suppress(OSError), open_to_read(path) as file:
        os.fsync(file.fileno())
        key = FileKey.of(file.fileno())
        return key if key.is_settled else None
    return None


def _file_problem(path: Path, size_bytes: int, sha256: str | None) -> str:
    if path.is_symlink() or not path.is_file():
        return "a link" if path.is_symlink() else "not a file" if path.exists() else "missing"
    try:
        if (found := path.stat().st_size) != size_bytes:
            return f"{size_bytes} bytes expected, {found} found"
        if sha256 is not None and sha256_of_file(path) != sha256:
            return "its SHA-256 is not that of its seal"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return ""


OF_TEXTS = "sha256:"
"""With which a digest of the sentences themselves begins."""


def _problem_of_texts(folder: Path, manifest: Manifest) -> str:
    """What is wrong with the rows and texts of all shards, each of which is sound, taken together."""
    if not manifest.identity.texts.startswith(OF_TEXTS) and manifest.order == "split":
        return ""  # known by the files they were read from; each shard holds the rows of its place
    index = pa.concat_tables([read_index(shard_paths(folder, n)[1]) for n in range(manifest.shards)])
    rows = index["row"].to_numpy()
    order = np.argsort(rows, kind="stable")
    if not np.array_equal(rows[order], np.arange(manifest.rows)):
        return "its shards do not hold every row of the split once"
    texts = manifest.identity.texts
    if texts.startswith(OF_TEXTS) and texts != f"{OF_TEXTS}{sha256_of_texts(index['text'].take(order).to_pylist())}":
        return "its digest of the texts is not that of its shards' texts"
    return ""


def _check_content(states_path: Path, index_path: Path, seal: Seal, manifest: Manifest) -> None:
    """Read a shard's numbers and its index, and hold them against each other.

    Raises:
        DamagedFeatureSet: they contradict each other, the seal or the manifest.
    """
    identity = manifest.identity
    data = map_shard(states_path, identity.storage_dtype, int(identity.architecture["hidden_size"]))
    if (data.offsets is not None) != (identity.pooling == "tokens"):
        raise DamagedFeatureSet("the shard is of another pooling than the manifest says", where=states_path)
    index = read_index(index_path)
    if not data.rows == index.num_rows == seal.rows:
        raise DamagedFeatureSet(
            "index and shard hold other numbers of rows",
            where=index_path,
            found=f"{data.rows} and {index.num_rows}, sealed {seal.rows}",
        )
    minimum, maximum, beyond_float16 = np.inf, -np.inf, 0
    for first in range(0, len(data.hidden_states), BLOCK_ROWS):
        block = to_float32(data.hidden_states[first : first + BLOCK_ROWS], data.dtype)
        if not np.isfinite(block).all():
            raise DamagedFeatureSet("a value is not finite", where=states_path, found="NaN or infinity")
        if block.size:
            minimum, maximum = min(minimum, float(block.min())), max(maximum, float(block.max()))
            beyond_float16 += int(np.count_nonzero(np.abs(block) > FLOAT16_MAX))
    if data.hidden_states.size and (minimum, maximum) != (seal.minimum, seal.maximum):
        raise DamagedFeatureSet("the values have another range than the seal says", where=states_path)
    counts = (data.hidden_states.size, int(np.sum(index["n_tokens"].to_numpy())), beyond_float16)
    if counts != (seal.values, seal.tokens, seal.beyond_float16):
        raise DamagedFeatureSet(
            "values, tokens or values beyond float16 are not as many as the seal says", where=states_path, found=counts
        )
    columns = {name: index[name].to_numpy(zero_copy_only=False) for name in ("row", "n_tokens", "position", "n_pooled")}
    places = np.arange(seal.first_place, seal.first_place + seal.rows)
    ascends = bool((np.diff(columns["row"]) > 0).all()) and 0 <= columns["row"][0] <= columns["row"][-1] < manifest.rows
    if not (np.array_equal(columns["row"], places) if manifest.order == "split" else ascends):
        raise DamagedFeatureSet("the index is not of these rows, in order", where=index_path)
    if index["label"].null_count != (0 if manifest.labelled else seal.rows):
        raise DamagedFeatureSet("manifest and index disagree on labels", where=index_path)
    if not set(index["label"].unique().to_pylist()) <= {None, *range(len(manifest.labels))}:
        raise DamagedFeatureSet("a label is no class of the manifest", where=index_path)
    ends = columns["position"] + columns["n_pooled"]
    if (columns["position"] < 0).any() or (columns["n_pooled"] < 0).any() or (ends > columns["n_tokens"]).any():
        raise DamagedFeatureSet("a row was pooled beyond its tokens", where=index_path)
    if data.offsets is not None and not np.array_equal(np.diff(data.offsets), columns["n_pooled"]):
        raise DamagedFeatureSet("a row has another number of positions than its index says", where=index_path)
