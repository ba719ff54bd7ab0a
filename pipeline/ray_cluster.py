"""A Ray cluster: one that runs, or one of this machine alone for as long as it is needed (https://docs.ray.io)."""

import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engine_config import EngineConfig
from pipeline.errors import MachineError, MissingPackage

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
"""Nothing is reported to anybody; workers without a GPU keep their environment as it is; and what Ray has to say of a
dead worker, which would stand on standard output among results, is not said twice: the pool says it."""
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Share:
    """What each worker has of a cluster.

    Args:
        workers: how many.
        cpus: of each; its threads.
        gpus: of each, 0 or 1.
        together: so many of them, at most, are on one machine.
    """

    workers: int
    cpus: int
    gpus: int
    together: int


@contextlib.contextmanager
def cluster(config: EngineConfig, threads: int, *, on_gpus: bool) -> Iterator[Share]:
    """Within, Ray is at hand; gives what each worker has.

    Args:
        threads: of each worker; 0 shares a node's cores among its workers.
        on_gpus: whether each worker takes a GPU where the cluster has some; else none does.

    Raises:
        MissingPackage: Ray is not installed.
        MachineError: the cluster cannot be reached, or has nothing to compute with.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingPackage("ray", "ray") from error
    if ray.is_initialized():  # by whoever called this, who also ends it
        yield _share(config, threads, on_gpus)
        return
    _check_reachable(config.address)
    try:
        ray.init(
            address=config.address or "local",
            include_dashboard=None if config.address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise _not_reached(config.address, error) from error
    try:
        yield _share(config, threads, on_gpus)
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Ask whether anybody listens at an address: Ray itself asks for a quarter of an hour, and cannot be stopped.

    Raises:
        MachineError: nobody does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):  # `auto`, or what Ray refuses by itself
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _not_reached(address, error) from error


def _not_reached(address: str | None, error: Exception) -> MachineError:
    return MachineError(
        "the Ray cluster cannot be reached",
        where=address or "this machine",
        found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        remedy="ray status shows what runs; ray start --head starts a cluster, and --address names it",
    )


def _share(config: EngineConfig, threads: int, on_gpus: bool) -> Share:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    gpus = sum(_number(node, "GPU") for node in nodes) if on_gpus else 0
    cpus = sorted((_number(node, "CPU") for node in nodes), reverse=True)
    if not any(cpus):
        found = [node["Resources"] for node in nodes]
        raise MachineError("the Ray cluster has no CPU to give", where=config.address or "this machine", found=found)
    if gpus:
        workers = min(config.workers or gpus, gpus)
        each = threads or max(1, sum(cpus) // gpus // 2)
        return Share(workers, each, 1, min(workers, _most_together(nodes, "GPU", 1)))
    with_cpus = [number for number in cpus if number]
    workers = config.workers or len(with_cpus)
    each = threads or max(1, min(with_cpus) // -(-workers // len(with_cpus)))
    most = sum(number // each for number in with_cpus)
    if workers > most:
        raise MachineError(
            "the Ray cluster has too few cores for so many workers",
            where=config.address or "this machine",
            expected=f"{workers} workers of {each} threads",
            found=f"{sum(with_cpus)} cores on {len(with_cpus)} nodes: {most} of them",
            remedy="take fewer --workers, or fewer --threads each",
        )
    return Share(workers, each, 0, min(workers, _most_together(nodes, "CPU", each)))


def _number(node: Mapping[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))


def _most_together(nodes: Sequence[Mapping[str, Any]], resource: str, each: int) -> int:
    """How many workers a machine has room for, the one with the most; nodes of one address are one machine."""
    room: Counter[str] = Counter()
    for node in nodes:
        room[node["NodeManagerAddress"]] += _number(node, resource) // each
    return max(room.values())
