"""One shard's hidden states as HDF5: contiguous, uncompressed, page-aligned, so that readers map it into memory.

The only module that knows h5py. A pooled view is one data set `hidden_states` `[n, d]`; the `tokens` view is
`hidden_states` `[total_t, d]` with `offsets` `[n + 1]`, row i being `hidden_states[offsets[i]:offsets[i + 1]]`.
"""

import io
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5p, h5s, h5t

from pipeline.cache.mapping import Extent, Opener, map_extents
from pipeline.cache.reading import open_to_read
from pipeline.errors import DamagedFeatureSet

PAGE_BYTES = 4096
RAW: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
"""How a storage dtype's bits lie in a NumPy array; NumPy has no bfloat16, so its raw bits stand as uint16."""


def _bfloat16() -> h5t.TypeID:
    """HDF5's own description of bfloat16 (8 exponent bits, 7 of mantissa), so that any HDF5 reader sees numbers."""
    kind = h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    return kind


TYPES = {"float32": h5t.IEEE_F32LE, "float16": h5t.IEEE_F16LE, "bfloat16": _bfloat16(), "int64": h5t.STD_I64LE}


@dataclass(frozen=True)
class ShardData:
    """A shard's hidden states.

    Args:
        hidden_states: `[n, d]`, or `[total_t, d]` with offsets; raw bits (uint16) where `dtype` is bfloat16.
        offsets: `[n + 1]` int64, or None for a pooled view.
        dtype: float32, float16 or bfloat16.
    """

    hidden_states: np.ndarray
    offsets: np.ndarray | None
    dtype: str

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return len(self.hidden_states) if self.offsets is None else len(self.offsets) - 1


def write_shard(path: Path, data: ShardData) -> None:
    """Write a shard to a path where nothing is yet; the bytes depend on the data alone.

    HDF5 composes the file in memory and plain output writes it: on a full disk, HDF5's own writing fails again at every
    attempt to close the file, and says why in words alone.

    Raises:
        OSError: the disk refuses.
    """
    whole = {"driver": "core", "backing_store": False, "block_size": data.hidden_states.nbytes + (1 << 20)}
    aligned = {"alignment_threshold": 1, "alignment_interval": PAGE_BYTES}
    with h5py.File(path.name, "x", libver=("v110", "v114"), **aligned, **whole) as file:
        _write(file, "hidden_states", np.ascontiguousarray(data.hidden_states, RAW[data.dtype]), TYPES[data.dtype])
        if data.offsets is not None:
            _write(file, "offsets", np.ascontiguousarray(data.offsets, "<i8"), TYPES["int64"])
        file.flush()
        image = file.id.get_file_image()
    with path.open("xb") as out:
        out.write(image)


def _write(file: h5py.File, name: str, values: np.ndarray, kind: h5t.TypeID) -> None:
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_layout(h5d.CONTIGUOUS)
    plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    data_set = h5d.create(file.id, name.encode(), kind, h5s.create_simple(values.shape), plan)
    if values.size:
        data_set.write(h5s.ALL, h5s.ALL, values, mtype=kind)


@dataclass(frozen=True)
class ShardLayout:
    """Where the arrays of a shard lie in its file; each within the file.

    Args:
        shape: of the hidden states.
        place: where they begin, in bytes.
        offsets_place: where the offsets begin, or None for a pooled view.
        rows: rows of the shard.
    """

    shape: tuple[int, int]
    place: int
    offsets_place: int | None
    rows: int


def map_shard(path: Path, dtype: str, hidden_size: int) -> ShardData:
    """Map a shard into memory, read-only, without copying.

    Args:
        dtype: what its manifest says it holds.
        hidden_size: numbers a row.

    Raises:
        DamagedFeatureSet: the file is not such a shard.
    """
    opened = partial(open_to_read, path)
    try:
        with opened() as file:
            layout = locate(file, path, dtype, hidden_size)
        states = map_extents([states_extent(opened, layout, dtype)], RAW[dtype], layout.shape)
        return ShardData(states, map_offsets(opened, path, layout), dtype)
    except (OSError, ValueError) as error:
        raise DamagedFeatureSet("a shard cannot be read", where=path, found=error, remedy=REPAIR) from error


def locate(file: io.FileIO, path: Path, dtype: str, hidden_size: int) -> ShardLayout:
    """Find the arrays in an open shard, reading nothing but HDF5's own records of them.

    Whatever HDF5 could follow out of the file (links, virtual and external data) or would have to decode (chunks,
    filters, types of other makers) is refused unread.

    Args:
        path: for messages.
        dtype, hidden_size: as in `map_shard`.

    Raises:
        DamagedFeatureSet: the file is not such a shard.
    """
    try:
        with h5py.File(file, "r") as opened:
            states = _find_array(opened, b"hidden_states", 2, TYPES[dtype])
            offsets = _find_array(opened, b"offsets", 1, TYPES["int64"]) if _has(opened, b"offsets") else None
    # h5py turns what HDF5 reports into many kinds of errors
    except (
        OSError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise DamagedFeatureSet("a shard is not readable HDF5", where=path, found=error, remedy=REPAIR) from error
    size_bytes = os.fstat(file.fileno()).st_size
    arrays = [(states, RAW[dtype].itemsize), *([(offsets, 8)] if offsets is not None else [])]
    if states.shape[1:] != (hidden_size,) or not all(_lies_within(array, width, size_bytes) for array, width in arrays):
        raise DamagedFeatureSet(
            "a shard does not hold what its manifest says",
            where=path,
            expected=f"contiguous {dtype} hidden states of {hidden_size} numbers a row, within the file",
            found=f"shape {states.shape}" + ("" if states.is_plain else ", stored in another way"),
            remedy=REPAIR,
        )
    return ShardLayout(
        (states.shape[0], states.shape[1]),
        states.place,
        None if offsets is None else offsets.place,
        states.shape[0] if offsets is None else offsets.shape[0] - 1,
    )


@dataclass(frozen=True)
class _Array:
    shape: tuple[int, ...]
    place: int
    is_plain: bool


def _has(file: h5py.File, name: bytes) -> bool:
    return bool(file.id.links.exists(name))


def _find_array(file: h5py.File, name: bytes, dimensions: int, kind: h5t.TypeID) -> _Array:
    if not _has(file, name) or file.id.links.get_info(name).type != h5l.TYPE_HARD:  # a soft one may lead anywhere
        raise KeyError(f"{name.decode()} is not an array of this file")
    array = h5d.open(file.id, name)
    shape, found, plan = array.shape, array.get_type(), array.get_create_plist()
    is_plain = (
        len(shape) == dimensions
        and found == kind
        and not found.committed()
        and plan.get_layout() == h5d.CONTIGUOUS
        and plan.get_external_count() == 0
        and plan.get_nfilters() == 0
    )
    place = array.get_offset() if is_plain else None
    return _Array(shape, 0 if place is None else place, is_plain and (place is not None or 0 in shape))


def _lies_within(array: _Array, width: int, size_bytes: int) -> bool:
    return array.is_plain and 0 <= array.place <= size_bytes - math.prod(array.shape) * width


def states_extent(opened: Opener, layout: ShardLayout, dtype: str) -> Extent:
    """The stretch of a shard that its hidden states are."""
    return Extent(opened, layout.place, math.prod(layout.shape) * RAW[dtype].itemsize)


def map_offsets(opened: Opener, path: Path, layout: ShardLayout) -> np.ndarray | None:
    """The offsets `[n + 1]` int64 of a shard, or None for a pooled view.

    Raises:
        DamagedFeatureSet: they do not cover the tokens in order.
    """
    if layout.offsets_place is None:
        return None
    count = layout.rows + 1
    offsets = map_extents([Extent(opened, layout.offsets_place, 8 * count)], np.dtype("<i8"), (count,))
    if not count or offsets[0] != 0 or offsets[-1] != layout.shape[0] or not (offsets[1:] >= offsets[:-1]).all():
        raise DamagedFeatureSet(
            "a shard's offsets do not cover its tokens in order", where=path, found=f"{count} offsets", remedy=REPAIR
        )
    return offsets


REPAIR = (
    "run the same pipeline extract with --verify: it looks at every shard, and writes anew just those that are damaged"
)


def hdf5_version() -> str:
    """The version of the HDF5 library under h5py."""
    return str(h5py.version.hdf5_version)


def to_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers out of a shard's array: float32 and float16 as they are, bfloat16 bits widened to float32 exactly."""
    if dtype != "bfloat16":
        return values
    widened = values.astype(np.uint32)
    widened <<= 16
    return widened.view(np.float32)
