"""A feature set in other people's formats: Arrow columns over the mapped shards, Parquet, a Hugging Face `Dataset`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.cache.files import whole_file
from pipeline.cache.shard import ShardData, to_float32
from pipeline.errors import CacheError, DamagedFeatureSet, MissingPackage

if TYPE_CHECKING:
    import datasets

    from pipeline.cache.feature_set import FeatureSet


def states_column(data: ShardData) -> pa.Array:
    """A shard's hidden states as an Arrow column of one value a row.

    Returns:
        fixed-size lists of `d` numbers over the shard's own memory (bfloat16 widened to float32, a copy); of the
        tokens view, lists of them.
    """
    numbers = to_float32(data.hidden_states, data.dtype)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), numbers.shape[1])
    if data.offsets is None:
        return vectors
    return pa.ListArray.from_arrays(pa.array(data.offsets.astype(np.int32)), vectors)


def write_parquet(tables: Iterator[pa.Table], path: Path) -> None:
    """Write tables of one schema as one Parquet file, each a row group, and no more than one in memory.

    Raises:
        CacheError: the file cannot be written.
    """
    try:
        with whole_file(path) as partial:
            first = next(tables)
            with pq.ParquetWriter(partial, first.schema, compression="zstd", use_dictionary=False) as writer:
                writer.write_table(first)
                for table in tables:
                    writer.write_table(table)
    except CacheError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or isinstance(error, DamagedFeatureSet):
            raise
        raise type(error)(
            "a Parquet file cannot be written",
            where=path,
            found=os.strerror(cause.errno) if cause.errno else cause,
            remedy="name a file in a folder that is there, may be written to and has room",
        ) from error


def make_dataset(feature_set: "FeatureSet") -> "datasets.Dataset":
    """A Hugging Face `Dataset` over the shards' own memory.

    Raises:
        MissingPackage: datasets is not installed.
    """
    try:
        import datasets
        from datasets.table import InMemoryTable
    except ModuleNotFoundError as error:
        raise MissingPackage("datasets", "extract") from error
    table = pa.concat_tables(feature_set.tables())
    features = datasets.Features.from_arrow_schema(table.schema)
    features["label"] = datasets.ClassLabel(names=list(feature_set.manifest.labels))
    return datasets.Dataset(
        InMemoryTable(table),
        info=datasets.DatasetInfo(features=features, dataset_name=feature_set.manifest.name),
        split=datasets.NamedSplit(feature_set.manifest.split),
        fingerprint=feature_set.manifest.seals.removeprefix("sha256:")[:16],
    )
