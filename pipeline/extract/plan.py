"""The plan of stage one: what is left of every split, what it takes, and what was assumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.extract.estimate import NOTHING, Estimate
from pipeline.extract.forecast import PassForecast, SplitForecast
from pipeline.extract.speed import Speed


@dataclass(frozen=True)
class Disk:
    """The room for what is left.

    Args:
        folder: where it will stand.
        needed_bytes: at most, before compression; of a store, what stays here at a time.
        free_bytes: there.
    """

    folder: Path
    needed_bytes: Estimate
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Whether it does, as far as it was estimated."""
        return self.needed_bytes.value <= self.free_bytes


def room_needed(passes: Sequence[PassForecast], limit_bytes: int | None) -> Estimate:
    """What the disk takes of some passes.

    Args:
        limit_bytes: how much of a store stays here beside the shard that is being written; None is all.
    """
    sizes = [each.raw_bytes.along(each.beside_bytes) for each in passes]
    needed = sum(sizes, NOTHING)
    if limit_bytes is None or not sizes:
        return needed
    largest = max(size.value / each.shards for size, each in zip(sizes, passes, strict=True))
    limited = limit_bytes + largest
    return needed if needed.value <= limited else Estimate(limited)


@dataclass(frozen=True)
class Amount:
    """What some passes come to, together.

    Args:
        rows, looked_at, shards: of the passes.
        tokens, own_tokens, computed_tokens: as of a pass.
        view_bytes: of hidden states, by view.
        raw_bytes, beside_bytes: of all views.
        seconds: by the clock, of all workers together; None where no speed is known.
        device_seconds: of one worker after the other; alike.
    """

    rows: int
    looked_at: int
    shards: int
    tokens: Estimate
    own_tokens: Estimate
    computed_tokens: Estimate
    view_bytes: dict[str, Estimate]
    raw_bytes: Estimate
    beside_bytes: Estimate
    seconds: Estimate | None
    device_seconds: Estimate | None

    @classmethod
    def of(cls, passes: Sequence[PassForecast], speed: Speed | None, workers: int) -> "Amount":
        """What they come to.

        Args:
            speed: of one worker.
            workers: that shards are shared among.
        """
        view_bytes: dict[str, Estimate] = {}
        for view in (view for each in passes for view in each.views):
            name = str(view.view)
            view_bytes[name] = view_bytes.get(name, NOTHING) + view.raw_bytes
        shards = sum(each.shards for each in passes)
        device_seconds = None
        if speed is not None:
            taken = [each.computed_tokens.times(speed.seconds(1.0, each.blocks)) for each in passes]
            device_seconds = sum(taken, NOTHING)
        at_once = min(workers, max(1, shards))
        return cls(
            rows=sum(each.rows for each in passes),
            looked_at=sum(each.looked_at for each in passes),
            shards=shards,
            tokens=sum((each.tokens for each in passes), NOTHING),
            own_tokens=sum((each.own_tokens for each in passes), NOTHING),
            computed_tokens=sum((each.computed_tokens for each in passes), NOTHING),
            view_bytes=view_bytes,
            raw_bytes=sum((each.raw_bytes for each in passes), NOTHING),
            beside_bytes=sum((each.beside_bytes for each in passes), NOTHING),
            seconds=None if device_seconds is None else device_seconds.times(1 / at_once),
            device_seconds=device_seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """The amount as a JSON object; an estimate is `<name>` and, half its interval of 95 %, `<name>_error`."""
        hours = None if self.device_seconds is None else self.device_seconds.times(1 / 3600)
        return {
            "rows_left": self.rows,
            "rows_looked_at": self.looked_at,
            "shards_left": self.shards,
            **_whole("tokens", self.tokens),
            **_whole("own_tokens", self.own_tokens),
            **_whole("computed_tokens", self.computed_tokens),
            **_whole("raw_bytes", self.raw_bytes),
            "raw_bytes_by_view": {name: round(each.value) for name, each in self.view_bytes.items()},
            **_whole("beside_bytes", self.beside_bytes),
            **_parted("seconds", self.seconds),
            **_parted("device_hours", hours),
        }


def _whole(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: round(estimate.value), f"{name}_error": round(estimate.error)}


def _parted(name: str, estimate: Estimate | None) -> dict[str, Any]:
    value, error = (None, None) if estimate is None else (estimate.value, estimate.error)
    return {name: value, f"{name}_error": error}


@dataclass(frozen=True)
class Plan:
    """What stage one would do.

    Args:
        splits: in the order in which they would be computed.
        speed: of one worker; None where nobody knows it.
        device: that is planned for, `cpu`, `cuda` or `cuda:1`.
        workers: of a cluster; 1 is this process, or a share of array jobs.
        disk: the room.
        notes: what else a person should know.
    """

    splits: tuple[SplitForecast, ...]
    speed: Speed | None
    device: str
    workers: int
    disk: Disk
    notes: tuple[str, ...]

    def amount(self, split: SplitForecast) -> Amount:
        """What is left of a split."""
        return Amount.of(split.passes, self.speed, self.workers)

    @property
    def total(self) -> Amount:
        """What is left in all."""
        return Amount.of([each for split in self.splits for each in split.passes], self.speed, self.workers)

    def to_dict(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return {
            "splits": [
                {
                    "task": each.task,
                    "split": each.split,
                    "rows": each.rows,
                    "views": each.views,
                    "whole_views": each.whole_views,
                    "shards": each.shards,
                    "whole_shards": each.whole_shards,
                    **self.amount(each).to_dict(),
                }
                for each in self.splits
            ],
            "total": self.total.to_dict(),
            "speed": None if self.speed is None else self.speed.to_dict(),
            "device": self.device,
            "workers": self.workers,
            "disk": {
                "folder": str(self.disk.folder),
                **_whole("needed_bytes", self.disk.needed_bytes),
                "free_bytes": self.disk.free_bytes,
                "fits": self.disk.fits,
            },
            "notes": list(self.notes),
        }
