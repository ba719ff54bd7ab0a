"""Settings of the commands that look into the ledger."""

from dataclasses import dataclass

from pipeline.config import raise_problems


@dataclass(frozen=True)
class LinesConfig:
    """Which lines of the ledger, and in which order.

    Args:
        tasks: of these tasks alone.
        heads: of these heads alone.
        where: conditions on any column of the ledger, such as backbone=smollm2-135m, seed=3, score>=0.4.
        since: entered at this time or later (UTC), such as 2026-11-26.
        last: only so many of the newest runs, each with all of its tasks; 0 is all.
        sort: a column of the ledger; scores stand from the best to the worst, all else rises.
        reverse: the other way round.
    """

    tasks: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    since: str | None = None
    last: int = 0
    sort: str = "created"
    reverse: bool = False

    def __post_init__(self) -> None:
        raise_problems([f"last: expected at least 0, found {self.last}"] if self.last < 0 else [])
