"""The hidden states of a feature set over all of its shards: mapped, joined, and never handed out unless finite."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.cache.finite import MOST_THREADS, all_finite, find_not_finite
from pipeline.cache.manifest import Manifest
from pipeline.cache.mapping import Extent, map_extents
from pipeline.cache.reading import FileKey, Remembered
from pipeline.cache.sealed_files import STATES, SealedFiles
from pipeline.cache.shard import RAW, REPAIR, ShardData, ShardLayout, locate, map_offsets, states_extent
from pipeline.digests import xxh3_of_bytes
from pipeline.errors import DamagedFeatureSet

_LAYOUTS: Remembered[ShardLayout] = Remembered()
_SOUND: Remembered[bool] = Remembered()
_FINITE: Remembered[bool] = Remembered()


class StoredStates:
    """What the shards of a feature set hold, in the storage dtype (bfloat16 as raw bits, uint16).

    Args:
        files: the shards, sealed.
        manifest: what they hold.
    """

    def __init__(self, files: SealedFiles, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest
        self._layouts: dict[int, tuple[ShardLayout, FileKey]] = {}
        self._sound: dict[int, FileKey] = {}
        self._shards: dict[int, tuple[ShardData, FileKey]] = {}
        self.dtype = manifest.identity.storage_dtype
        self.hidden_size = int(manifest.identity.architecture["hidden_size"])
        self.is_tokens = manifest.identity.pooling == "tokens"

    @cached_property
    def matrix(self) -> np.ndarray:
        """`[n, d]` of a pooled view, read-only and all finite: a map where the shards fill whole pages, else a copy.

        Raises:
            DamagedFeatureSet: a value is not finite, or a shard is not what its seal and manifest say.
        """
        matrix, keys = self._map(private=False)
        self._check_finite(matrix, keys)
        return matrix

    def private_matrix(self) -> np.ndarray:
        """`matrix` as an array of one's own: writable, each write copying its page, the files never changed."""
        matrix, keys = self._map(private=True)
        self._check_finite(matrix, keys)
        return matrix

    def shard(self, number: int) -> ShardData:
        """One shard, mapped and read-only, of the bytes that were sealed; `check_shard` sees to finite values too."""
        return self._shard(number)[0]

    def check_shard(self, number: int) -> ShardData:
        """One shard, all of whose values are finite.

        Raises:
            DamagedFeatureSet: one is not.
        """
        data, key = self._shard(number)
        self._check_finite(data.hidden_states, [key], first=number)
        return data

    def gather(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """A copy `[len(rows), d]` of some rows of a pooled view, all finite; no other row is read.

        Raises:
            DamagedFeatureSet: a value of these rows is not finite.
        """
        places = np.asarray(rows, dtype=np.int64)
        numbers = places // self._manifest.shard_rows
        gathered = np.empty((len(places), self.hidden_size), RAW[self.dtype])
        for number in np.unique(numbers):
            of_shard = numbers == number
            states = self.shard(int(number)).hidden_states
            gathered[of_shard] = states[places[of_shard] - number * self._manifest.shard_rows]
        if not all_finite(gathered, self.dtype):
            bad = next(n for n, row in zip(numbers, gathered, strict=True) if not all_finite(row, self.dtype))
            raise self._not_finite(int(bad))
        return gathered

    def row_of_tokens(self, row: int) -> np.ndarray:
        """The hidden states `[t, d]` of one row of the tokens view, mapped, read-only and all finite.

        Raises:
            DamagedFeatureSet: a value of this row is not finite.
        """
        number, place = divmod(row, self._manifest.shard_rows)
        data = self.shard(number)
        assert data.offsets is not None
        values = data.hidden_states[data.offsets[place] : data.offsets[place + 1]]
        if not all_finite(values, self.dtype):
            raise self._not_finite(number)
        return values

    def _map(self, *, private: bool) -> tuple[np.ndarray, list[FileKey]]:
        keys: list[FileKey] = []
        extents = [self._extent(number, keys) for number in range(self._manifest.shards)]
        shape = (self._manifest.rows, self.hidden_size)
        try:
            return map_extents(extents, RAW[self.dtype], shape, private=private), keys
        except (OSError, ValueError, MemoryError) as error:
            raise self._not_mapped(self._files.folder, error) from error

    def _extent(self, number: int, keys: list[FileKey]) -> Extent:
        """A shard's hidden states; when they are mapped, the key of the file that was is added to `keys`."""
        return states_extent(partial(self._open_as_located, number, keys), self._layout(number), self.dtype)

    def _shard(self, number: int) -> tuple[ShardData, FileKey]:
        if number not in self._shards:
            keys: list[FileKey] = []
            layout, path = self._layout(number), self._files.path(number, STATES)
            try:
                states = map_extents([self._extent(number, keys)], RAW[self.dtype], layout.shape)
                offsets = map_offsets(partial(self._open_as_located, number, keys), path, layout)
            except (OSError, ValueError, MemoryError) as error:
                raise self._not_mapped(path, error) from error
            self._check_digests({number: keys[0]})
            self._shards[number] = ShardData(states, offsets, self.dtype), keys[0]
        return self._shards[number]

    def _layout(self, number: int) -> ShardLayout:
        if number not in self._layouts:
            with self._files.open(number, STATES) as file:
                key = FileKey.of(file.fileno())
                self._layouts[number] = self._locate(number, file, key), key
        return self._layouts[number][0]

    def _locate(self, number: int, file: io.FileIO, key: FileKey) -> ShardLayout:
        path, seal = self._files.path(number, STATES), self._files.seals[number]
        layout = _LAYOUTS.get(key, self.dtype, self.hidden_size)
        if layout is None:
            layout = locate(file, path, self.dtype, self.hidden_size)
            _LAYOUTS.keep(layout, key, self.dtype, self.hidden_size, keys=[key])
        if layout.rows != seal.rows or (layout.offsets_place is not None) != self.is_tokens:
            raise DamagedFeatureSet(
                "a shard holds another number of rows than its place needs",
                where=path,
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
                raise DamagedFeatureSet(
                    "a shard was replaced by another while it was opened", where=self._files.path(number, STATES)
                )
            yield file

    def _check_finite(self, states: np.ndarray, keys: list[FileKey], first: int = 0) -> None:
        ends = np.cumsum([0, *(self._layouts[first + place][0].shape[0] for place in range(len(keys)))])
        todo = [place for place, key in enumerate(keys) if not _FINITE.get(key)]
        bad = find_not_finite([states[ends[place] : ends[place + 1]] for place in todo], self.dtype)
        if bad is not None:
            raise self._not_finite(first + todo[bad])
        self._check_digests({first + place: keys[place] for place in todo})
        for place in todo:
            _FINITE.keep(True, keys[place], keys=[keys[place]])

    def _check_digests(self, files: dict[int, FileKey]) -> None:
        """Hold whole files against the fast digest of their seals, once for as long as they stay the same."""
        todo = [number for number, key in files.items() if self._sound.get(number) != key and not _SOUND.get(key)]
        with ThreadPoolExecutor(MOST_THREADS) as pool:
            found = list(pool.map(self._digest, todo))
        for number, digest in zip(todo, found, strict=True):
            if digest != self._files.seals[number].states_xxh3:
                raise DamagedFeatureSet(
                    "a shard does not hold the bytes that were sealed",
                    where=self._files.path(number, STATES),
                    expected=f"XXH3 {self._files.seals[number].states_xxh3}",
                    found=digest,
                    remedy=REPAIR,
                )
            self._sound[number] = files[number]
            _SOUND.keep(True, files[number], keys=[files[number]])

    def _digest(self, number: int) -> str:
        size_bytes = self._files.seals[number].states_bytes
        extent = Extent(partial(self._open_as_located, number, []), 0, size_bytes)
        return xxh3_of_bytes(map_extents([extent], np.dtype(np.uint8), (size_bytes,)).data)

    def _not_finite(self, number: int) -> DamagedFeatureSet:
        return DamagedFeatureSet(
            "a shard holds a value that is not finite",
            where=self._files.path(number, STATES),
            expected="finite numbers, as when it was written",
            found="NaN or infinity",
            remedy=REPAIR,
        )

    def _not_mapped(self, path: Path, error: Exception) -> DamagedFeatureSet:
        return DamagedFeatureSet("hidden states cannot be mapped into memory", where=path, found=error, remedy=REPAIR)
