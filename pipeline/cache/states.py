"""The hidden states of a feature set over all of its shards: mapped, joined, and handed out as they were sealed."""

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.cache.finite import examine, examine_all
from pipeline.cache.manifest import Manifest
from pipeline.cache.mapping import Extent, map_extents
from pipeline.cache.reading import FileKey, Remembered
from pipeline.cache.sealed_files import STATES, SealedFiles
from pipeline.cache.shard import RAW, REPAIR, ShardData, ShardLayout, locate, map_offsets, states_extent, to_float32
from pipeline.cache.sound import Sound, read_sound, tells_of_writes
from pipeline.errors import CacheError, DamagedFeatureSet
from pipeline.memory import free_bytes

_LAYOUTS: Remembered[ShardLayout] = Remembered()
_SOUND: Remembered[str] = Remembered()
"""The fast digest of a file all of whose numbers are finite."""


class StoredStates:
    """What the shards of a feature set hold, in the storage dtype (bfloat16 as raw bits, uint16).

    Args:
        files: the shards, sealed.
        manifest: what they hold.
        places: gives `[n]` int64, where each row of the split stands in the shards' own order; it is asked only where
            that is another than the split's.
    """

    def __init__(self, files: SealedFiles, manifest: Manifest, places: Callable[[], np.ndarray]) -> None:
        self._files, self._manifest = files, manifest
        self._places_of_all = places
        self._layouts: dict[int, tuple[ShardLayout, FileKey]] = {}
        self._sound: dict[int, FileKey] = {}
        self._around: dict[int, tuple[bytes, bytes]] = {}
        self._shards: dict[int, ShardData] = {}
        self.dtype = manifest.identity.storage_dtype
        self.hidden_size = int(manifest.identity.architecture["hidden_size"])
        self.is_tokens = manifest.identity.pooling == "tokens"

    @cached_property
    def matrix(self) -> np.ndarray:
        """`[n, d]` of a pooled view, read-only: a map where shards fill whole pages in the split's order, else a copy.

        Of a store whose hidden states do not stay here, it is a copy.

        Raises:
            CacheError: that copy would not fit into the memory that is free.
            DamagedFeatureSet: a shard is not what its seal and manifest say, or a value is not finite.
        """
        if self._manifest.order == "split" and self._files.stay:
            return self._map(private=False)
        matrix = self._in_the_splits_order()
        matrix.flags.writeable = False
        return matrix

    def private_matrix(self) -> np.ndarray:
        """`matrix` as an array of one's own: writable, each write copying its page, the files never changed."""
        is_map = self._manifest.order == "split" and self._files.stay
        return self._map(private=True) if is_map else self._in_the_splits_order()

    def shard(self, number: int) -> ShardData:
        """One shard, mapped and read-only.

        Raises:
            DamagedFeatureSet: it is not what its seal and manifest say, or a value is not finite.
        """
        if number not in self._shards:
            if not self._files.stay:
                self._shards.clear()  # what is mapped takes its room on the disk, even when it has lost its name
            keys: list[FileKey] = []
            layout, path = self._layout(number), self._files.path(number, STATES)
            try:
                states = map_extents([self._extent(number, keys)], RAW[self.dtype], layout.shape)
                offsets = map_offsets(partial(self._open_as_located, number, keys), path, layout)
            except (OSError, ValueError, MemoryError) as error:
                raise self._not_mapped(path, error) from error
            if len({key.content for key in keys}) > 1:
                raise self._replaced(number)
            self._check({number: (states, keys[0])})
            self._shards[number] = ShardData(states, offsets, self.dtype)
        return self._shards[number]

    def gather(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """A copy `[len(rows), d]` of some rows of a pooled view; no other shard than theirs is read.

        Raises:
            DamagedFeatureSet: as `shard`.
        """
        places = self._places(np.asarray(rows, dtype=np.int64))
        numbers = places // self._manifest.shard_rows
        gathered = np.empty((len(places), self.hidden_size), RAW[self.dtype])
        for number in np.unique(numbers):
            of_shard = numbers == number
            states = self.shard(int(number)).hidden_states
            gathered[of_shard] = states[places[of_shard] - number * self._manifest.shard_rows]
        return gathered

    def row_of_tokens(self, row: int) -> np.ndarray:
        """The hidden states `[t, d]` of one row of the tokens view, mapped and read-only.

        Raises:
            DamagedFeatureSet: as `shard`.
        """
        number, place = divmod(int(self._places(np.array([row]))[0]), self._manifest.shard_rows)
        data = self.shard(number)
        assert data.offsets is not None
        return data.hidden_states[data.offsets[place] : data.offsets[place + 1]]

    def _places(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._manifest.order == "split" else self._places_of_all()[rows]

    def _in_the_splits_order(self) -> np.ndarray:
        """A copy `[n, d]`, shard by shard."""
        if not self._files.stay:
            self._check_memory()
        matrix = np.empty((self._manifest.rows, self.hidden_size), RAW[self.dtype])
        order = self._manifest.order
        rows = np.arange(self._manifest.rows) if order == "split" else np.argsort(self._places_of_all())
        for number in range(self._manifest.shards):
            places = self._manifest.places_of(number)
            matrix[rows[places.start : places.stop]] = self.shard(number).hidden_states
        return matrix

    def _check_memory(self) -> None:
        needed, free = self._manifest.rows * self.hidden_size * RAW[self.dtype].itemsize, free_bytes()
        if needed > free:
            raise CacheError(
                "this feature set is larger than the memory that is free",
                where=self._files.folder,
                expected=f"{needed:,} bytes for all of it at once",
                found=f"{free:,} bytes",
                remedy="read it in parts (take, batches, shard), or set no local limit: then it is mapped",
            )

    def _map(self, *, private: bool) -> np.ndarray:
        keys: list[FileKey] = []
        extents = [self._extent(number, keys) for number in range(self._manifest.shards)]
        shape = (self._manifest.rows, self.hidden_size)
        try:
            matrix = map_extents(extents, RAW[self.dtype], shape, private=private)
        except (OSError, ValueError, MemoryError) as error:
            raise self._not_mapped(self._files.folder, error) from error
        ends = np.cumsum([0, *(self._layouts[n][0].shape[0] for n in range(len(keys)))])
        self._check({n: (matrix[ends[n] : ends[n + 1]], key) for n, key in enumerate(keys)})
        return matrix

    def _extent(self, number: int, keys: list[FileKey]) -> Extent:
        """A shard's hidden states; when they are mapped, the key of the file that was is added to `keys`."""
        return states_extent(partial(self._open_as_located, number, keys), self._layout(number), self.dtype)

    def _layout(self, number: int) -> ShardLayout:
        if number not in self._layouts:
            key_there = self._files.states_keys[number]
            known = _LAYOUTS.get(key_there, self.dtype, self.hidden_size)
            if known is not None and key_there is not None and not self._files.verify:
                self._layouts[number] = self._checked(number, known), key_there
            else:
                with self._files.open(number, STATES) as file:
                    key = FileKey.of(file.fileno())
                    self._layouts[number] = self._locate(number, file, key), key
        return self._layouts[number][0]

    def _locate(self, number: int, file: io.FileIO, key: FileKey) -> ShardLayout:
        path = self._files.path(number, STATES)
        layout = _LAYOUTS.get(key, self.dtype, self.hidden_size)
        if layout is None:
            layout = locate(file, path, self.dtype, self.hidden_size)
            _LAYOUTS.keep(layout, key, self.dtype, self.hidden_size, keys=[key])
        return self._checked(number, layout)

    def _checked(self, number: int, layout: ShardLayout) -> ShardLayout:
        seal = self._files.seals[number]
        if layout.rows != seal.rows or (layout.offsets_place is not None) != self.is_tokens:
            raise DamagedFeatureSet(
                "a shard holds another number of rows than its place needs",
                where=self._files.path(number, STATES),
                expected=seal.rows,
                found=layout.rows,
                remedy=REPAIR,
            )
        return layout

    @contextmanager
    def _open_as_located(self, number: int, keys: list[FileKey]) -> Iterator[io.FileIO]:
        layout, key = self._layouts[number]
        with self._files.open(number, STATES) as file:
            keys.append(FileKey.of(file.fileno()))
            if keys[-1] != key and self._locate(number, file, keys[-1]) != layout:
                raise self._replaced(number)
            if not self._is_sound(number, keys[-1]):
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())  # a write through a map shows only where nothing of it waits to be written
                self._around[number] = _around(file, layout, RAW[self.dtype].itemsize)
            yield file

    def _is_sound(self, number: int, key: FileKey) -> bool:
        digest = self._files.seals[number].states_xxh3
        return self._sound.get(number) == key or _SOUND.get(key) == digest or (key.content, digest) in self._noted

    @cached_property
    def _noted(self) -> Sound:
        return read_sound(self._files.folder)

    def _check(self, shards: Mapping[int, tuple[np.ndarray, FileKey]]) -> None:
        """Hold mapped shards against their seals' fast digests, and their numbers against NaN and infinity.

        Once for as long as a file stays the same: what was seen of it is remembered, and what was seen when it was
        written or verified on this machine is noted beside it.
        """
        todo = {}
        for number, (states, key) in shards.items():
            if not self._is_sound(number, key):
                before, after = self._around[number]
                todo[number] = partial(examine, before, states, after, self.dtype)
        for number, (finite, digest) in zip(todo, examine_all(list(todo.values())), strict=True):
            expected, (states, key) = self._files.seals[number].states_xxh3, shards[number]
            if not finite or digest != expected:
                raise DamagedFeatureSet(
                    "a shard holds a value that is not finite"
                    if not finite
                    else "a shard does not hold the bytes that were sealed",
                    where=self._files.path(number, STATES),
                    expected="finite numbers, as when it was written" if not finite else f"XXH3 {expected}",
                    found=self._first_not_finite(number, states) if not finite else digest,
                    remedy=REPAIR,
                )
            if tells_of_writes(key):
                _SOUND.keep(digest, key, keys=[key])
        self._sound |= {number: key for number, (_, key) in shards.items()}
        self._around.clear()

    def _first_not_finite(self, number: int, states: np.ndarray) -> str:
        """Which value it is, for people: by its row in the split, where the index can be read."""
        numbers = to_float32(states, self.dtype)
        place, feature = (int(each) for each in np.argwhere(~np.isfinite(numbers))[0])
        where = f"feature {feature}, {numbers[place, feature]}"
        if self.is_tokens:
            return f"hidden state {place} of the shard, {where}"
        stored = number * self._manifest.shard_rows + place
        with contextlib.suppress(DamagedFeatureSet):
            row = stored if self._manifest.order == "split" else int(np.argsort(self._places_of_all())[stored])
            return f"row {row}, {where}"
        return f"row {place} of the shard, {where}"

    def _replaced(self, number: int) -> DamagedFeatureSet:
        return DamagedFeatureSet(
            "a shard was replaced by another while it was opened",
            where=self._files.path(number, STATES),
            remedy="open the feature set again",
        )

    def _not_mapped(self, path: Path, error: Exception) -> DamagedFeatureSet:
        return DamagedFeatureSet("hidden states cannot be mapped into memory", where=path, found=error, remedy=REPAIR)


def _around(file: io.FileIO, layout: ShardLayout, itemsize: int) -> tuple[bytes, bytes]:
    """What stands before and after the hidden states in a shard's file."""
    size_bytes = math.prod(layout.shape) * itemsize
    file.seek(0)
    before = file.read(layout.place) if size_bytes else b""
    file.seek(layout.place + size_bytes if size_bytes else 0)
    return before or b"", file.read() or b""
