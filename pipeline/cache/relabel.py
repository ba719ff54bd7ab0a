"""Labels are no part of an identity: where one was corrected, the features stay and the index is written anew."""

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from pipeline.cache.files import whole_file
from pipeline.cache.index import read_index, write_index
from pipeline.cache.lock import SET
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.seal import Seal
from pipeline.cache.writer import FeatureSetWriter
from pipeline.digests import sha256_of_file
from pipeline.errors import DamagedFeatureSet

Columns = Mapping[str, pa.Array]
"""By name, columns of the index that no feature depends on, one value a row of the split."""


def is_stale(writer: FeatureSetWriter, number: int, columns: Columns) -> bool:
    """Whether a whole shard's index has other values than these.

    Raises:
        DamagedFeatureSet: the index is not what was sealed.
    """
    seal = writer.sealed(number)
    if seal is None:
        return False
    index = _index(writer, number, seal)
    return not _replaced(index, columns).equals(index)


def reindex(writer: FeatureSetWriter, number: int, columns: Columns, *, timeout: float = 0.0) -> bool:
    """Bring a whole shard's index up to date.

    Args:
        timeout: seconds to wait for another writer.

    Returns:
        whether anything had to be changed.

    Raises:
        DamagedFeatureSet: the index is not what was sealed.
    """
    if not is_stale(writer, number, columns):
        return False
    _, index_path, seal_path = shard_paths(writer.folder, number)
    with writer.lock.held(SET, timeout=timeout), writer.lock.held(number, timeout=timeout):
        seal = writer.sealed(number)
        if seal is None or not is_stale(writer, number, columns):
            return False
        changed = _replaced(_index(writer, number, seal), columns)
        (writer.folder / MANIFEST).unlink(missing_ok=True)
        seal_path.unlink(missing_ok=True)
        with whole_file(index_path) as partial:
            write_index(partial, changed)
        size_bytes, sha256 = index_path.stat().st_size, sha256_of_file(index_path)
        dataclasses.replace(seal, index_bytes=size_bytes, index_sha256=sha256).write(seal_path)
    return True


def _index(writer: FeatureSetWriter, number: int, seal: Seal) -> pa.Table:
    path = shard_paths(writer.folder, number)[1]
    if sha256_of_file(path) != seal.index_sha256:
        raise DamagedFeatureSet("an index is not what its seal says", where=path)
    index = read_index(path)
    rows = index["row"].to_numpy()
    if rows.min() < 0 or rows.max() >= writer.manifest.rows:
        raise DamagedFeatureSet("an index names rows that the split does not have", where=path)
    return index


def _replaced(index: pa.Table, columns: Columns) -> pa.Table:
    rows = index["row"].combine_chunks()
    for name, values in columns.items():
        place = index.schema.get_field_index(name)
        own = pa.chunked_array([values.take(rows)], index[name].type)
        index = index.set_column(place, index.schema.field(place), own)
    return index
