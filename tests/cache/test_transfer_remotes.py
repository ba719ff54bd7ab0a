"""Push and pull over each protocol, against real servers on this machine."""

import dataclasses
import io
import os
import shutil
import sys
from collections.abc import Callable

import fsspec
import pytest
from servers import SSHServer, rsync_daemon

from pipeline.cache import FeatureSet
from pipeline.cache.remote import open_place
from pipeline.cache.remote.rsync import Rsync, is_rsync
from pipeline.cache.remote.store import Store
from pipeline.cache.transfer import pull, push
from pipeline.config import TransferConfig
from pipeline.errors import ConfigError, MissingPackage, TransferError

ALL = TransferConfig()
needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")


@dataclasses.dataclass
class There:
    """A place for tests.

    Args:
        url: how the commands name it.
        flip: change one bit of a file there, given its name.
    """

    url: str
    flip: Callable[[str], None]


def flip_file(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    root = tmp_path_factory.mktemp("sftp-root")
    with SSHServer(tmp_path_factory.mktemp("home"), root) as server:
        yield server


@pytest.fixture
def at_home(ssh, monkeypatch):
    """A user whose ssh knows the server, and who has its key."""
    monkeypatch.setenv("HOME", str(ssh.folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    ssh.written.clear()
    return ssh


OVER_SSH = pytest.param("rsync over ssh", marks=[needs_rsync, needs_ssh])
KINDS = ["folder", "memory", "sftp", "s3", OVER_SSH]  # one of each kind of place
PROTOCOLS = [*KINDS, "file", pytest.param("rsync daemon", marks=needs_rsync)]


@pytest.fixture
def there(request, tmp_path, monkeypatch):
    """An empty place, named in the way of each protocol."""
    root = tmp_path / "there"
    root.mkdir()
    if request.param == "folder":
        yield There(str(root), lambda name: flip_file(root / name))
    elif request.param == "file":
        yield There(f"file://{root}", lambda name: flip_file(root / name))
    elif request.param == "memory":
        memory = fsspec.filesystem("memory")
        memory.mkdir("/there")

        def flip_memory(name):
            content = bytearray(memory.cat(f"/there/{name}"))
            content[len(content) // 2] ^= 4
            memory.pipe(f"/there/{name}", bytes(content))

        yield There("memory://there", flip_memory)
        memory.rm("/there", recursive=True)
    elif request.param == "sftp":
        ssh = request.getfixturevalue("at_home")
        shutil.rmtree(ssh.root)
        (ssh.root / "a cache").mkdir(parents=True)
        yield There(f"sftp://127.0.0.1:{ssh.port}/a cache", lambda name: flip_file(ssh.root / "a cache" / name))
    elif request.param == "s3":
        client = request.getfixturevalue("with_s3")

        def flip_object(name):
            content = bytearray(client.get_object(Bucket="features", Key=f"some/{name}")["Body"].read())
            content[len(content) // 2] ^= 4
            client.put_object(Bucket="features", Key=f"some/{name}", Body=bytes(content))

        yield There("s3://features/some", flip_object)
    elif request.param == "rsync daemon":
        with rsync_daemon(tmp_path, root) as port:
            yield There(f"rsync://127.0.0.1:{port}/cache", lambda name: flip_file(root / name))
    else:
        ssh = request.getfixturevalue("at_home")
        monkeypatch.setenv("RSYNC_RSH", ssh.ssh_command)
        place = root / "with a space; and more"
        place.mkdir()
        yield There(f"127.0.0.1:{place}", lambda name: flip_file(place / name))


@pytest.fixture
def here(corpus, tmp_path):
    """A cache with two feature sets, of two and three shards."""
    cache_dir = tmp_path / "here"
    corpus(rows=7).write(cache_dir)
    corpus(changes={"pooling": "tokens"}, facts={"split": "validation"}).write(cache_dir)
    return cache_dir


@pytest.mark.slow
@pytest.mark.parametrize("there", PROTOCOLS, indirect=True)
def test_a_cache_goes_there_and_back_byte_for_byte_and_nothing_twice(there, here, tmp_path):
    back = tmp_path / "back"
    sent = push(there.url, (), ALL, here)
    assert [(r["split"], r["files"], r["sent"], r["status"]) for r in sent] == [
        ("train", 7, 7, "copied"),
        ("validation", 10, 10, "copied"),
    ]
    assert sum(r["sent_bytes"] for r in sent) == sum(map(len, files(here).values()))
    again = push(there.url, (), ALL, here)
    assert [(r["sent"], r["skipped"], r["status"]) for r in again] == [(0, 7, "unchanged"), (0, 10, "unchanged")]
    pulled = pull(there.url, (), ALL, back)
    assert files(back) == files(here)
    assert [r["sent"] for r in pulled] == [7, 10]
    for name in ("train", "validation"):
        [folder] = (back / "cola" / name).iterdir()
        FeatureSet(folder)
    assert [r["status"] for r in pull(there.url, (), ALL, back)] == ["unchanged", "unchanged"]


@pytest.mark.slow
@pytest.mark.parametrize("there", KINDS, indirect=True)
def test_a_flipped_bit_there_never_arrives_and_push_verify_mends_it(there, here, tmp_path):
    push(there.url, (), dataclasses.replace(ALL, splits=("train",)), here)
    name = next(name for name in files(here) if "train" in name and name.endswith("1.h5"))
    there.flip(name)
    back = tmp_path / "back"
    with pytest.raises(TransferError, match="not what its seal says") as caught:
        pull(there.url, (), ALL, back)
    assert name in str(caught.value.where)
    assert not [path for path in files(back) if path.endswith(("manifest.json", "1.h5", "1.json", ".partial"))]
    assert push(there.url, (), dataclasses.replace(ALL, splits=("train",)), here, verify=True)[0]["sent"] == 1
    pull(there.url, (), ALL, back)
    assert files(back) == {path: content for path, content in files(here).items() if "train" in path}


@pytest.mark.slow
@pytest.mark.parametrize("there", KINDS, indirect=True)
def test_another_set_under_the_same_name_is_refused_and_replaced_on_demand(there, here, corpus, tmp_path):
    push(there.url, (), ALL, here)
    other = tmp_path / "other"
    corpus(rows=7, shard_rows=2).write(other)  # the same identity, cut into other shards
    with pytest.raises(TransferError, match="another feature set stands there under the same name") as caught:
        push(there.url, (), ALL, other)
    assert "shard_rows" in str(caught.value.found)
    replace = dataclasses.replace(ALL, replace=True)
    assert push(there.url, (), replace, other)[0]["status"] == "copied"
    pull(there.url, (), dataclasses.replace(ALL, splits=("train",)), tmp_path / "back")
    assert files(tmp_path / "back") == files(other)
    assert push(there.url, (), replace, here)[0]["status"] == "copied"  # fewer shards than before
    pull(there.url, (), dataclasses.replace(ALL, splits=("train",)), tmp_path / "back 2")
    assert files(tmp_path / "back 2") == {path: content for path, content in files(here).items() if "train" in path}


@pytest.mark.slow
@pytest.mark.parametrize("there", KINDS, indirect=True)
def test_an_empty_place_is_no_cache(there, tmp_path):
    with pytest.raises(TransferError, match=r"there are no feature sets at this place|there is no such place"):
        pull(there.url, (), ALL, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_no_byte_of_a_whole_file_is_sent_twice_over_sftp(at_home, here):
    shutil.rmtree(at_home.root)
    url = f"sftp://127.0.0.1:{at_home.port}/cache"
    push(url, (), ALL, here)
    assert sum(at_home.written.values()) == sum(map(len, files(here).values()))
    assert all(name.endswith(b".partial") for name in at_home.written)  # what has its name is whole
    at_home.written.clear()
    push(url, (), ALL, here)
    assert at_home.written == {}
    [seal] = (at_home.root / "cache" / "cola" / "train").glob("*/shard-00001.json")
    seal.unlink()  # as if it had been killed before this seal
    seal.with_name("manifest.json").unlink()
    push(url, (), ALL, here)
    assert len(at_home.written) == 2
    assert all(b".json" in name for name in at_home.written)


def test_a_half_sent_file_of_a_dead_push_is_cleared_there(at_home, here):
    from pipeline.cache.files import partial_path

    shutil.rmtree(at_home.root)
    push(f"sftp://127.0.0.1:{at_home.port}/cache", (), ALL, here)
    [shard] = (at_home.root / "cache" / "cola" / "train").glob("*/shard-00001.h5")
    own = partial_path(shard)
    dead = shard.with_name(own.name.replace(f".{os.getpid()}.", ".4194305."))
    for path in (own, dead):
        path.write_bytes(b"half")
    shard.unlink()
    push(f"sftp://127.0.0.1:{at_home.port}/cache", (), ALL, here)
    assert own.exists()
    assert not dead.exists()


def test_a_host_whose_key_is_not_known_is_refused(at_home, here, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # the same server, seen by a user who never met it
    (tmp_path / ".ssh").mkdir()
    for name in ("id_ed25519", "id_ed25519.pub"):
        shutil.copy(at_home.folder / ".ssh" / name, tmp_path / ".ssh")
    with pytest.raises(TransferError, match="host's key is not known"):
        push(f"sftp://127.0.0.1:{at_home.port}/cache", (), ALL, here)


def test_a_user_without_a_key_is_denied(at_home, here, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    shutil.copy(at_home.folder / ".ssh" / "known_hosts", tmp_path / ".ssh")
    with pytest.raises(TransferError, match="denies access") as caught:
        push(f"sftp://127.0.0.1:{at_home.port}/cache", (), ALL, here)
    assert "ssh-add" in caught.value.remedy


def test_s3_without_credentials_and_without_the_bucket(with_s3, here, monkeypatch, tmp_path):
    with pytest.raises(TransferError, match="there is no such place"):
        push("s3://another-bucket/some", (), ALL, here)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TransferError, match="there are no credentials") as caught:
        push("s3://features/some", (), ALL, here)
    assert "aws configure" in caught.value.remedy


@pytest.mark.parametrize(
    "url", ["sftp://127.0.0.1:9/x", "s3://features/x", pytest.param("rsync://127.0.0.1:9/m/x", marks=needs_rsync)]
)
def test_a_host_that_does_not_answer(url, with_s3, at_home, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    with pytest.raises(TransferError, match="cannot be reached"):
        pull(url, (), ALL, tmp_path)


@needs_rsync
def test_rsync_that_may_not_write_there(here, tmp_path):
    with rsync_daemon(tmp_path, tmp_path) as port, pytest.raises(TransferError, match="denies access"):
        push(f"rsync://127.0.0.1:{port}/closed", (), ALL, here)


def test_the_hub_that_is_switched_off_is_one_message(here):
    with pytest.raises(TransferError, match="cannot be reached") as caught:
        push("hf://datasets/org/name", (), ALL, here)
    assert "hf://datasets/org/name" in str(caught.value.where)


def test_a_feature_set_is_one_commit_on_the_hub(here, monkeypatch):
    """The calls that would be made, in their order; there is no Hub on this machine."""
    import huggingface_hub
    from huggingface_hub.hf_file_system import HfFileSystem, HfFileSystemResolvedRepositoryPath

    commits = []

    def resolve(self, path, revision=None, **_):
        parts = str(path).removeprefix("hf://").removeprefix("datasets/").split("/")
        return HfFileSystemResolvedRepositoryPath("dataset", "/".join(parts[:2]), "main", "/".join(parts[2:]))

    def listing(self, path, **_):
        raise FileNotFoundError(path)

    def commit(self, *, operations, **words):
        added = {}
        for operation in operations:
            with operation.as_file() as file:
                added[operation.path_in_repo] = file.read()
        commits.append((added, words))

    monkeypatch.setattr(HfFileSystem, "resolve_path", resolve)

    def read(self, path, *_, **__):
        there = {f"datasets/org/name/{name}": content for added, _ in commits for name, content in added.items()}
        return io.BytesIO(there[path])

    monkeypatch.setattr(HfFileSystem, "ls", listing)
    monkeypatch.setattr(HfFileSystem, "open", read)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", commit)
    push("hf://datasets/org/name/caches", (), ALL, here)
    assert len(commits) == 2
    for (added, words), split in zip(commits, ("train", "validation"), strict=True):
        assert (words["repo_id"], words["repo_type"], words["revision"]) == ("org/name", "dataset", "main")
        assert added == {f"caches/{path}": content for path, content in files(here).items() if split in path}
        assert list(added)[-1].endswith("manifest.json")


@pytest.mark.parametrize(
    ("url", "package"), [("sftp://h/x", "sshfs"), ("s3://b/x", "s3fs"), ("hf://datasets/o/n", "huggingface_hub")]
)
def test_a_package_that_is_not_installed_is_named(url, package, monkeypatch):
    monkeypatch.setattr("pipeline.cache.remote.store.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=package) as caught:
        open_place(url)
    assert "feature-cache-pipeline[remote]" in str(caught.value)


def test_unknown_protocols_and_empty_names():
    with pytest.raises(TransferError, match="nobody knows this protocol"):
        open_place("gopher://host/x")
    with pytest.raises(ConfigError, match="no place is named"):
        open_place("")


def test_rsync_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TransferError, match="rsync is not installed"):
        open_place("user@host:folder")


@pytest.mark.parametrize(
    "target",
    [
        "-oProxyCommand=touch${IFS}x:folder",
        "-l@host:folder",
        "user@-oProxyCommand=x:folder",
        "rsync://-host/m/x",
        "rsync://-u@h/m",
    ],
)
def test_options_in_the_place_of_a_host_are_no_target(target):
    with pytest.raises(TransferError, match="no target of rsync"):
        Rsync(target)


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("user@host:folder", True),
        ("host:/folder", True),
        ("host:", True),
        ("[::1]:folder", True),
        ("rsync://host/module", True),
        ("s3://bucket/x", False),
        ("folder/with:colon", False),
        ("/folder", False),
        ("./host:folder", False),
    ],
)
def test_what_is_a_target_of_rsync(remote, expected):
    assert is_rsync(remote) == expected


@needs_rsync
@pytest.mark.parametrize(
    ("remote", "at"), [("h:", "h:./cola"), ("h:/", "h://cola"), ("h:a/", "h:a/cola"), ("u@h:/a", "u@h:/a/cola")]
)
def test_where_rsync_looks(remote, at):
    assert Rsync(remote)._at("cola") == at


def test_messages_never_show_a_password():
    from pipeline.cache.remote.trouble import shown_url

    assert shown_url("sftp://me:secret@host/x") == "sftp://me:***@host/x"
    assert shown_url("sftp://me@host:22/x:y@z") == "sftp://me@host:22/x:y@z"


def test_the_cache_imports_no_protocol_before_it_is_asked_for():
    import subprocess

    code = "import pipeline.cache.transfer, sys; print(sorted({'fsspec', 's3fs', 'sshfs', 'torch'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@needs_rsync
def test_what_a_killed_pull_brought_is_not_brought_again(here, tmp_path, monkeypatch):
    """rsync brings a set's files at once; those that lie there already stay, whatever their time."""
    from pipeline.cache.remote import rsync

    monkeypatch.setattr(rsync, "UNTIL_WHOLE", (*rsync.UNTIL_WHOLE, "--stats"))
    brought = []
    run = Rsync._run

    def counting(self, words, **more):
        done = run(self, words, **{**more, "on_line": None})
        brought.extend(line for line in done.stdout.splitlines() if line.startswith("Literal data:"))
        return done

    with rsync_daemon(tmp_path, here) as port:
        url, back = f"rsync://127.0.0.1:{port}/cache", tmp_path / "back"
        train = dataclasses.replace(ALL, splits=("train",))
        names = [name for name in files(here) if "train" in name and not name.endswith(".json")]
        staging = back / names[0].rpartition("/")[0] / rsync.PARTIAL_DIR
        for name in names[1:]:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes((here / name).read_bytes())
            os.utime(staging / name, ns=(0, 0))
        monkeypatch.setattr(Rsync, "_run", counting)
        pull(url, (), train, back)
    assert brought == [f"Literal data: {len(files(here)[names[0]]):,} bytes"]
    assert files(back) == {path: content for path, content in files(here).items() if "train" in path}


def test_what_arrives_otherwise_than_it_was_sent_is_an_error_and_taken_away(here, empty_memory, monkeypatch):
    honest = Store._put_one

    def one_bit_off(self, path, name, advance):
        honest(self, path, name, advance)
        if name.endswith("shard-00001.h5"):
            content = bytearray(self.file_system.cat(self._at(name)))
            content[-1] ^= 4
            self.file_system.pipe(self._at(name), bytes(content))

    with monkeypatch.context() as store:
        store.setattr(Store, "_put_one", one_bit_off)
        with pytest.raises(TransferError, match="does not have the bytes that were sent"):
            push(empty_memory, (), ALL, here)
    assert not [name for name in fsspec_files() if name.endswith(("manifest.json", "shard-00001.h5"))]
    assert {record["status"] for record in push(empty_memory, (), ALL, here)} == {"copied"}
    assert fsspec_files() == files(here)


@pytest.fixture
def empty_memory():
    memory = fsspec.filesystem("memory")
    memory.mkdir("/empty")
    yield "memory://empty"
    memory.rm("/empty", recursive=True)


def fsspec_files():
    memory = fsspec.filesystem("memory")
    return {name.removeprefix("/empty/"): memory.cat(name) for name in memory.find("/empty")}
