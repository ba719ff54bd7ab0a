"""`pipeline submit`: GLUE's submission files. A room is imported inside the command that needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from pipeline.config import LedgerConfig
from pipeline.errors import ConfigError, DataError, RunError
from pipeline.terminal import LISTS, Flat, Json, columns, print_result

if TYPE_CHECKING:
    from pipeline.results.submission import Predicted

submit_app = App(name="submit", default_parameter=LISTS)


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
        chosen: the runs, by name or its beginning, one for each task, or one of both; by default the best of each task
            by its score on held-out training rows.
        to: the zip.
        tasks: cola, sst2, or both.
        predictions: files that pipeline predict wrote of test.tsv, such as cola=cola.parquet, in place of a run's own.
        any_rows: take test sets that are not GLUE's, such as the sample's, to try it out.
        force: overwrite a file that is there.
    """
    from pipeline.results.submission import GLUE, write_submission

    if not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(GLUE):
        raise ConfigError("name each of GLUE's tasks once", where="tasks", expected=" | ".join(GLUE), found=tasks)
    files = _files(predictions, tasks)
    predicted, problems = [], []
    for task in tasks:
        try:
            if task in files:
                predicted.append(_of_file(task, files[task]))
            else:
                predicted.append(_of_run(task, chosen, runs.runs_dir, any_rows))
        except RunError as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else RunError("\n".join(map(str, problems)))
    written = write_submission(to, predicted, any_rows=any_rows, force=force)
    result = {"file": str(to), "tasks": written}
    print_result(result, json, lambda result: columns(result["tasks"], ("task", "file", "rows", "ones", "origin")))


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


def _of_file(task: str, path: Path) -> "Predicted":
    import numpy as np

    from pipeline.results.submission import Predicted
    from pipeline.tasks.tables import read_table

    table = read_table(path)
    numbers = {}
    for name in ("index", "prediction"):
        values = table.column(name)
        for line, value in zip(table.lines, values, strict=True):
            if not str(value).isdecimal():
                raise DataError(f"{name}: this is no whole number", where=f"{path}, row {line}", found=repr(value))
        numbers[name] = np.array([int(str(value)) for value in values], dtype=np.int64)
    return Predicted(task, str(path), numbers["index"], numbers["prediction"])


def _of_run(task: str, chosen: tuple[str, ...], runs_dir: Path, any_rows: bool) -> "Predicted":
    from pipeline.progress import say
    from pipeline.results.best_runs import best_run
    from pipeline.results.ledger import find_run, read_run
    from pipeline.results.submission import OF_GLUE, predictions_of

    if chosen:
        named = [find_run(runs_dir, name) for name in chosen]
        of_task = list(dict.fromkeys(folder for folder in named if task in read_run(folder).tasks))
        if len(of_task) != 1:
            raise RunError(
                f"{task}: one of the runs must be of it",
                where="runs",
                found=", ".join(folder.name for folder in of_task) or "none",
                remedy=f"name one run of it, or leave the task out: --tasks with the others, without {task}",
            )
        folder = of_task[0]
    else:
        name, why = best_run(runs_dir, task, data=() if any_rows else OF_GLUE)
        say(f"{task}: {name}: {why}")
        folder = runs_dir / name
    return predictions_of(folder, read_run(folder), task, any_rows=any_rows)
