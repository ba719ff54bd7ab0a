"""Who computes the shards of stage one: this process, a share of array jobs, or the workers of a cluster."""

from dataclasses import dataclass

from pipeline.config import raise_problems
from pipeline.errors import ConfigError
from pipeline.shard_choice import parse_choice


@dataclass(frozen=True)
class ShareConfig:
    """Which share of the shards this process computes, as jobs of a batch queue have theirs.

    Args:
        only_shards: `i::n`: every n-th shard from shard i on, as one of n array jobs; the manifest is then left to
            `--finish`. By default all shards, and the manifest.
        finish: compute nothing; where all shards are sealed, write the manifest, else say which are missing.
    """

    only_shards: str | None = None
    finish: bool = False

    def __post_init__(self) -> None:
        problems = []
        try:
            parse_choice(self.only_shards)
        except ConfigError as error:
            problems.append(f"only_shards: expected {error.expected}, found {error.found}")
        if self.finish and self.only_shards is not None:
            problems.append("finish: it is of all shards, and goes without --only-shards")
        raise_problems(problems)
