"""A pool does every piece once, whoever dies, and says what its workers say."""

import os
import signal

import pytest

from pipeline.engine_config import EngineConfig
from pipeline.errors import HeadError, MachineError
from pipeline.ray_cluster import cluster
from pipeline.worker_pool import MOST_DEATHS, WorkerPool


def square(worker, number):
    return worker.square.remote(number)


@pytest.fixture(scope="module")
def make():
    """How to start a worker, given its folder."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")

    class Squarer:
        """Squares numbers. Of 13 it always dies, of 7 once; of negative ones it knows nothing."""

        def __init__(self, folder) -> None:
            self.folder = folder.absolute()

        def open(self) -> None:
            if not self.folder.is_dir():
                raise HeadError("there is no folder", where=str(self.folder))

        def square(self, number):
            if number == 13 or (number == 7 and not (self.folder / "died").exists()):
                (self.folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if number < 0:
                raise HeadError("there is no such number", found=number)
            return number**2

    with cluster(EngineConfig("ray", 2), 1, on_gpus=False) as share:
        actor = ray.remote(num_cpus=share.cpus, max_restarts=0)(Squarer)
        yield lambda folder: lambda: actor.remote(folder)


def test_pieces_are_done_once_each_by_whom_there_is(make, tmp_path, capsys):
    with WorkerPool(make(tmp_path), 2, "less") as pool:
        assert sorted(pool.results(range(1, 5), square)) == [(1, 1), (2, 4), (3, 9), (4, 16)]
        assert capsys.readouterr().err == ""
        assert sorted(pool.results(range(6, 9), square)) == [(6, 36), (7, 49), (8, 64)]
        assert capsys.readouterr().err == "a worker died on 7: another one takes its place, and does it again\n"
        assert list(pool.results([], square)) == []
        with pytest.raises(HeadError, match=r"no such number\n  found: -3"):
            list(pool.results([2, -3], square))


def test_what_kills_every_worker_ends_it_and_a_worker_that_cannot_be_made_ready_says_why(make, tmp_path):
    with WorkerPool(make(tmp_path), 1, "fewer of them") as pool, pytest.raises(MachineError) as caught:
        list(pool.results([13], square))
    for part in ("where: 13", f"found: {MOST_DEATHS} deaths; the last: The actor died", "take fewer of them"):
        assert part in str(caught.value)
    with WorkerPool(make(None), 1, "") as pool, pytest.raises(MachineError, match="AttributeError: 'NoneType'"):
        list(pool.results([1], square))
    with WorkerPool(make(tmp_path / "none"), 1, "") as pool, pytest.raises(HeadError, match="no folder"):
        pool.open()
