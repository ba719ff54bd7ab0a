"""A shard's index: for each row its place in the split, its example, and where it was pooled, as Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DamagedFeatureSet

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # place in the split, from 0
        pa.field("idx", pa.int64(), nullable=False),  # the example's own number in its source
        pa.field("label", pa.int64()),  # class number; null where the split is unlabelled
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string()),  # CoLA's source code; null elsewhere
        pa.field("n_tokens", pa.int32(), nullable=False),  # tokens of the prompted text
        pa.field("position", pa.int32(), nullable=False),  # the first pooled token's place in the prompted text
        pa.field("n_pooled", pa.int32(), nullable=False),  # tokens pooled (or kept) from there on
        pa.field("token_id", pa.int32(), nullable=False),  # the id at `position`
    ]
)


def write_index(path: Path, table: pa.Table) -> None:
    """Write an index to a path where nothing is yet; the bytes depend on the rows alone."""
    pq.write_table(table.cast(SCHEMA), path, compression="zstd")


def read_index(path: Path) -> pa.Table:
    """Read an index.

    Raises:
        DamagedFeatureSet: the file is no index.
    """
    try:
        table = pq.read_table(path, memory_map=False)
    except (OSError, pa.ArrowException) as error:
        raise DamagedFeatureSet("an index is not readable Parquet", where=path, found=error) from error
    if not table.schema.equals(SCHEMA):
        raise DamagedFeatureSet(
            "an index has the wrong columns", where=path, expected=SCHEMA.names, found=table.schema.names
        )
    return table
