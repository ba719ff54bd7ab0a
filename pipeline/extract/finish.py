"""The end of a stage one that jobs shared: seals are checked, manifests written, or what is missing is named."""

from collections.abc import Iterable, Sequence

from pipeline.config import PassConfig
from pipeline.errors import CacheError
from pipeline.extract.here import finish
from pipeline.extract.job import Job
from pipeline.progress import say

NAMED = 20
"""Shards that an error names; of more their number."""


def finish_jobs(jobs: Sequence[Job], passes: PassConfig) -> None:
    """Write the manifests of feature sets whose shards are all whole; nothing is computed.

    Raises:
        CacheError: shards are missing, and which of which feature sets; those that are whole have their manifest then.
    """
    missing = []
    for job in jobs:
        lacking = lacking_shards(job)
        for place, writer in enumerate(job.writers):
            numbers = [number for number, places in lacking.items() if place in places]
            if numbers or not writer.is_cut:
                lacks = f"shards {in_short(numbers)} of {writer.manifest.shards} are missing"
                what = lacks if writer.is_cut else "nobody has begun it"
                missing.append(f"{job.label}/{writer.folder.name}: {what}")
            else:
                finish(Job(job.corpus, (writer,), (job.views[place],)), passes)
                say(f"{job.label}: {writer.folder.name} is whole")
    if missing:
        raise CacheError(
            "feature sets are not whole yet",
            where=missing[0] if len(missing) == 1 else "\n    " + "\n    ".join(missing),
            expected="every shard sealed",
            remedy="run the jobs of these shards again (shard s is of job s modulo n), or the same command without "
            "--only-shards and --finish, which computes what is left; then --finish",
        )


def lacking_shards(job: Job) -> dict[int, list[int]]:
    """As `Job.unsealed`, of views whose cut is known."""
    begun = [place for place, writer in enumerate(job.writers) if writer.is_cut]
    found: dict[int, list[int]] = {}
    for place in begun:
        writer = job.writers[place]
        for number in range(writer.manifest.shards):
            if writer.sealed(number) is None:
                found.setdefault(number, []).append(place)
    return found


def in_short(numbers: Iterable[int]) -> str:
    """Numbers with their runs drawn together, such as `0, 3-5, 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    more = f" and {len(shown) - NAMED} more runs" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more
