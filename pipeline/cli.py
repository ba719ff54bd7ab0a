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
    TransferConfig,
)
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from rich.table import Table


def _show_default(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


Flat = Parameter(name="*")
Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON on standard output, and nothing else.")]
LISTS = Parameter(consume_multiple=True, negative_iterable=(), show_default=_show_default)

app = App(
    name="pipeline",
    help="Read a corpus once with a frozen, quantised LLM; train heads on the cached hidden states.",
    version=__version__,
    default_parameter=LISTS,
    suppress_keyboard_interrupt=False,
)
cache_app = App(name="cache", help="Look into the feature cache.", default_parameter=LISTS)
runs_app = App(name="runs", help="Look into the ledger of runs.", default_parameter=LISTS)
app.command(cache_app)
app.command(runs_app)
app.meta.suppress_keyboard_interrupt = False  # main says that the same command goes on


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


def _print(result: Any, as_json: bool, for_people: Callable[[Any], "Table | str"]) -> None:
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
def cache_ls(*, cache: Annotated[CacheConfig, Flat] = CacheConfig(), json: Json = False) -> None:
    """List the whole feature sets."""
    from pipeline.cache import FeatureCache

    records = [
        {
            "task": m.task,
            "split": m.split,
            "name": m.name,
            "rows": m.rows,
            "source": m.source,
            "fingerprint": m.fingerprint,
        }
        for m in FeatureCache(cache.cache_dir).manifests()
    ]
    _print(records, json, lambda rows: _columns(rows, ("task", "split", "name", "rows", "source")))


@cache_app.command(name="show")
def cache_show(name: str, /, *, cache: Annotated[CacheConfig, Flat] = CacheConfig(), json: Json = False) -> None:
    """Show a feature set's manifest: identity, what was found while writing, versions.

    Args:
        name: its folder's name, or the beginning of its fingerprint.
    """
    from pipeline.cache import FeatureCache
    from pipeline.cache.identity import flatten

    manifest = FeatureCache(cache.cache_dir).open_folder(name).manifest.to_dict()
    _print(
        manifest,
        json,
        lambda record: _columns(({"field": k, "value": v} for k, v in flatten(record).items()), ("field", "value")),
    )


@cache_app.command(name="push")
def cache_push(
    remote: str,
    /,
    *names: str,
    what: Annotated[TransferConfig, Flat] = TransferConfig(),
    verify: bool = False,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    json: Json = False,
) -> None:
    """Copy whole feature sets to another place: what is there already is not sent again.

    Args:
        remote: a folder, user@host:folder (rsync), or a URL: rsync://, sftp://, s3://, hf://, file://, any of fsspec.
        names: folder names of feature sets, or beginnings of their fingerprints; by default all.
        verify: read the bytes back, also of what was there already.
    """
    from pipeline.cache.transfer import push

    result = push(remote, names, what, cache.cache_dir, verify=verify)
    _print(result, json, _transfers)


@cache_app.command(name="pull")
def cache_pull(
    remote: str,
    /,
    *names: str,
    what: Annotated[TransferConfig, Flat] = TransferConfig(),
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    json: Json = False,
) -> None:
    """Copy whole feature sets from another place into the cache, each file checked against its seal.

    Args:
        remote: as of push.
        names: folder names of feature sets, or beginnings of their fingerprints; by default all.
    """
    from pipeline.cache.transfer import pull

    _print(pull(remote, names, what, cache.cache_dir), json, _transfers)


def _transfers(records: Iterable[dict[str, Any]]) -> "Table":
    return _columns(records, ("task", "split", "name", "files", "bytes", "sent", "skipped", "status"))


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
