"""Which lines of the ledger, and in which order."""

import datetime
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError, did_you_mean
from pipeline.progress import counted
from pipeline.results.lines import SCHEMA
from pipeline.runs_config import LinesConfig

CONDITION = re.compile(r"(?P<column>\w+)(?P<sign><=|>=|!=|=|<|>)(?P<value>.*)")
SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
HIGH_FIRST = ("score", "low", "high", "held_out", "mcc", "accuracy", "balanced_accuracy", "f1", "auroc")
"""Columns of which the best is the highest."""


def choose_lines(ledger: pa.Table, config: LinesConfig) -> pa.Table:
    """The lines that fulfil every condition, sorted, or the newest of them.

    Args:
        ledger: of `SCHEMA`.

    Raises:
        ConfigError: there is no such column, or a value is none of it.
    """
    wheres = [_condition(text) for text in config.where]
    sort = _column(config.sort, "sort")
    since = None if config.since is None else _day(config.since)

    def fits(line: Mapping[str, Any]) -> bool:
        return (
            (not config.tasks or line["task"] in config.tasks)
            and (not config.heads or line["head"] in config.heads)
            and (since is None or line["created"] >= since)
            and all(line[column] is not None and test(line[column], value) for column, test, value in wheres)
        )

    lines = [line for line in ledger.to_pylist() if fits(line)]
    known = [line for line in lines if line[sort] is not None]
    known.sort(key=operator.itemgetter(sort), reverse=(sort in HIGH_FIRST) != config.reverse)
    lines = [*known, *(line for line in lines if line[sort] is None)]
    if config.last:
        created = {line["run"]: line["created"] for line in lines}
        newest = sorted(created, key=lambda run: created[run])[-config.last :]
        lines = [line for line in lines if line["run"] in newest]
    return pa.Table.from_pylist(lines, SCHEMA)


def why_none(ledger: pa.Table, config: LinesConfig) -> str:
    """Why no line of a ledger was chosen: a task or head that it does not have, or conditions that none fulfils."""
    for what, names in (("task", config.tasks), ("head", config.heads)):
        known = sorted({name for name in ledger[what].to_pylist() if name is not None})
        unknown = [name for name in names if name not in known]
        if unknown and len(unknown) == len(names):
            question = did_you_mean(unknown[0].lower(), known, cutoff=0.5)
            there = f"no run has the {what} {' or '.join(unknown)}: the ledger has {', '.join(known)}"
            return f"{there}; {question}" if question else there
    return f"none of the {counted(ledger.num_rows, 'line')} of the ledger fulfils all of this"


def _condition(text: str) -> tuple[str, Callable[[Any, Any], bool], Any]:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(
            "this is no condition", where="where", expected="such as seed=3, score>=0.4 or backbone!=…", found=text
        )
    column = _column(match["column"], "where")
    return column, SIGNS[match["sign"]], _value(column, match["value"])


def _column(name: str, where: str) -> str:
    if name not in SCHEMA.names:
        raise ConfigError(
            "the ledger has no such column",
            where=where,
            expected=" | ".join(SCHEMA.names),
            found=name,
            remedy=did_you_mean(name, SCHEMA.names),
        )
    return name


def _value(column: str, text: str) -> Any:
    kind = SCHEMA.field(column).type
    try:
        if pa.types.is_timestamp(kind):
            return _day(text)
        return text if pa.types.is_string(kind) else pa.scalar(text).cast(kind).as_py()
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError("the column has no such value", where=column, expected=str(kind), found=text) from error


def _day(text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError("this is no time", expected="such as 2026-11-26 or 2026-11-26T18:00", found=text) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.UTC)
