"""Settings of a cache that is kept elsewhere: where, and how much of it stays here."""

from dataclasses import dataclass
from typing import Any

from pipeline.config import CacheConfig, raise_problems
from pipeline.errors import ConfigError
from pipeline.sizes import parse_size


@dataclass(frozen=True)
class StoreConfig(CacheConfig):
    """Where features are kept.

    Args:
        cache_dir: the cache's folder; with `store`, the local folder that its features go through.
        store: keep the features there: a folder, user@host:folder or a URL, as cache push takes it. Shards go there as
            they are sealed, and come from there as they are read.
        local_limit: of a store, how much of hidden states may stay in cache_dir, such as 20GB: what was used longest
            ago makes way. By default all stays.
    """

    store: str | None = None
    local_limit: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.store == "":
            problems.append("store: expected a folder, user@host:folder or a URL, found an empty text")
        if self.local_limit is not None:
            if self.store is None:
                problems.append("local_limit: it limits what is kept here of a store, and no store is named")
            try:
                parse_size(self.local_limit)
            except ConfigError as error:
                problems.append(f"local_limit: expected {error.expected}, found {error.found!r}")
        raise_problems(problems)


def record_of(cache: CacheConfig) -> dict[str, Any]:
    """Where a run's features were, for its record: a URL's password is left out."""
    record = {"cache_dir": str(cache.cache_dir)}
    if isinstance(cache, StoreConfig) and cache.store is not None:
        from pipeline.cache.remote.trouble import shown_url

        record["store"] = shown_url(cache.store)
    return record
