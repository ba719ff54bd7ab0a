"""A Ray cluster of several nodes on this machine, as Ray's own tests have it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.ray_cluster import QUIET


@contextlib.contextmanager
def ray_nodes(cpus: list[int], *, gpus: int = 0) -> Iterator[str]:
    """Nodes of so many CPUs each, the first of them with so many GPUs, it says; gives the cluster's address."""
    os.environ |= QUIET  # some of it is read when Ray is imported
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "num_gpus": gpus, **small})
    try:
        for number in cpus[1:]:
            cluster.add_node(num_cpus=number, object_store_memory=100 * 2**20)
        yield cluster.address
    finally:
        cluster.shutdown()


def processes_called(title: str) -> list[int]:
    """The processes of this machine whose title begins so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(title.encode()):
                found.append(int(path.parent.name))
    return found
