"""What a run's head reads of a sentence: as its record says, or for older runs as the cache does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache import FeatureCache
from pipeline.cache.identity import Identity
from pipeline.cache.manifest import Manifest
from pipeline.errors import CacheError, RunError
from pipeline.results.baselines_table import CONTROL, MAJORITY, RANDOM, TFIDF
from pipeline.results.ledger import Run

WITHOUT_FEATURES = (MAJORITY, TFIDF)
"""Heads that take the sentences themselves, or do not look at them."""
UNPREDICTABLE = {
    RANDOM: "its features are numbers drawn at random for the sentences that it was measured on; new ones have none",
    CONTROL: "it learned labels drawn at random, to show what chance scores",
}
"""Baselines that say nothing of a new sentence, and why."""


@dataclass(frozen=True)
class Needs:
    """What is needed to predict a task.

    Args:
        labels: the classes' names, by their numbers.
        views: the identities of the features, side by side in this order; their `texts` are empty. None where the head
            reads no features.
    """

    labels: tuple[str, ...]
    views: tuple[Identity, ...]


def needs_of(folder: Path, run: Run, task: str, cache_dir: Path | None = None) -> Needs:
    """Find out what a cached run's head reads.

    Args:
        folder: the run's.
        cache_dir: the cache that older runs' features are looked up in; by default the one that they name.

    Raises:
        RunError: the run is a baseline that cannot say anything of new sentences, its record is damaged, or it is an
            older one and the cache does not hold its features.
        DamagedFeatureSet: a manifest cannot be read.
    """
    if run.head in UNPREDICTABLE:
        raise RunError(
            f"a {run.head} run has nothing to say of new sentences",
            where=run.run,
            expected="a run of a head, such as the one beside it",
            found=UNPREDICTABLE[run.head],
        )
    record = run.inputs.get(task) or _from_cache(folder, run, task, cache_dir)
    try:
        views = () if run.head in WITHOUT_FEATURES else tuple(_identity(view) for view in record["views"])
        labels = tuple(map(str, record["labels"]))
    except (CacheError, KeyError, TypeError) as error:
        raise RunError("a run's record does not say what its head reads", where=folder, found=error) from error
    if not views and run.head not in WITHOUT_FEATURES:
        raise RunError("a run's record does not say what its head reads", where=folder, found="no view")
    return Needs(labels, views)


def _identity(view: Mapping[str, Any]) -> Identity:
    return Identity.from_dict({**view, "texts": ""})


def _from_cache(folder: Path, run: Run, task: str, cache_dir: Path | None) -> dict[str, Any]:
    """The record of a run that was entered before runs had it, from the manifests of what it trained on."""
    place = cache_dir or Path(str(run.config.get("cache_dir", "data/cache")))
    wanted = {split: list(names) for split, names in run.features.get(task, {}).items()}
    manifests: dict[str, Manifest] = {}
    for split in wanted:
        manifests |= {each.fingerprint: each for each in FeatureCache(place).manifests(task, split)}
    for names in wanted.values():
        if names and all(name in manifests for name in names):
            found = [manifests[name] for name in names]
            return {
                "labels": list(found[0].labels),
                "views": [manifest.identity.without_texts() for manifest in found],
            }
    raise RunError(
        "this run's record is of a time when runs did not say what their heads read, and the cache does not either",
        where=folder,
        expected="the feature sets "
        + ", ".join(name[:12] for name in wanted.get("train", []))
        + f" of {task}/train in {place}",
        found="none of them" if not manifests else "others",
        remedy="name the cache that it trained on with --cache-dir, or train the head again",
    )
