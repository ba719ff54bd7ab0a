"""A push or pull that is killed at any step leaves nothing that looks whole and is not, and goes on from there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import SSHServer

from pipeline.cache import FeatureSet
from pipeline.cache.lock import LOCK_FILE
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.seal import Seal
from pipeline.digests import sha256_of_file

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("kill_transfers.py")


def files(folder):
    """All but the lock file, which a killed process leaves and which holds nothing."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    """Runs transfers in processes that can be killed: `killer(direction, remote, cache_dir, kill_at)`."""
    temporary = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
    )

    def run(direction, remote, cache_dir, kill_at=None, **more):
        order = {"direction": direction, "remote": str(remote), "cache_dir": str(cache_dir), "kill_at": kill_at, **more}
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    process.stdout.close()
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory, corpus):
    """A cache with one feature set of two shards."""
    cache_dir = tmp_path_factory.mktemp("source")
    corpus(rows=7).write(cache_dir)
    return cache_dir


def whole_files(cache_dir, source):
    """The files under their final names, by name and inode; what a seal or manifest vouches for is checked."""
    [folder] = (source / "cola" / "train").iterdir()
    copy = cache_dir / folder.relative_to(source)
    for number in range(2):
        states, index, seal_path = shard_paths(copy, number)
        if seal_path.exists():
            seal = Seal.read(seal_path)
            assert (sha256_of_file(states), sha256_of_file(index)) == (seal.states_sha256, seal.index_sha256)
    if (copy / MANIFEST).exists():
        FeatureSet(copy)
        assert {k: v for k, v in files(cache_dir).items() if not k.endswith(".partial")} == files(source)
    names = [name for name in files(cache_dir) if not name.endswith(".partial")]
    assert all((cache_dir / name).read_bytes() == (source / name).read_bytes() for name in names)
    return {name: (cache_dir / name).stat().st_ino for name in names}


@pytest.mark.parametrize(("direction", "stride"), [("push", 3), ("pull", 2)])
def test_killed_at_any_step_it_goes_on_and_writes_no_whole_file_again(direction, stride, killer, source, tmp_path):
    def words(copy):
        return (copy, source) if direction == "push" else (source, copy)

    uninterrupted = killer(direction, *words(tmp_path / "uninterrupted"))
    assert uninterrupted["end"] == "done"
    assert uninterrupted["steps"] >= 3 * 7  # each file is opened, counted and renamed
    for step in range(1, uninterrupted["steps"] + 1, stride):
        copy = tmp_path / str(step)
        assert killer(direction, *words(copy), step)["end"] == "killed"
        before = whole_files(copy, source)
        assert killer(direction, *words(copy))["end"] == "done"
        after = whole_files(copy, source)
        assert files(copy) == files(source)  # partial files of the dead are gone too
        assert before.items() <= after.items()
        shutil.rmtree(copy)


def test_killed_again_and_again_it_comes_to_its_end(killer, source, tmp_path):
    ends = []
    for step in (5, 7, 3, 11, 2, 8, 4, 30, 30, 30):
        ends.append(killer("pull", source, tmp_path, step)["end"])
        whole_files(tmp_path, source)
    assert "killed" in ends[:3]
    assert ends[-1] == "done"
    assert files(tmp_path) == files(source)


def test_killed_while_it_replaces_nothing_mixed_is_read(killer, source, corpus, tmp_path):
    other = tmp_path / "other"
    corpus(rows=7, shard_rows=2).write(other)
    [folder] = (other / "cola" / "train").iterdir()
    killed = 0
    for step in range(1, 40, 3):
        copy = shutil.copytree(other, tmp_path / str(step))
        if killer("pull", source, copy, step, replace=True)["end"] == "killed":
            killed += 1
            now = copy / folder.relative_to(other)
            if (now / MANIFEST).exists():  # the old one, or the new one, and never a mixture
                corpus(rows=7).check(FeatureSet(now))
            for number in range(4):
                states, index, seal_path = shard_paths(now, number)
                if seal_path.exists():
                    seal = Seal.read(seal_path)
                    assert (sha256_of_file(states), sha256_of_file(index)) == (seal.states_sha256, seal.index_sha256)
            assert killer("pull", source, copy, replace=True)["end"] == "done"
        assert files(copy) == files(source)
        shutil.rmtree(copy)
    assert killed > 8


def test_a_push_over_sftp_killed_at_each_step_goes_on(killer, corpus, tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    corpus(rows=3).write(source)
    root.mkdir()
    with SSHServer(tmp_path / "home", root) as server:
        for step in range(1, 40):
            url, copy = f"sftp://127.0.0.1:{server.port}/{step}", root / str(step)
            copy.mkdir()
            end = killer("push", url, source, step, environment={"HOME": str(server.folder)})["end"]
            before = whole_files(copy, source)
            server.written.clear()
            assert killer("push", url, source, environment={"HOME": str(server.folder)})["end"] == "done"
            assert whole_files(copy, source).items() >= before.items()
            assert files(copy) == files(source)
            sent = sum(server.written.values())
            assert sent == sum(len(content) for name, content in files(source).items() if name not in before)
            if end == "done":
                break
        assert step > 2 * 4  # of each file: when its bytes are there, and when it has its name


def test_a_pull_over_sftp_killed_at_steps_goes_on(killer, source, tmp_path):
    with SSHServer(tmp_path / "home", source) as server:
        url, at_home = f"sftp://127.0.0.1:{server.port}/", {"HOME": str(server.folder)}
        for step in (2, 7, 13):
            copy = tmp_path / str(step)
            assert killer("pull", url, copy, step, environment=at_home)["end"] == "killed"
            before = whole_files(copy, source)
            assert killer("pull", url, copy, environment=at_home)["end"] == "done"
            assert whole_files(copy, source).items() >= before.items()
            assert files(copy) == files(source)


def test_a_push_and_a_pull_over_s3_killed_at_steps_go_on(killer, source, with_s3, tmp_path):
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

    def there():
        entries = with_s3.list_objects_v2(Bucket="features").get("Contents", [])
        keys = [each["Key"] for each in entries]
        return {key: with_s3.get_object(Bucket="features", Key=key)["Body"].read() for key in keys}

    for step in (2, 4):
        for key in there():
            with_s3.delete_object(Bucket="features", Key=key)
        assert killer("push", "s3://features", source, step, environment=credentials)["end"] == "killed"
        assert there().items() < files(source).items()
        assert not [key for key in there() if key.endswith(MANIFEST)]
        assert killer("push", "s3://features", source, environment=credentials)["end"] == "done"
        assert there() == files(source)
    for step in (3, 13):
        copy = tmp_path / str(step)
        assert killer("pull", "s3://features", copy, step, environment=credentials)["end"] == "killed"
        before = whole_files(copy, source)
        assert killer("pull", "s3://features", copy, environment=credentials)["end"] == "done"
        assert whole_files(copy, source).items() >= before.items()
        assert files(copy) == files(source)
