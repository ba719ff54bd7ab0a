"""A share of the shards, as array jobs name theirs: `2::8` is the third of eight, shards 2, 10, 18 and so on."""

import re
from dataclasses import dataclass

from pipeline.errors import ConfigError

WRITTEN = re.compile(r"(\d{1,9})(?:::(\d{1,9}))?")


@dataclass(frozen=True)
class ShardChoice:
    """Every `step`-th shard from `first` on.

    Args:
        first: the first shard's number, from 0, less than `step`.
        step: how many shares there are.
    """

    first: int = 0
    step: int = 1

    def __contains__(self, number: int) -> bool:
        return number % self.step == self.first

    def __str__(self) -> str:
        return f"{self.first}::{self.step}"


ALL_SHARDS = ShardChoice()


def parse_choice(text: str | None) -> ShardChoice:
    """Read a share as people write it; None is all shards.

    Raises:
        ConfigError: it is none.
    """
    if text is None:
        return ALL_SHARDS
    match = WRITTEN.fullmatch(text)
    first, step = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    if not match or first >= step:
        raise ConfigError(
            "this is no share of the shards",
            where="only_shards",
            expected="i::n, i from 0 to n - 1: every n-th shard from shard i on; the third of eight jobs takes 2::8",
            found=repr(text),
        )
    return ShardChoice(first, step)
