"""Writing a feature set: shard by shard, each sealed, and the manifest when all are there."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from pipeline.cache.cut import CUT, Cut, forget_cut, is_of_cut, read_cut, write_cut
from pipeline.cache.files import append_line, clear_partials_of, make_way, refused, set_aside, whole_file
from pipeline.cache.identity import Identity
from pipeline.cache.index import write_index
from pipeline.cache.inventory import size_or_none
from pipeline.cache.lock import SET, FeatureSetLock
from pipeline.cache.manifest import MANIFEST, Manifest, feature_set_name, shard_paths
from pipeline.cache.passes import PASSES
from pipeline.cache.passport import FLOAT16_MAX, Drift, passport_of_seals
from pipeline.cache.reading import refuse_links
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.shard import RAW, ShardData, to_float32, write_shard
from pipeline.cache.sound import note_sound, settled_key
from pipeline.digests import sha256_of_file, xxh3_of_file
from pipeline.errors import CacheError, DamagedFeatureSet, DiskFull

if TYPE_CHECKING:
    from pipeline.cache.upload import Upload

NO_CANARIES = Drift()
INDEX_ROW_BYTES = 256
"""What a row takes in an index, text included, at most on average."""
SHARD_OVERHEAD_BYTES = 16384
"""What a shard takes beside its rows: HDF5's and Parquet's own, page borders, the seal."""


@dataclasses.dataclass(frozen=True)
class FeatureSetWriter:
    """Writes one feature set; what an earlier, interrupted writer sealed is kept.

    Args:
        cache_dir: the cache's folder.
        manifest: what the set will be; its `seals` and `passport` are filled in at the end.
        ordered: `[n]` int64, the split's rows as they are cut, needed to write where that is not as they stand in it.
        is_cut: whether the cut is settled: somebody had begun with it when this writer was opened.
        upload: takes what is written to a store, of which the cache's folder is then the local copy.
    """

    cache_dir: Path
    manifest: Manifest
    ordered: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)
    is_cut: bool = False
    upload: "Upload | None" = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def open(cls, cache_dir: Path, *, identity: Identity, upload: "Upload | None" = None, **facts: Any) -> Self:
        """Find what is there, at the store too where there is one. Nothing is made before the first shard.

        A cut into shards that was begun is kept, and of a set that is whole its sources and what was recorded with it.

        Args:
            facts: the other fields of `Manifest` that are known before the first shard; `order` is `split` by
                default, and `token_budget` 1024.

        Raises:
            DamagedFeatureSet: a link stands in the set's place.
        """
        writer = cls(
            cache_dir,
            Manifest(identity=identity, seals="", passport={}, **{"order": "split", "token_budget": 1024, **facts}),
            upload=upload,
        )
        refuse_links(writer.folder)
        if upload is not None:
            upload.begin(writer.folder)
        if writer.is_whole:
            with contextlib.suppress(DamagedFeatureSet):
                there = Manifest.read(writer.folder)
                sources = "+".join(sorted(there.sources | writer.manifest.sources))
                cut = Cut(there.shard_rows, there.order, there.token_budget)
                kept = dataclasses.replace(writer.manifest, recorded=there.recorded, source=sources)
                return dataclasses.replace(writer, manifest=kept, is_cut=True).cut_as(cut)
        cut_there = read_cut(writer.folder)
        return dataclasses.replace(writer, is_cut=True).cut_as(cut_there) if cut_there else writer

    @property
    def cut(self) -> Cut:
        """How the split is cut into shards and batches."""
        return Cut(self.manifest.shard_rows, self.manifest.order, self.manifest.token_budget)

    def cut_as(self, cut: Cut, ordered: np.ndarray | None = None) -> Self:
        """This writer with another cut.

        Args:
            ordered: as in the class.
        """
        manifest = dataclasses.replace(self.manifest, **dataclasses.asdict(cut))
        return dataclasses.replace(self, manifest=manifest, ordered=ordered)

    def as_begun(self) -> "FeatureSetWriter":
        """This writer with the cut that was noted since it was opened, if any was."""
        there = read_cut(self.folder)
        return self.cut_as(there, self.ordered) if there else self

    def keep_cut(self, *, timeout: float, any_budget: bool = False) -> "FeatureSetWriter":
        """Note the cut into shards before the first one is written: all writers of a set must cut it alike.

        Args:
            any_budget: where another process has begun with other batches, take its token budget.

        Returns:
            this writer, with the cut that is noted.

        Raises:
            CacheError: another process has begun with another cut.
        """
        with self.lock.held(SET, timeout=timeout):
            there = FeatureSetWriter(self.cache_dir, Manifest.read(self.folder)).cut if self.is_whole else None
            there = there or read_cut(self.folder)
            if there is None:
                clear_partials_of(self.folder / CUT)
                with self._saying_what_is_needed():
                    write_cut(self.folder, self.cut)
            elif any_budget and there == dataclasses.replace(self.cut, token_budget=there.token_budget):
                return self.cut_as(there, self.ordered)
            elif there != self.cut:
                raise CacheError(
                    "another process cuts this feature set into other shards",
                    where=self.folder,
                    expected=self.cut,
                    found=there,
                    remedy="run the same command again: it goes on with the cut that is there",
                )
        return self

    @property
    def folder(self) -> Path:
        """The feature set's folder."""
        name = feature_set_name(self.manifest.backbone, self.manifest.identity)
        return self.cache_dir / self.manifest.task / self.manifest.split / name

    @property
    def lock(self) -> FeatureSetLock:
        """The set's locks."""
        return FeatureSetLock(self.folder)

    @property
    def is_whole(self) -> bool:
        """Whether the manifest is there."""
        return (self.folder / MANIFEST).exists()

    def rows_of(self, number: int) -> np.ndarray:
        """`[k]` int64, ascending: the rows of the split that shard `number` holds."""
        places = self.manifest.places_of(number)
        if self.manifest.order == "split":
            return np.arange(places.start, places.stop)
        assert self.ordered is not None, "the order of the rows is needed"
        return np.sort(self.ordered[places.start : places.stop])

    def sealed(self, number: int) -> Seal | None:
        """A shard's seal if the shard is whole: sealed, of the right number of rows, its files of the sealed sizes.

        Its hidden states may be at the store alone.
        """
        states, index, seal_path = shard_paths(self.folder, number)
        try:
            seal = Seal.read(seal_path)
        except DamagedFeatureSet:
            return None
        whole = size_or_none(index) == seal.index_bytes and (
            size_or_none(states) == seal.states_bytes
            or (self.upload is not None and self.upload.holds(self.folder, number, seal))
        )
        return seal if whole and is_of_cut(self.manifest, number, seal) else None

    def claim(self, number: int) -> bool:
        """Take the lock of a shard, if nobody has it, and clear what its last writer left half-written."""
        if not self.lock.try_hold(number):
            return False
        self._clear(number)
        return True

    def _clear(self, number: int) -> None:
        for path in shard_paths(self.folder, number):
            clear_partials_of(path)

    def write(
        self, number: int, data: ShardData, index: pa.Table, *, truncated: int, drift: Drift = NO_CANARIES
    ) -> Seal:
        """Write one shard: hidden states, then index, then seal. Nobody else may be writing it.

        Args:
            data: the hidden states of `rows_of(number)`, in that order.
            index: one row for each of them.
            truncated: how many of their sentences were cut.
            drift: how far canaries are off.

        Raises:
            CacheError: the data or the index is not of these rows, a value is not finite, the canaries drift too far,
                or another process holds the shard.
            DiskFull: there is no room; what was whole stays.
        """
        self._check_rows(number, data, index)
        values = to_float32(data.hidden_states, data.dtype)
        self._check_values(number, values, drift)
        states_path, index_path, seal_path = shard_paths(self.folder, number)
        with self.lock.held(number, timeout=0.0):
            self._clear(number)
            with self._saying_what_is_needed(data.hidden_states.nbytes / max(data.rows, 1)):
                for path in (states_path, index_path, seal_path):
                    make_way(path)
                seal_path.unlink(missing_ok=True)  # while its files are replaced, the shard is not whole
                with whole_file(states_path) as partial:
                    write_shard(partial, data)
                with whole_file(index_path) as partial:
                    write_index(partial, index)
                key = settled_key(states_path, touch=index_path)
                seal = Seal(
                    order=self.manifest.order,
                    token_budget=self.manifest.token_budget,
                    first_place=self.manifest.places_of(number).start,
                    rows=index.num_rows,
                    tokens=int(np.sum(index["n_tokens"].to_numpy())),
                    truncated=truncated,
                    values=values.size,
                    minimum=float(values.min()) if values.size else 0.0,
                    maximum=float(values.max()) if values.size else 0.0,
                    beyond_float16=int(np.count_nonzero(np.abs(values) > FLOAT16_MAX)),
                    states_bytes=states_path.stat().st_size,
                    states_sha256=sha256_of_file(states_path),
                    states_xxh3=xxh3_of_file(states_path),
                    index_bytes=index_path.stat().st_size,
                    index_sha256=sha256_of_file(index_path),
                    **dataclasses.asdict(drift),
                )
                seal.write(seal_path)
            if key is not None:
                note_sound(states_path, key, seal.states_xxh3)
            for path in (states_path, index_path, seal_path):
                set_aside(path, forget=True)
            if self.upload is not None:
                self.upload.sealed(self.folder, number, seal)
        return seal

    @contextlib.contextmanager
    def _saying_what_is_needed(self, row_bytes: float = 0.0) -> Iterator[None]:
        """Where the disk is full, say how much what is left of the set takes."""
        try:
            yield
        except DiskFull as error:
            raise DiskFull(
                error.what,
                where=error.where,
                expected=f"about {self.bytes_left(row_bytes or self._row_bytes()):,} bytes for what is left of this "
                "feature set",
                found=error.found,
                remedy=error.remedy,
            ) from error

    def _row_bytes(self) -> int:
        identity = self.manifest.identity
        return int(identity.architecture["hidden_size"]) * RAW[identity.storage_dtype].itemsize

    def bytes_left(self, row_bytes: float) -> int:
        """About how many bytes the shards that are not whole will take.

        Args:
            row_bytes: bytes of a row's hidden states.
        """
        left = [len(self.manifest.places_of(n)) for n in range(self.manifest.shards) if self.sealed(n) is None]
        return int(sum(left) * (row_bytes + INDEX_ROW_BYTES)) + len(left) * SHARD_OVERHEAD_BYTES

    def _check_values(self, number: int, values: np.ndarray, drift: Drift) -> None:
        where = f"{self.folder.name}, shard {number}"
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
            raise CacheError(
                "a hidden state is not finite: the shard is not written",
                where=f"{where}, line {bad}",
                expected="finite numbers",
                found="NaN or infinity",
                remedy="use --compute-dtype float32 or bfloat16, and --storage-dtype auto",
            )
        if not drift.is_tolerable:  # infinite where a canary came out as NaN
            raise CacheError(
                "rows computed again do not come out the same: the shard is not written",
                where=where,
                expected=f"a relative difference of at most {drift.tolerance:g}",
                found=f"{drift.alone_relative:.3g} for a row alone, {drift.shuffled_relative:.3g} in another batch",
                remedy="use --compute-dtype float32; or allow it with --drift-tolerance, and the passport will say so",
            )

    def _check_rows(self, number: int, data: ShardData, index: pa.Table) -> None:
        rows = self.rows_of(number)
        identity = self.manifest.identity
        kind = RAW[identity.storage_dtype]
        in_order = np.array_equal(index["row"].to_numpy(), rows)
        found = (data.rows, data.hidden_states.shape[1:], data.dtype, data.hidden_states.dtype, in_order)
        expected = (len(rows), (identity.architecture["hidden_size"],), identity.storage_dtype, kind, True)
        if found != expected:
            raise CacheError(
                "this is not the shard that belongs here",
                where=f"{self.folder.name}, shard {number}",
                expected=f"rows, width, dtype, its NumPy type, index in order: {expected}",
                found=found,
            )

    def note_pass(self, record: Mapping[str, Any]) -> None:
        """Add a line on how a shard was computed (when, seconds, tokens) to `passes.jsonl`, which no seal covers."""
        try:
            append_line(self.folder / PASSES, json.dumps(record, sort_keys=True))
        except OSError as error:
            raise refused(self.folder / PASSES, error) from error

    def finish(self, *, timeout: float = 0.0) -> Manifest:
        """Write the manifest, if every shard is whole; where it is there already, with the same bytes.

        Args:
            timeout: seconds to wait for another process that is doing the same.

        Raises:
            CacheError: a shard is missing, or another process holds the set.
        """
        with self.lock.held(SET, timeout=timeout):
            seals = []
            for number in range(self.manifest.shards):
                seal = self.sealed(number)
                if seal is None:
                    raise CacheError("a shard is missing", where=self.folder, found=f"no whole shard {number}")
                seals.append(seal)
            manifest = dataclasses.replace(
                self.manifest, seals=digest_of_seals(seals), passport=passport_of_seals(seals)
            )
            clear_partials_of(self.folder / MANIFEST)
            if self.upload is not None:
                self.upload.finished(self.folder, manifest, seals)
            with self._saying_what_is_needed():
                manifest.write(self.folder)
            set_aside(self.folder / MANIFEST, forget=True)
            forget_cut(self.folder, manifest.shards)
        return manifest
