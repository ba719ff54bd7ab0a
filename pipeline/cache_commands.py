"""The commands of `pipeline cache`. A room is imported inside the command that needs it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from pipeline.config import BackboneConfig, CacheConfig, LedgerConfig, TransferConfig
from pipeline.errors import CacheError, ConfigError, PipelineError
from pipeline.terminal import (
    LISTS,
    Flat,
    Json,
    Yes,
    agree,
    ask,
    missing_package,
    nobody,
    print_list,
    print_result,
    why_empty,
)

if TYPE_CHECKING:
    from rich.table import Table

cache_app = App(
    name="cache",
    help="Look into the feature cache, and look after it.\n\nExample: `pipeline cache ls`",
    default_parameter=LISTS,
)


@cache_app.command(name="ls")
def cache_ls(
    *,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """List the feature sets: rows, size, age, and how many runs use each; also what is unfinished or damaged.

    Example: `pipeline cache ls --json`
    """
    from pipeline.housekeeping.feature_sets import feature_sets
    from pipeline.housekeeping.tables import feature_sets_table

    why = why_empty(cache.cache_dir, f"no feature set in {cache.cache_dir} yet: pipeline extract writes some")
    print_list(feature_sets(cache.cache_dir, runs.runs_dir), json, feature_sets_table, why)


@cache_app.command(name="diff")
def cache_diff(a: str, b: str, /, *, cache: Annotated[CacheConfig, Flat] = CacheConfig(), json: Json = False) -> None:
    """Show in which fields two feature sets differ: of their identity, and of what is recorded beside it.

    Example: `pipeline cache diff bf76790f7e44 c98461af03f4`

    Args:
        a: a feature set's folder name, the beginning of its fingerprint, or task/split/name.
        b: another.
    """
    from pipeline.cache.compare import compare
    from pipeline.cache.inventory import find_whole
    from pipeline.housekeeping.tables import comparison_tables

    found = compare(*(find_whole(cache.cache_dir, name)[1] for name in (a, b)))
    print_result(found.to_dict(), json, lambda _: comparison_tables(found))


@cache_app.command(name="rm")
def cache_rm(
    *names: str,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    force: Annotated[bool, Parameter(help="Also those that runs refer to.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove feature sets for good; those that runs refer to only with --force.

    Example: `pipeline cache rm bf76790f7e44 --yes`

    Args:
        names: their folders' names, the beginnings of their fingerprints, or task/split/name.
    """
    from pipeline.housekeeping.feature_sets import remove_feature_sets
    from pipeline.housekeeping.tables import feature_sets_table

    if not names:
        raise ConfigError("which feature set is to go was not said", expected="a name", remedy="pipeline cache ls")
    answer = agree if yes else ask if sys.stdin.isatty() else _refuse_to_ask
    gone = remove_feature_sets(names, cache.cache_dir, runs.runs_dir, force=force, ask=answer)
    print_result(gone, json, lambda rows: feature_sets_table(rows, "removed") if rows else "nothing was removed")


def _refuse_to_ask(question: str) -> bool:
    raise ConfigError("there is nobody to ask", where="standard input", found=question, remedy="say --yes")


@cache_app.command(name="gc")
def cache_gc(
    *,
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    models_dir: Annotated[Path, Parameter(help="Where the embedded backbone is.")] = BackboneConfig().models_dir,
    local_copies: Annotated[
        bool,
        Parameter(help="Also remove what is here of sets that are whole at a store: it comes again when it is read."),
    ] = False,
    dry_run: Annotated[bool, Parameter(help="Only say what would be removed.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove what is not whole: what dead writers left in the cache and beside runs and models, and unfinished sets.

    Example: `pipeline cache gc --dry-run`

    Unfinished feature sets and stopped trainings hold work that their command would go on from, and a local copy is all
    that is left where its store has gone: they go where you agree, or with --yes.
    """
    from pipeline.housekeeping.leftovers import collect_leftovers, find_leftovers
    from pipeline.housekeeping.tables import leftovers_table
    from pipeline.progress import say

    answer = agree if yes else ask if sys.stdin.isatty() else nobody
    if not cache.cache_dir.is_dir():
        say(why_empty(cache.cache_dir, ""))
    leftovers = find_leftovers(cache.cache_dir, runs.runs_dir, models_dir, local_copies=local_copies)
    print_result(collect_leftovers(leftovers, dry_run=dry_run, ask=answer), json, leftovers_table)


@cache_app.command(name="show")
def cache_show(name: str, /, *, cache: Annotated[CacheConfig, Flat] = CacheConfig(), json: Json = False) -> None:
    """Show a feature set: its passport (what was measured while writing), its identity, what is recorded beside it.

    Example: `pipeline cache show bf76790f7e44`

    Args:
        name: its folder's name, the beginning of its fingerprint, or task/split/name.
    """
    from pipeline.cache import FeatureCache
    from pipeline.housekeeping.tables import manifest_tables

    print_result(FeatureCache(cache.cache_dir).open_folder(name).manifest.to_dict(), json, manifest_tables)


@cache_app.command(name="verify")
def cache_verify(
    *names: str,
    deep: bool = False,
    canaries: bool = False,
    backbone: Annotated[BackboneConfig, Flat] = BackboneConfig(),
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    lock_timeout: float = 60.0,
    json: Json = False,
) -> None:
    """Look for damage: it is named and taken out of use, and the same pipeline extract writes just that again.

    Example: `pipeline cache verify --deep`

    Args:
        names: folders' names, beginnings of fingerprints, or task/split/name; by default all, unfinished ones too.
        deep: read every byte: SHA-256, structure, index against shard, finite values.
        canaries: compute some rows again, with the backbone that --backbone and its companions name.
        lock_timeout: seconds to wait for a process that is writing a damaged feature set.
    """
    from pipeline.cache.inventory import find_entry, list_entries
    from pipeline.cache.verify import damaged, verify_feature_set
    from pipeline.housekeeping.tables import sets_in_columns
    from pipeline.progress import say

    if not cache.cache_dir.is_dir():
        raise CacheError("there is no such cache", where=cache.cache_dir, expected="a folder of feature sets")
    there = [entry for entry in list_entries(cache.cache_dir) if entry.is_called_as_a_set or entry.link]
    entries = [find_entry(cache.cache_dir, name) for name in names] if names else there
    reports = []
    for entry in entries:
        reports.append(verify_feature_set(entry.folder, deep=deep))
        if reports[-1].damages:  # a deep look at a large cache takes long: what is wrong need not wait for its end
            say(f"{entry.place}: damaged")
    trouble = None
    if canaries:
        try:
            from pipeline.extract.recheck import recheck
        except ModuleNotFoundError as error:
            raise missing_package(error, "extract") from error
        try:
            reports += recheck([report.folder for report in reports if report.status == "sound"], backbone)
        except PipelineError as error:  # what was found until then is said all the same
            trouble = error
    if trouble is not None and not any(report.damages for report in reports):
        raise trouble
    for report in reports:
        try:
            report.set_aside(timeout=lock_timeout)
        except CacheError as error:
            say(f"{report.folder.name} is not taken out of use: {error}")
    names = ("task", "split", "name", "shards", "status")
    why = f"no feature set in {cache.cache_dir}"
    print_list([report.to_dict() for report in reports], json, lambda rows: sets_in_columns(rows, names), why)
    if any(report.damages for report in reports):
        raise damaged(reports)


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

    Example: `pipeline cache push user@host:project/data/cache --tasks cola`

    Args:
        remote: a folder, user@host:folder (rsync), or a URL: rsync://, sftp://, s3://, hf://, file://, any of fsspec.
        names: folder names of feature sets, or beginnings of their fingerprints; by default all.
        verify: read the bytes back, also of what was there already.
    """
    from pipeline.cache.transfer import push

    result = push(remote, names, what, cache.cache_dir, verify=verify)
    print_result(result, json, _transfers_table)


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

    Example: `pipeline cache pull s3://bucket/caches`

    Args:
        remote: as of push.
        names: folder names of feature sets, or beginnings of their fingerprints; by default all.
    """
    from pipeline.cache.transfer import pull

    print_result(pull(remote, names, what, cache.cache_dir), json, _transfers_table)


def _transfers_table(records: Sequence[dict[str, Any]]) -> "Table":
    from pipeline.housekeeping.tables import sets_in_columns

    names = ("task", "split", "name", "files", "bytes", "sent", "skipped", "status")
    return sets_in_columns(records, names, dispensable=("files", "skipped", "bytes"))
