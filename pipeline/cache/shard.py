"""One shard's hidden states as HDF5: contiguous, uncompressed, page-aligned, so that readers map it into memory.

The only module that knows h5py. A pooled view is one data set `hidden_states` `[n, d]`; the `tokens` view is
`hidden_states` `[total_t, d]` with `offsets` `[n + 1]`, row i being `hidden_states[offsets[i]:offsets[i + 1]]`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

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


def map_shard(path: Path, dtype: str, hidden_size: int) -> ShardData:
    """Map a shard into memory, read-only, without copying.

    Args:
        dtype: what its manifest says it holds.
        hidden_size: numbers a row.

    Raises:
        DamagedFeatureSet: the file is not such a shard.
    """
    try:
        with h5py.File(path, "r") as file:
            states = file["hidden_states"]
            offsets = file["offsets"][()] if "offsets" in file else None
            shape, kind, place = states.shape, states.id.get_type(), states.id.get_offset()
            contiguous = states.id.get_create_plist().get_layout() == h5d.CONTIGUOUS
            external = states.id.get_create_plist().get_external_count()
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFeatureSet("a shard is not readable HDF5", where=path, found=error, remedy=REPAIR) from error
    whole = (
        len(shape) == 2
        and shape[1] == hidden_size
        and kind == TYPES[dtype]
        and contiguous
        and not external
        and (offsets is None or _are_offsets(offsets, shape[0]))
    )
    size_bytes = int(np.prod(shape)) * RAW[dtype].itemsize
    if not whole or (size_bytes and (place is None or place + size_bytes > path.stat().st_size)):
        raise DamagedFeatureSet(
            "a shard does not hold what its manifest says",
            where=path,
            expected=f"contiguous {dtype} hidden states of {hidden_size} numbers a row",
            found=f"shape {shape}",
            remedy=REPAIR,
        )
    if not size_bytes:
        return ShardData(np.zeros(shape, RAW[dtype]), offsets, dtype)
    return ShardData(np.memmap(path, RAW[dtype], "r", place, shape), offsets, dtype)


REPAIR = "remove this file's seal (the .json beside it) and the manifest, and run the same pipeline extract again"


def _are_offsets(offsets: np.ndarray, total: int) -> bool:
    return bool(
        offsets.ndim == 1
        and offsets.dtype == np.int64
        and len(offsets)
        and offsets[0] == 0
        and offsets[-1] == total
        and (np.diff(offsets) >= 0).all()
    )


def to_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers out of a shard's array: float32 and float16 as they are, bfloat16 bits widened to float32 exactly."""
    if dtype != "bfloat16":
        return values
    return (values.astype(np.uint32) << 16).view(np.float32)
