"""A shard's index: for each row its place in the split, its example, and where it was pooled, as Parquet."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.cache.reading import open_to_read
from pipeline.cache.shard import REPAIR
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
    pq.write_table(table.cast(SCHEMA), path, compression="zstd", write_page_checksum=True)


def read_index(path: Path, *, rows: int | None = None) -> pa.Table:
    """Read an index.

    Args:
        rows: how many its seal says it has, where that is known; its footer must say the same before it is read.

    Raises:
        DamagedFeatureSet: the file is no index, or one of another number of rows.
    """
    try:
        with open_to_read(path) as file:
            return read_open_index(file, path, rows=rows)
    except OSError as error:
        raise DamagedFeatureSet("an index cannot be read", where=path, found=error, remedy=REPAIR) from error


def read_open_index(file: io.FileIO, path: Path, *, rows: int | None, columns: Sequence[str] | None = None) -> pa.Table:
    """Read an index out of an open file; arguments and errors as in `read_index`.

    Args:
        columns: to read; by default all.
    """
    try:
        # A text may stand once in the file and in every row: it is counted before it is written out.
        parquet = pq.ParquetFile(pa.PythonFile(file, "r"), read_dictionary=_TEXTS, page_checksum_verification=True)
        _check_footer(parquet, path, rows)
        table = parquet.read(columns=columns)
        table.validate(full=True)
        if _written_out_bytes(table) > MOST_TEXT_BYTES:
            raise pa.ArrowInvalid(f"its texts are longer than {MOST_TEXT_BYTES} bytes")
        table = table.cast(pa.schema([SCHEMA.field(name) for name in table.column_names]))
    # pyarrow's own errors; a file that ends too soon, a text that is no UTF-8, a column that is not there
    except (OSError, pa.ArrowException, ValueError, KeyError, MemoryError) as error:
        raise DamagedFeatureSet("an index is not readable Parquet", where=path, found=error, remedy=REPAIR) from error
    if rows is not None and table.num_rows != rows:
        raise _wrong_rows(path, rows, table.num_rows)
    return table


MOST_TEXT_BYTES = 2**31 - 1  # what one shard's column of texts can hold


def _check_footer(parquet: pq.ParquetFile, path: Path, rows: int | None) -> None:
    footer = parquet.metadata
    if rows is not None and footer.num_rows != rows:
        raise _wrong_rows(path, rows, footer.num_rows)
    if not parquet.schema_arrow.equals(_AS_READ):
        raise DamagedFeatureSet(
            "an index has the wrong columns",
            where=path,
            expected=", ".join(map(str, SCHEMA)),
            found=", ".join(map(str, parquet.schema_arrow)),
            remedy=REPAIR,
        )
    size_bytes = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
    if not 0 <= size_bytes <= MOST_TEXT_BYTES:
        raise pa.ArrowInvalid(f"it says that it unpacks to {size_bytes} bytes")


def _wrong_rows(path: Path, expected: int, found: int) -> DamagedFeatureSet:
    return DamagedFeatureSet(
        "an index has another number of rows than its seal says",
        where=path,
        expected=expected,
        found=found,
        remedy=REPAIR,
    )


def _written_out_bytes(table: pa.Table) -> int:
    """How long the longest column of texts is with each text written out."""
    totals = [0]
    for name in set(_TEXTS) & set(table.column_names):
        lengths = [pc.take(pc.binary_length(chunk.dictionary), chunk.indices) for chunk in table[name].chunks]
        totals.append(sum(pc.sum(chunk.cast(pa.int64())).as_py() or 0 for chunk in lengths))
    return max(totals)


_TEXTS = [field.name for field in SCHEMA if field.type == pa.string()]
_AS_READ = pa.schema(
    field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in _TEXTS else field for field in SCHEMA
)
