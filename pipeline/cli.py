"""The commands. A room is imported inside the command that needs it, so that `pipeline --help` answers at once."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml

from pipeline import __version__
from pipeline.config import (
    BackboneConfig,
    CacheConfig,
    DataConfig,
    ExtractConfig,
    FetchConfig,
    HeadsConfig,
    PassConfig,
    RunsConfig,
    TokensConfig,
)
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def _show_default(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


Flat = Parameter(name="*")
Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON on standard output, and nothing else.")]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask.")]
LISTS = Parameter(consume_multiple=True, negative_iterable=(), show_default=_show_default)

app = App(
    name="pipeline",
    help="Read a corpus once with a frozen, quantised LLM; train heads on the cached hidden states.",
    version=__version__,
    default_parameter=LISTS,
)
cache_app = App(name="cache", help="Look into the feature cache.", default_parameter=LISTS)
runs_app = App(name="runs", help="Look into the ledger of runs.", default_parameter=LISTS)
app.command(cache_app)
app.command(runs_app)


def main() -> None:
    """Run the command line: trouble that a user can mend ends with its message and exit code 2."""
    # Threads that wait must sleep: spinning, they stall each other as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app.config = []
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (PipelineError, CycloptsError) as error:
        print(f"pipeline: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pipeline: stopped; the same command goes on from what is whole", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a folder that may not be read, a disk that is full
        print(f"pipeline: {error.strerror or error}\n  where: {error.filename or 'not said'}", file=sys.stderr)
        sys.exit(2)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(name="--config")] = None,
) -> None:
    """Take settings from a TOML file too.

    Args:
        config: a TOML file with a table for each command, such as [extract] or [heads]; the command line wins.
    """
    if config is not None and not config.is_file():
        raise ConfigError(
            "the settings file is not there",
            where=config,
            expected="a TOML file with a table for each command, such as [extract] and [heads]",
            remedy="check the path, or leave --config out",
        )
    if config is not None:
        app.config = [_toml(config)]
    app(tokens, exit_on_error=False, print_error=False)


def _toml(path: Path) -> Toml:
    import tomllib

    try:
        tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError("the settings file is not TOML", where=path, found=error) from error
    return Toml(path, must_exist=True, search_parents=False)


def _print(result: Any, as_json: bool, for_people: Callable[[Any], "Table | Text | str"]) -> None:
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(for_people(result))


def _columns(rows: Iterable[dict[str, Any]], names: tuple[str, ...]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in names))  # a value is text, never markup
    return table


@app.command
def data(
    *,
    tasks: tuple[str, ...] = ("cola", "sst2"),
    data: Annotated[FetchConfig, Flat] = FetchConfig(),
    json: Json = False,
) -> None:
    """Fetch GLUE from the Hub into a GLUE folder, or with --data glue check the folder that is there."""
    from pipeline.tasks.fetch import check_or_fetch

    result = check_or_fetch(tasks, data)
    _print(result, json, lambda rows: _columns(rows, ("task", "split", "rows", "labels", "origin")))


@app.command
def extract(
    *,
    what: Annotated[ExtractConfig, Flat] = ExtractConfig(),
    data: Annotated[DataConfig, Flat] = DataConfig(),
    backbone: Annotated[BackboneConfig, Flat] = BackboneConfig(),
    tokens: Annotated[TokensConfig, Flat] = TokensConfig(),
    passes: Annotated[PassConfig, Flat] = PassConfig(),
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    json: Json = False,
) -> None:
    """Stage one: run the frozen backbone once over the corpora and write its hidden states to the cache."""
    try:
        from pipeline.extract.run import extract as run
    except ModuleNotFoundError as error:
        raise _missing(error, "extract") from error
    result = run(what, data, backbone, tokens, passes, cache)
    _print(
        result, json, lambda rows: _columns(rows, ("task", "split", "name", "rows", "tokens", "truncated", "status"))
    )


@app.command
def heads(
    *,
    what: Annotated[HeadsConfig, Flat] = HeadsConfig(),
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """Stage two: train heads on cached features, and print their scores on validation."""
    from pipeline.heads.train import train_heads
    from pipeline.results.table import runs_table
    from pipeline.tasks.spec import find_tasks

    done = train_heads(what, cache, runs)
    metrics = {task.name: task.metric for task in find_tasks(what.tasks, what.task_files)}
    _print([run.to_dict() for run in done], json, lambda _: runs_table(done, metrics))


@cache_app.command(name="ls")
def cache_ls(
    *,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    json: Json = False,
) -> None:
    """List the feature sets: rows, size, age, and how many runs use each; also what is unfinished or damaged."""
    from pipeline.housekeeping.feature_sets import feature_sets
    from pipeline.housekeeping.tables import feature_sets_table

    _print(feature_sets(cache.cache_dir, runs.runs_dir), json, feature_sets_table)


@cache_app.command(name="diff")
def cache_diff(a: str, b: str, /, *, cache: Annotated[CacheConfig, Flat] = CacheConfig(), json: Json = False) -> None:
    """Show in which fields two feature sets differ: of their identity, and of what is recorded beside it.

    Args:
        a: a feature set's folder name, the beginning of its fingerprint, or task/split/name.
        b: another.
    """
    from rich.text import Text

    from pipeline.cache.compare import compare
    from pipeline.cache.inventory import find_whole

    found = compare(*(find_whole(cache.cache_dir, name)[1] for name in (a, b)))
    _print(found.to_dict(), json, lambda _: Text(found.to_text()))


@cache_app.command(name="rm")
def cache_rm(
    *names: str,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    force: Annotated[bool, Parameter(help="Also those that runs refer to.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove feature sets for good; those that runs refer to only with --force.

    Args:
        names: their folders' names, the beginnings of their fingerprints, or task/split/name.
    """
    from pipeline.housekeeping.feature_sets import remove_feature_sets
    from pipeline.housekeeping.tables import feature_sets_table

    if not names:
        raise ConfigError("which feature set is to go was not said", expected="a name", remedy="pipeline cache ls")
    if not yes and not sys.stdin.isatty():
        raise ConfigError("there is nobody to ask whether to remove this", where="standard input", remedy="say --yes")
    ask = _agree if yes else _ask
    gone = remove_feature_sets(names, cache.cache_dir, runs.runs_dir, force=force, ask=ask)
    _print(gone, json, lambda rows: feature_sets_table(rows, "removed") if rows else "nothing was removed")


@cache_app.command(name="gc")
def cache_gc(
    *,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[RunsConfig, Flat] = RunsConfig(),
    models_dir: Annotated[Path, Parameter(help="Where the embedded backbone is.")] = BackboneConfig().models_dir,
    dry_run: Annotated[bool, Parameter(help="Only say what would be removed.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove what is not whole: what dead writers left in the cache and beside runs and models, and unfinished sets.

    Unfinished feature sets hold work that pipeline extract would go on from: they go where you agree, or with --yes.
    """
    from pipeline.housekeeping.leftovers import collect_leftovers, find_leftovers
    from pipeline.housekeeping.tables import leftovers_table

    ask = _agree if yes else (_ask if sys.stdin.isatty() else _nobody)
    leftovers = find_leftovers(cache.cache_dir, runs.runs_dir, models_dir)
    _print(collect_leftovers(leftovers, dry_run=dry_run, ask=ask), json, leftovers_table)


def _agree(question: str) -> bool:
    return True


def _nobody(question: str) -> bool:
    return False


def _ask(question: str) -> bool:
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@cache_app.command(name="show")
def cache_show(name: str, /, *, cache: Annotated[CacheConfig, Flat] = CacheConfig(), json: Json = False) -> None:
    """Show a feature set's manifest: identity, what was found while writing, versions.

    Args:
        name: its folder's name, the beginning of its fingerprint, or task/split/name.
    """
    from pipeline.cache import FeatureCache
    from pipeline.cache.identity import flatten

    manifest = FeatureCache(cache.cache_dir).open_folder(name).manifest.to_dict()
    _print(
        manifest,
        json,
        lambda record: _columns(({"field": k, "value": v} for k, v in flatten(record).items()), ("field", "value")),
    )


@runs_app.command(name="ls")
def runs_ls(*, runs: Annotated[RunsConfig, Flat] = RunsConfig(), json: Json = False) -> None:
    """List all runs with their scores on validation."""
    from pipeline.results.ledger import read_runs
    from pipeline.results.table import runs_table
    from pipeline.tasks.spec import BUILT_IN

    done = read_runs(runs.runs_dir)
    metrics = {task.name: task.metric for task in BUILT_IN.values()}
    _print([run.to_dict() for run in done], json, lambda _: runs_table(done, metrics))


@runs_app.command(name="show")
def runs_show(name: str, /, *, runs: Annotated[RunsConfig, Flat] = RunsConfig(), json: Json = False) -> None:
    """Show a run's whole record.

    Args:
        name: the run's name, or its beginning.
    """
    from pipeline.cache.identity import flatten
    from pipeline.results.ledger import find_run, read_run

    record = read_run(find_run(runs.runs_dir, name)).to_dict()
    _print(
        record,
        json,
        lambda run: _columns(({"field": k, "value": v} for k, v in flatten(run).items()), ("field", "value")),
    )


def _missing(error: ModuleNotFoundError, extra: str) -> PipelineError:
    from pipeline.errors import MissingPackage

    if error.name and not error.name.startswith("pipeline"):
        return MissingPackage(error.name, extra)
    raise error
