"""Who does the work of a command: this process, a cluster's workers, of stage one a share of array jobs, or nobody."""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config import raise_problems
from pipeline.errors import ConfigError
from pipeline.shard_choice import parse_choice


@dataclass(frozen=True)
class EngineConfig:
    """Whether this process does the work, or the workers of a Ray cluster.

    Args:
        engine: `local` is this process; `ray` starts workers (extra `ray`), on this machine unless `--address` names
            another cluster.
        workers: of Ray, each with `--threads`; 0 is one for each node of the cluster, or, of stage one, for each GPU
            where there are some.
        address: the Ray cluster to join, such as 10.0.0.1:6379, or auto for the one that runs here; all its nodes see
            the cache and, for stage one, the models under the same paths.
    """

    engine: Literal["local", "ray"] = "local"
    workers: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.workers < 0:
            problems.append(f"workers: expected at least 0, found {self.workers}")
        if self.engine == "local":
            given = [name for name, value in (("workers", self.workers), ("address", self.address)) if value]
            problems += [f"{name}: it is of --engine ray" for name in given]
        raise_problems(problems)


@dataclass(frozen=True)
class ShareConfig(EngineConfig):
    """Which share of the shards this process computes, as jobs of a batch queue have theirs.

    Args:
        only_shards: `i::n`: every n-th shard from shard i on, as one of n array jobs; the manifest is then left to
            `--finish`, or to the next job that finds all shards sealed. By default all shards, and the manifest.
        finish: compute nothing; where all shards are sealed, write the manifest, else say which are missing.
    """

    only_shards: str | None = None
    finish: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = []
        if self.engine == "ray" and (self.finish or self.only_shards is not None):
            problems.append("engine: Ray's workers take all shards; --only-shards and --finish are of batch queues")
        try:
            parse_choice(self.only_shards)
        except ConfigError as error:
            problems.append(f"only_shards: expected {error.expected}, found {error.found}")
        if self.finish and self.only_shards is not None:
            problems.append("finish: it is of all shards, and goes without --only-shards")
        raise_problems(problems)


@dataclass(frozen=True)
class PlanConfig:
    """Whether stage one is only planned.

    Args:
        dry_run: print what there is to do (rows, tokens, tokens to compute, bytes by view, time), and compute, write
            and lock nothing. Neither weights nor a GPU are needed: --device cuda plans for one that is elsewhere.
        tokens_per_second: of a dry run, the computed tokens that one worker does in a second; by default as the last
            passes of this backbone took it whose features are in the cache.
    """

    dry_run: bool = False
    tokens_per_second: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.tokens_per_second is not None:
            if not self.dry_run:
                problems.append("tokens_per_second: it is of --dry-run")
            if not 0 < self.tokens_per_second < math.inf:
                problems.append(f"tokens_per_second: expected a number above 0, found {self.tokens_per_second}")
        raise_problems(problems)
