"""`pipeline runs`: the ledger. A room is imported inside the command that needs it."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pipeline.config import LedgerConfig
from pipeline.runs_config import LinesConfig
from pipeline.terminal import LISTS, Flat, Json, columns, print_list, print_result, why_empty

NO_RUN = "no run in {} yet: pipeline heads trains some, on features of pipeline extract"

runs_app = App(
    name="runs",
    help="Look into the ledger of runs.\n\nExample: `pipeline runs ls --sort score`",
    default_parameter=LISTS,
)


@runs_app.command(name="ls")
def runs_ls(
    *,
    which: Annotated[LinesConfig, Flat] = LinesConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """List runs with their scores on validation.

    Example: `pipeline runs ls --tasks cola --where "score>=0.4" --sort score`
    """
    from pipeline.results.choosing import choose_lines, why_none
    from pipeline.results.ledger import read_run
    from pipeline.results.lines import read_ledger
    from pipeline.results.table import runs_table

    ledger = read_ledger(runs.runs_dir)
    chosen = choose_lines(ledger, which)
    names = [*dict.fromkeys(chosen["run"].to_pylist())]
    records = [read_run(runs.runs_dir / name).to_dict() for name in names] if json else names
    why = why_none(ledger, which) if ledger.num_rows else why_empty(runs.runs_dir, NO_RUN.format(runs.runs_dir))
    print_list(records, json, lambda _: runs_table(chosen, ledger["run"].unique().to_pylist()), why)


@runs_app.command(name="export")
def runs_export(
    file: Path,
    /,
    *,
    which: Annotated[LinesConfig, Flat] = LinesConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    force: bool = False,
    json: Json = False,
) -> None:
    """Write runs to a CSV, Parquet or Markdown file.

    Example: `pipeline runs export cola.csv --tasks cola --sort score`

    Args:
        file: ends in .csv, .parquet or .md, which says what is written.
        force: overwrite a file that is there.
    """
    from pipeline.progress import say
    from pipeline.results.choosing import choose_lines, why_none
    from pipeline.results.export import export_lines
    from pipeline.results.lines import read_ledger

    ledger = read_ledger(runs.runs_dir)
    chosen = choose_lines(ledger, which)
    if not chosen.num_rows:
        why = why_none(ledger, which) if ledger.num_rows else why_empty(runs.runs_dir, NO_RUN.format(runs.runs_dir))
        say(why)
    export_lines(chosen, file, overwrite=force)
    result = [{"file": str(file), "lines": chosen.num_rows}]
    print_result(result, json, lambda rows: columns(rows, ("file", "lines")))


@runs_app.command(name="compare")
def runs_compare(
    first: str,
    second: str,
    /,
    *others: str,
    metric: str | None = None,
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """Compare runs' scores on the same validation rows: is the difference more than those rows' chance?

    Example: `pipeline runs compare RUN_A RUN_B --metric accuracy`

    Args:
        first: the run's name, or any part of it that no other has.
        second: the same of the run that is held against it.
        others: more runs that are held against the first.
        metric: mcc, accuracy, balanced_accuracy, f1, auroc, log_loss or ece; each task's deciding one by default.
    """
    from rich.console import Group

    from pipeline.results.compare import COMPARISON_NOTE, compare_runs, comparison_table
    from pipeline.results.ledger import find_run

    base, *folders = [find_run(runs.runs_dir, name) for name in (first, second, *others)]
    found = [compare_runs(base, folder, metric=metric) for folder in folders]
    result = [each.to_dict() for pair in found for each in pair]
    letters = [chr(ord("B") + number) if number < 25 else f"B{number}" for number in range(len(found))]
    tables = [comparison_table(pair, letter) for pair, letter in zip(found, letters, strict=True)]
    print_result(result, json, lambda _: Group(*tables, COMPARISON_NOTE))


@runs_app.command(name="show")
def runs_show(
    name: str,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", negative="")] = False,
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """Show a run: what was trained, its scores, what it was trained on, and what its cached features saved.

    Example: `pipeline runs show RUN --all`

    Args:
        name: the run's name, or any part of it that no other has.
        every: every field of its record.
    """
    from pipeline.cache.identity import flatten
    from pipeline.results.ledger import find_run, read_run, read_runs
    from pipeline.results.run_summary import run_summary, shown_value
    from pipeline.results.savings import of_run

    folder = find_run(runs.runs_dir, name)
    run = read_run(folder)
    saved = of_run(run, read_runs(runs.runs_dir))
    record = run.to_dict() | {"saved": saved}
    fields = ({"field": name, "value": shown_value(value)} for name, value in flatten(record).items())
    print_result(
        record, json, lambda _: columns(fields, ("field", "value")) if every else run_summary(run, folder, saved)
    )


@runs_app.command(name="saved")
def runs_saved(*, runs: Annotated[LedgerConfig, Flat] = LedgerConfig(), json: Json = False) -> None:
    """Show what the cache saved: seconds in the backbone, the runs that share them, and when caching has paid off.

    Example: `pipeline runs saved`
    """
    from pipeline.results.ledger import read_runs
    from pipeline.results.savings import savings_of, savings_table

    there = read_runs(runs.runs_dir)
    found = savings_of(there)
    none = (
        f"the costs of the features of no run in {runs.runs_dir} are known" if there else NO_RUN.format(runs.runs_dir)
    )
    why = why_empty(runs.runs_dir, none)
    print_list([each.to_dict() for each in found], json, lambda _: savings_table(found), why)
