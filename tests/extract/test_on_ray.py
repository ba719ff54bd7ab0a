"""Stage one on a real Ray cluster: byte for byte what one process writes, whoever dies meanwhile."""

import json
import os
import random
import signal
import socket
import threading
import time

import pytest
from stored_files import files_of

from pipeline.cache.passes import PASSES
from pipeline.engine_config import ShareConfig
from pipeline.errors import BackboneError, ConfigError, MachineError, MissingPackage
from tests.ray_nodes import processes_called, ray_nodes

WORKER = "ray::Worker.compute"


@pytest.fixture(scope="module")
def address():
    with ray_nodes([1, 1, 1]) as address:
        yield address


def _kill_when(cache, wanted, killed):
    """Kill a worker at random as soon as so many shards are sealed, once for each of `wanted`."""
    for number in wanted:
        while len(list(cache.rglob("shard-*.json"))) < number:
            time.sleep(0.01)
        while not (workers := processes_called(WORKER)):
            time.sleep(0.005)
        pid = random.Random(number).choice(workers)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


def test_with_workers_killed_the_bytes_are_those_of_one_process(stage_one, address, tmp_path, capsys):
    asked = {"shard_rows": 3, "tasks": ("cola",), "threads": 1}
    stage_one(**asked)
    killed: list[int] = []
    there = tmp_path / "ray"
    killing = threading.Thread(target=_kill_when, args=(there, (4, 24), killed), daemon=True)
    killing.start()
    capsys.readouterr()
    records = stage_one(there, engine="ray", workers=3, address=address, **asked)
    assert len(killed) == 2
    assert {record["status"] for record in records} == {"written"}
    assert files_of(there) == files_of(tmp_path / "cache")
    out, said = capsys.readouterr()
    assert out == ""  # what Ray has to say of the dead would spoil results
    assert said.count("a worker died on shard") == 2
    assert "3 splits: done, 100 rows" in said
    for passes in there.rglob(PASSES):  # no shard that was whole is done again: a kill costs the one under way
        done = [json.loads(line)["shard"] for line in passes.read_text().splitlines()]
        assert len(set(done)) == len(done)


def test_what_a_worker_refuses_is_said_as_in_one_process(stage_one, address, tmp_path):
    with pytest.raises(BackboneError, match="no such backbone"):
        stage_one(engine="ray", address=address, backbone="nobody-has-this")
    with pytest.raises(MachineError, match="too few cores"):
        stage_one(engine="ray", address=address, workers=4, threads=1)


def test_a_cluster_that_is_not_there_and_ray_that_is_not(stage_one, monkeypatch):
    import sys

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(MachineError, match="cannot be reached") as caught:
        stage_one(engine="ray", address=f"127.0.0.1:{port}")
    assert "ConnectionRefusedError" in caught.value.found
    with pytest.raises(ConfigError, match="workers"):
        ShareConfig(workers=2)
    with pytest.raises(ConfigError, match="batch queues"):
        ShareConfig(engine="ray", only_shards="0::2")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match="ray"):
        stage_one(engine="ray")
