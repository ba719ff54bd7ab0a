"""`pipeline submit`: GLUE's submission files. A room is imported inside the command that needs it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from pipeline.config import LedgerConfig
from pipeline.errors import ConfigError, DataError, PipelineError, RunError
from pipeline.terminal import LISTS, Flat, Json, columns, print_result, printable

if TYPE_CHECKING:
    from rich.table import Table as ShownTable

    from pipeline.results.ledger import Run
    from pipeline.results.submission import Predicted
    from pipeline.tasks.tables import Table

DIGITS = 18
"""Of a number that has room in 64 bits whatever they are."""
PROBABILITY = "probability_"

submit_app = App(name="submit", usage="Usage: pipeline submit [RUNS...] [OPTIONS]", default_parameter=LISTS)


@submit_app.default
def submit(
    *chosen: Annotated[str, Parameter(name=["RUNS", "--runs"])],
    to: Path = Path("submission.zip"),
    tasks: tuple[str, ...] = ("cola", "sst2"),
    predictions: tuple[str, ...] = (),
    any_rows: bool = False,
    force: bool = False,
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """Write GLUE's submission files, CoLA.tsv and SST-2.tsv, from predictions of the test sets, as one zip.

    Each file has the header index and prediction, and every index of the test set once; the zip is read back and
    checked before it gets its name. Where a test set was not predicted, nothing is written, and it is said what is
    missing.

    Example: `pipeline submit --to submission.zip`

    Args:
        chosen: the runs, by name or any part of it, one for each task, or one of both; by default the best of each task
            by its score on held-out training rows.
        to: the zip.
        tasks: cola, sst2, or both.
        predictions: files that pipeline predict wrote of test.tsv, such as cola=cola.parquet, in place of a run's own.
        any_rows: take test sets that are not GLUE's, such as the sample's, to try it out.
        force: overwrite a file that is there.
    """
    from pipeline.results.submission import GLUE, lines_of_file, write_submission

    if not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(GLUE):
        raise ConfigError("name each of GLUE's tasks once", where="tasks", expected=" | ".join(GLUE), found=tasks)
    files = _files(predictions, tasks)
    options = (" --tasks " + " ".join(tasks) if set(tasks) != set(GLUE) else "") + (" --any-rows" if any_rows else "")
    named, problems = _named(chosen, runs.runs_dir)
    lost, predicted = bool(problems), []
    of_runs = [task for task in tasks if task not in files]
    if unused := [run.run for run in named if not set(run.tasks) & set(of_runs)]:
        problems.append(
            ConfigError(
                "a run is named that is not needed",
                where="runs",
                expected=f"runs of {', '.join(of_runs)}" if of_runs else "none: --predictions has every task",
                found=", ".join(unused),
                remedy="leave it out, or else the file that --predictions names for its task; --tasks says which tasks",
            )
        )
    for task in tasks:
        if task in of_runs and lost and not any(task in run.tasks for run in named):
            continue  # its run may be the one that was not found
        try:
            if task in of_runs:
                one = _of_run(task, named, runs.runs_dir, any_rows, options)
            else:
                one = _of_file(task, files[task])
            lines_of_file(one, any_rows=any_rows)
            predicted.append(one)
        except PipelineError as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else RunError("\n".join(map(str, problems)))
    written = write_submission(to, predicted, any_rows=any_rows, force=force)
    result = {"file": str(to), "tasks": written}
    print_result(result, json, _shown)


def _shown(result: dict[str, Any]) -> "ShownTable":
    from rich.text import Text

    lines = [{**each, "predicted 1": each["ones"]} for each in result["tasks"]]
    shown = columns(lines, ("task", "file", "rows", "predicted 1", "origin"))
    shown.title, shown.title_justify = Text(printable(f"written: {result['file']}")), "left"
    return shown


def _files(predictions: tuple[str, ...], tasks: tuple[str, ...]) -> dict[str, Path]:
    """Files of predictions by task."""
    found = {}
    for text in predictions:
        task, sign, path = text.partition("=")
        if not sign or task not in tasks or task in found:
            raise ConfigError(
                "this names no task's predictions",
                where="predictions",
                expected=f"<task>=<file>, for each of {', '.join(tasks)} once",
                found=text,
            )
        found[task] = Path(path)
    return found


def _named(chosen: tuple[str, ...], runs_dir: Path) -> "tuple[list[Run], list[PipelineError]]":
    """The runs that are named, each once, and what is wrong with the other names."""
    from pipeline.results.ledger import find_run, read_run

    found: dict[Path, Run] = {}
    problems: list[PipelineError] = []
    for name in chosen:
        try:
            folder = find_run(runs_dir, name)
            found[folder] = read_run(folder)
        except PipelineError as error:
            problems.append(error)
    return list(found.values()), problems


def _of_file(task: str, path: Path) -> "Predicted":
    import numpy as np

    from pipeline.results.submission import Predicted
    from pipeline.tasks.tables import read_table

    if not path.exists():
        raise DataError(
            f"{task}: there is no such file of predictions",
            where=path,
            remedy=f"check the name; pipeline predict RUN --file test.tsv --to {shlex.quote(str(path))} writes one, "
            f"of a run of {task}",
        )
    table = read_table(path)
    _check_labels(task, table)
    numbers = {}
    for name in ("index", "prediction"):
        values = table.column(name, "write the file with pipeline predict --file test.tsv --to FILE, without --prefix")
        for line, value in zip(table.lines, values, strict=True):
            if not str(value).isdecimal() or len(str(value)) > DIGITS:
                raise DataError(
                    f"{name}: this is no whole number, or too large",
                    where=f"{path}, row {line}",
                    found=repr(value)[:80],
                )
        numbers[name] = np.array([int(str(value)) for value in values], dtype=np.int64)
    return Predicted(task, str(path), numbers["index"], numbers["prediction"])


def _check_labels(task: str, table: "Table") -> None:
    """Refuse predictions of another task, where the file says what was predicted."""
    from pipeline.tasks.spec import BUILT_IN

    labels = BUILT_IN[task].labels
    of_columns = [name.removeprefix(PROBABILITY) for name in table.columns if name.startswith(PROBABILITY)]
    of_rows = set(map(str, table.columns.get("label", ()))) - {*map(str, range(-1, len(labels))), "", "None"}
    if (of_columns and set(of_columns) != set(labels)) or not of_rows <= set(labels):
        raise DataError(
            f"{task}: the file has predictions of another task",
            where=table.path,
            expected=", ".join(labels),
            found=", ".join(sorted(of_rows - set(labels))[:5] or of_columns),
            remedy=f"name a file that pipeline predict wrote with a run of {task}",
        )


def _of_run(task: str, named: "Sequence[Run]", runs_dir: Path, any_rows: bool, options: str) -> "Predicted":
    from pipeline.progress import say
    from pipeline.results.best_runs import best_run
    from pipeline.results.ledger import read_run
    from pipeline.results.submission import OF_GLUE, predictions_of

    of_task = [run for run in named if task in run.tasks]
    if named and len(of_task) != 1:
        raise RunError(
            f"{task}: exactly one of the runs must be of it",
            where="runs",
            expected="one run of each task, or one of both",
            found=", ".join(run.run for run in of_task) or "none",
            remedy=f"name one run of it, or leave the task out: --tasks with the others, without {task}",
        )
    if not named:
        name, why = best_run(runs_dir, task, data=() if any_rows else OF_GLUE)
        say(f"{task}: {name}: {why}")
        of_task = [read_run(runs_dir / name)]
    return predictions_of(runs_dir / of_task[0].run, of_task[0], task, any_rows=any_rows, options=options)
