"""GLUE's submission files out of predictions: checked row by row before and after they are written."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.config import DataConfig
from pipeline.errors import ConfigError, RunError
from pipeline.glue_rows import GLUE_ROWS
from pipeline.partials import partial_path
from pipeline.results.ledger import Run, read_predictions

SPLIT = "test"
HEADER = "index\tprediction"
OF_GLUE = ("glue", "hub")
"""Sources of data whose test split is GLUE's own."""
WRITTEN = (2018, 1, 1, 0, 0, 0)
"""The time that all files of a zip have, so that equal predictions give equal bytes."""


@dataclass(frozen=True)
class GlueTask:
    """What GLUE wants of a task.

    Args:
        file: its name in the zip.
        folder: the task's in a GLUE folder.
    """

    file: str
    folder: str


GLUE: Mapping[str, GlueTask] = {
    "cola": GlueTask("CoLA.tsv", "CoLA"),
    "sst2": GlueTask("SST-2.tsv", "SST-2"),
}


@dataclass(frozen=True)
class Predicted:
    """A task's test set, predicted.

    Args:
        task: its name.
        origin: the run or file that predicted it.
        idx: `[n]` the examples' own numbers.
        predictions: `[n]` class numbers.
    """

    task: str
    origin: str
    idx: np.ndarray
    predictions: np.ndarray


def predictions_of(folder: Path, run: Run, task: str, *, any_rows: bool = False, options: str = "") -> Predicted:
    """A run's predictions of a task's test split.

    Args:
        any_rows: also of other data than GLUE's.
        options: of the command that asks, to be given again.

    Raises:
        RunError: it has none, or they are of another test split than GLUE's; the error says what to do.
    """
    data = run.config.get("data")
    if data not in OF_GLUE and not any_rows:
        raise RunError(
            f"{task}: the run's test sentences are not GLUE's",
            where=run.run,
            expected=f"a run on --data {' or '.join(OF_GLUE)}",
            found=f"--data {data}",
            remedy="name a run on GLUE's data; or --any-rows, to try out what is written: GLUE's server will refuse it",
        )
    table = read_predictions(folder)
    rows = table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["split"], SPLIT)))
    if not rows.num_rows:
        raise RunError(
            f"{task}: the run has no predictions of the test set",
            where=run.run,
            expected=f"rows of {SPLIT}" if any_rows else f"{GLUE_ROWS[task, SPLIT]:,} rows of {SPLIT}",
            found=", ".join(sorted(set(table.filter(pc.equal(table["task"], task))["split"].to_pylist()))) or "none",
            remedy=how_to_predict(run, task, options),
        )
    return Predicted(task, run.run, rows["idx"].to_numpy(), rows["prediction"].to_numpy())


def how_to_predict(run: Run, task: str, options: str = "") -> str:
    """The commands that make what a run lacks.

    Args:
        options: of the command that asks, to be given again.
    """
    places, data = DataConfig(), str(run.config.get("data"))
    folder = {"sample": places.sample_dir}.get(data, places.glue_dir)
    file = folder / GLUE[task].folder / "test.tsv"
    bring = "" if file.is_file() else f"bring {file} (pipeline data fetches GLUE), then "
    several = f" --task {task}" if len(run.tasks) > 1 else ""
    return (
        f"{bring}pipeline predict {run.run} --file {file} --to {task}.parquet{several}, and pipeline submit "
        f"--predictions {task}={task}.parquet{options}; or run pipeline extract --splits test and train again: then "
        "the run has them"
    )


def lines_of_file(predicted: Predicted, *, any_rows: bool = False) -> list[str]:
    """A task's file, line by line, in the order of the examples' own numbers.

    Args:
        any_rows: let any number of rows pass.

    Raises:
        RunError: there is not every index from 0 on exactly once, not as many as GLUE has, or a prediction that is no
            class of it.
    """
    idx, predictions = predicted.idx, predicted.predictions
    where = f"{predicted.task}: {predicted.origin}"
    if len(idx) != GLUE_ROWS[predicted.task, SPLIT] and not any_rows:
        raise RunError(
            f"{predicted.task}: this is not GLUE's whole test set",
            where=predicted.origin,
            expected=f"{GLUE_ROWS[predicted.task, SPLIT]:,} rows",
            found=f"{len(idx):,}",
            remedy="predict GLUE's own test.tsv",
        )
    order = np.argsort(idx, kind="stable")
    if faults := np.flatnonzero(idx[order] != np.arange(len(idx))).tolist():
        raise RunError(
            "the test set's indices are not each there once",
            where=where,
            expected=f"0 to {len(idx) - 1:,}, each once",
            found=f"{int(idx[order][faults[0]])} in place {faults[0]}",
        )
    if wrong := np.flatnonzero(~np.isin(predictions, (0, 1))).tolist():
        raise RunError(
            "a prediction is no class of this task",
            where=f"{where}, index {int(idx[wrong[0]])}",
            expected="0 or 1",
            found=predictions[wrong[0]],
        )
    return [HEADER, *(f"{index}\t{predictions[place]}" for index, place in enumerate(order))]


def write_submission(
    to: Path, predicted: Sequence[Predicted], *, any_rows: bool = False, force: bool = False
) -> list[dict[str, object]]:
    """Write a zip of GLUE's submission files; it appears under its name when it was read back and is right.

    Args:
        to: ends in .zip.
        predicted: of each task once.
        any_rows: let any number of rows pass.
        force: overwrite a file that is there.

    Returns:
        one record a task: `task`, `file`, `rows`, `ones`, `origin`.

    Raises:
        ConfigError: the name ends otherwise, or the file is there and is not to be overwritten.
        RunError: predictions are not those that GLUE wants, or the file cannot be written or read back.
    """
    if to.suffix != ".zip":
        raise ConfigError("a submission is a .zip file", where="to", expected="such as submission.zip", found=to)
    if to.exists() and not force:
        raise ConfigError("the file is there already", where=to, remedy="name another, or overwrite it with --force")
    files = {GLUE[each.task].file: lines_of_file(each, any_rows=any_rows) for each in predicted}
    partial = partial_path(to)
    try:
        with zipfile.ZipFile(partial, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, lines in files.items():
                entry = zipfile.ZipInfo(name, WRITTEN)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, "\n".join(lines) + "\n")
        check_submission(partial, {name: len(lines) - 1 for name, lines in files.items()}, shown=to)
        partial.replace(to)
    except OSError as error:
        raise RunError("the submission cannot be written", where=to, found=error.strerror or error) from error
    finally:
        partial.unlink(missing_ok=True)
    return [
        {
            "task": each.task,
            "file": GLUE[each.task].file,
            "rows": len(each.idx),
            "ones": int(np.sum(each.predictions)),
            "origin": each.origin,
        }
        for each in predicted
    ]


def check_submission(path: Path, rows: Mapping[str, int], *, shown: Path | None = None) -> None:
    """Read a zip of submission files back: names, headers, as many rows as there must be, each a class.

    Args:
        rows: of each file, by its name.
        shown: the path that people know, for errors.

    Raises:
        RunError: something is otherwise; the file and its line are named.
    """
    shown = shown or path
    try:
        with zipfile.ZipFile(path) as archive:
            names, broken = archive.namelist(), archive.testzip()
            if sorted(names) != sorted(rows) or broken is not None:
                raise _wrong(shown, " and ".join(sorted(rows)), broken or ", ".join(names))
            for name, wanted in rows.items():
                with archive.open(name) as file:
                    _check_lines(f"{shown}, {name}", io.TextIOWrapper(file, "utf-8").read().split("\n"), wanted)
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise _wrong(shown, "a zip file", error) from error


def _check_lines(where: str, lines: list[str], rows: int) -> None:
    header, *body, end = lines if len(lines) > 1 else ["", ""]
    if header != HEADER:
        raise _wrong(where, HEADER, header)
    if len(body) != rows or end:
        raise _wrong(where, f"{rows:,} rows, and the end of a line", f"{len(body):,}")
    for place, line in enumerate(body):
        if line not in (f"{place}\t0", f"{place}\t1"):
            raise _wrong(f"{where}, line {place + 2}", f"{place}, a tab, and 0 or 1", repr(line))


def _wrong(where: object, expected: object, found: object) -> RunError:
    return RunError("the submission is not as GLUE wants it", where=where, expected=expected, found=found)
