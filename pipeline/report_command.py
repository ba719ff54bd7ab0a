"""`pipeline report`: all runs as one HTML page. A room is imported inside the command that needs it."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from pipeline.config import CacheConfig, LedgerConfig
from pipeline.terminal import LISTS, Flat, Json, columns, missing_package, print_result

report_app = App(name="report", usage="Usage: pipeline report [FILE] [OPTIONS]", default_parameter=LISTS)


@report_app.default
def report(
    file: Path | None = None,
    /,
    *,
    runs: Annotated[tuple[str, ...], Parameter(name="--runs")] = (),
    tasks: tuple[str, ...] = (),
    data: tuple[str, ...] = (),
    ledger: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    json: Json = False,
) -> None:
    """Write all runs as one HTML page that needs no network: leaderboards, figures, searchable sentences.

    Example: `pipeline report report.html`

    Args:
        file: what to write; by default report.html beside the runs. An earlier report is replaced, nothing else.
        runs: names of runs, or parts of them, to show in detail; by default the best of every kind of each
            task and its data.
        tasks: of these tasks alone.
        data: of runs on these sources of data alone: glue, sample, hub, or a folder of one's own.
    """
    from pipeline.results.report.gather import gather
    from pipeline.results.report.writing import write_report

    features = features_at_hand(cache.cache_dir)
    gathered = gather(
        ledger.runs_dir, chosen=runs, tasks=tasks, data=data, labels=labels_of(features), features=features
    )
    try:
        found = write_report(file or ledger.runs_dir / "report.html", gathered)
    except ModuleNotFoundError as error:
        raise missing_package(error, "report") from error
    print_result(found, json, lambda one: columns([_named(one)], ("file", "bytes", "runs", "in detail", "data")))


def _named(said: dict[str, Any]) -> dict[str, Any]:
    """What was written, for people."""
    return {**said, "in detail": said["detailed"], "data": "\n".join(said["corpora"])}


def features_at_hand(cache_dir: Path) -> dict[str, dict[str, Any]]:
    """What is known of the feature sets that are at hand, by fingerprint; those that are damaged are left out."""
    from pipeline.cache.inventory import list_entries

    found = {}
    for entry in list_entries(cache_dir) if cache_dir.is_dir() else []:
        manifest = entry.manifest
        if manifest is not None:
            record = manifest.to_dict()
            kept = ("task", "split", "backbone", "rows", "source", "identity", "passport", "recorded", "labels")
            found[manifest.fingerprint] = {"name": manifest.name, **{name: record[name] for name in kept}}
    return found


def labels_of(features: dict[str, dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The classes' names of each task: what its features say, else those of the built-in tasks."""
    from pipeline.tasks.spec import BUILT_IN

    of_features = {record["task"]: tuple(record["labels"]) for record in features.values()}
    return {task.name: task.labels for task in BUILT_IN.values()} | of_features
