"""Lines of the ledger as a file that other programs, or papers, take."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, RunError
from pipeline.partials import partial_path

SUFFIXES = (".csv", ".parquet", ".md")
PEOPLES = (
    "task", "head", "adapter", "views", "backbone", "quantization", "data", "seed", "held_out", "metric", "score",
    "low", "high", "accuracy", "seconds", "run",
)  # fmt: skip
"""Columns of the Markdown table; the others have all."""


def export_lines(ledger: pa.Table, path: Path, *, overwrite: bool = False) -> None:
    """Write lines to a file, by the ending of its name: .csv, .parquet or .md. A folder that is not there is made.

    CSV has lists as words with spaces between; Markdown has the columns that people read.

    Args:
        ledger: as `ledger_table` makes it.

    Raises:
        ConfigError: the name ends otherwise, or the file is there and is not to be overwritten.
        RunError: it cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError("the file's name does not say what to write", expected=" | ".join(SUFFIXES), found=path.name)
    if path.exists() and not overwrite:
        raise ConfigError("the file is there already", where=path, remedy="name another, or overwrite it with --force")
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(ledger, partial)
        elif path.suffix == ".csv":
            words = pa.array([" ".join(names) for names in ledger["features"].to_pylist()], pa.string())
            place = ledger.schema.get_field_index("features")
            pc.write_csv(ledger.set_column(place, "features", words), partial)
        else:
            partial.write_text(_markdown(ledger), "utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(
            "the runs cannot be written",
            where=path,
            found=error.strerror or error,
            remedy="name a file in a folder that may be written to",
        ) from error


def _markdown(ledger: pa.Table) -> str:
    lines = [[_cell(value) for value in line.values()] for line in ledger.select(PEOPLES).to_pylist()]
    numbers = {name for name in PEOPLES if not pa.types.is_string(ledger.schema.field(name).type)}
    rule = ["---:" if name in numbers else "---" for name in PEOPLES]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (PEOPLES, rule, *lines))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
