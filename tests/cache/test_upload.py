"""Features written to a store: shards go up as they are sealed, the manifest last, and a stopped writer goes on."""

import contextlib
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.relabel import reindex
from pipeline.cache.remote import Folder
from pipeline.cache.seal import Seal
from pipeline.cache.upload import Upload
from pipeline.digests import sha256_of_file
from pipeline.errors import TransferError
from pipeline.store_config import StoreConfig


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Stopped(BaseException):
    """Stands for a kill: no code of ours catches it."""


@pytest.fixture
def some(corpus):
    return corpus(rows=9, shard_rows=3)


@pytest.fixture
def local(some, tmp_path):
    """What a writer without a store writes."""
    some.write(tmp_path / "local")
    return files(tmp_path / "local")


@pytest.fixture
def write(tmp_path):
    """Write a corpus to the store `there` through a folder; gives the shards that were computed."""

    def run(corpus, here="here", limit=None, *, verify=False):
        upload = Upload.of(
            StoreConfig(tmp_path / here, store=str(tmp_path / "there"), local_limit=limit), verify=verify
        )
        writer = replace(corpus, facts={**corpus.facts, "upload": upload}).writer(upload.copy.folder)
        todo = [number for number in range(writer.manifest.shards) if writer.sealed(number) is None]
        for number in todo:
            corpus.write_shard(writer, number)
        if not writer.is_whole:
            writer.finish()
        return todo

    return run


def check_honest(there):
    """What a seal or a manifest at the store vouches for is so."""
    for seal_path in there.rglob("shard-*.json"):
        states, index, _ = shard_paths(seal_path.parent, int(seal_path.stem.removeprefix("shard-")))
        seal = Seal.read(seal_path)
        assert (sha256_of_file(states), sha256_of_file(index)) == (seal.states_sha256, seal.index_sha256)
    for manifest in there.rglob(MANIFEST):
        FeatureSet(manifest.parent, verify=True)


def test_what_stands_at_the_store_is_what_stands_here_without_one(some, local, write, tmp_path, monkeypatch):
    put, order = Folder.put, []
    monkeypatch.setattr(
        Folder, "put", lambda self, files, advance: (order.extend(n for _, n in files), put(self, files, advance))
    )
    assert write(some) == [0, 1, 2]
    assert files(tmp_path / "there") == local
    names = [name.rpartition("/")[2] for name in order]
    assert names == [*(f"shard-0000{n}.{kind}" for n in range(3) for kind in ("h5", "parquet", "json")), MANIFEST]
    some.check(FeatureCache(tmp_path / "here", store=str(tmp_path / "there")).open("cola", "train"))
    assert write(some) == write(some, "another machine") == []
    assert len(order) == 10


def test_what_is_up_makes_way_for_what_comes(some, local, write, tmp_path, monkeypatch):
    limit = max(len(content) for name, content in local.items() if name.endswith(".h5"))
    most, put = [], Folder.put

    def watching(self, files, advance):
        put(self, files, advance)
        most.append(sum(path.stat().st_size for path in (tmp_path / "here").rglob("*.h5")))

    monkeypatch.setattr(Folder, "put", watching)
    assert write(some, limit=str(limit)) == [0, 1, 2]
    assert limit < max(most) <= 2 * limit  # the shard in hand comes beside
    assert sum(path.stat().st_size for path in (tmp_path / "here").rglob("*.h5")) <= limit
    assert files(tmp_path / "there") == local
    assert write(some, limit=str(limit)) == []


@pytest.mark.parametrize("same_machine", [True, False])
def test_stopped_before_and_after_every_step_it_goes_on(some, local, write, tmp_path, monkeypatch, same_machine):
    put, remove, stop_at, steps = Folder.put, Folder.remove, 0, 0

    def step():
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Stopped

    def putting(self, files, advance):
        for file in files:
            step()
            put(self, [file], advance)
        step()

    def removing(self, names):
        for name in names:
            step()
            remove(self, [name])

    monkeypatch.setattr(Folder, "put", putting)
    monkeypatch.setattr(Folder, "remove", removing)
    for stop_at in range(1, 100):  # noqa: B007
        steps = 0
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        try:
            write(some, limit="1")
        except Stopped:
            pass
        else:
            break
        check_honest(tmp_path / "there")
        sealed = len(list((tmp_path / "there").rglob("shard-*.json")))
        steps = -1000
        again = write(some, "here" if same_machine else "elsewhere", limit="1")
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        assert len(again) <= 3 - sealed  # what stands there is not computed again
        check_honest(tmp_path / "there")
        assert files(tmp_path / "there") == local
    assert stop_at > 3 * 5


def test_a_store_that_goes_away_says_what_is_whole_and_the_same_command_goes_on(
    some, local, write, tmp_path, monkeypatch
):
    put, count = Folder.put, []

    def failing(self, files, advance):
        count.append(files)
        if len(count) == 4:
            raise TransferError("this place cannot be reached", where=self.shown, remedy="check the network")
        put(self, files, advance)

    with monkeypatch.context() as away:
        away.setattr(Folder, "put", failing)
        with pytest.raises(TransferError, match="cannot be reached") as caught:
            write(some)
    assert "whole there: 1 shard" in caught.value.found
    assert "same command goes on" in caught.value.remedy
    check_honest(tmp_path / "there")
    assert write(some) == [2]  # the second was sealed here
    assert files(tmp_path / "there") == local


def test_a_bit_that_flipped_there_is_found_with_verify_and_just_that_shard_computed_again(some, local, write, tmp_path):
    write(some)
    [path] = (tmp_path / "there").rglob("shard-00001.h5")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert write(some) == []  # sizes agree
    [mine] = (tmp_path / "here").rglob("shard-00001.h5")
    mine.unlink()  # as a limit does
    assert write(some, verify=True) == [1]
    assert files(tmp_path / "there") == local
    path.write_bytes(content)
    assert write(some, verify=True) == []  # what is sealed here goes up again
    assert files(tmp_path / "there") == local


def test_a_file_that_is_damaged_here_does_not_go_there(some, local, write, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(Upload, "sealed", lambda self, folder, number, seal: None)
        before.setattr(Upload, "finished", lambda *words: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            write(some)
    [mine] = (tmp_path / "here").rglob("shard-00001.h5")
    content = bytearray(mine.read_bytes())
    content[-1] ^= 1
    mine.write_bytes(content)
    with pytest.raises(TransferError, match="does not go to the store"):
        write(some)
    check_honest(tmp_path / "there")
    assert write(some) == [1]
    assert files(tmp_path / "there") == local


def test_corrected_labels_go_up_and_hidden_states_do_not(some, write, tmp_path, monkeypatch):
    write(some, limit="1")
    corrected = replace(some, relabelled=True)
    corrected.write(tmp_path / "corrected")
    upload = Upload.of(StoreConfig(tmp_path / "here", store=str(tmp_path / "there"), local_limit="1"))
    writer = replace(corrected, facts={"upload": upload}).writer(upload.copy.folder)
    _, index = corrected.shard(np.arange(corrected.rows))
    put, sent = Folder.put, []
    monkeypatch.setattr(
        Folder, "put", lambda self, files, advance: (sent.extend(n for _, n in files), put(self, files, advance))
    )
    columns = {"label": index["label"].combine_chunks()}
    assert [reindex(writer, number, columns, timeout=1.0) for number in range(3)] == [True, True, True]
    writer.finish()
    assert not [name for name in sent if name.endswith(".h5")]
    assert files(tmp_path / "there") == files(tmp_path / "corrected")


def test_a_manifest_there_that_does_not_hold_is_taken_away(some, local, write, tmp_path, capsys):
    write(some)
    [seal] = (tmp_path / "there").rglob("shard-00001.json")
    seal.unlink()
    assert write(some, "another machine") == [1]
    assert "taken away" in capsys.readouterr().err
    assert files(tmp_path / "there") == local


@pytest.fixture
def between(monkeypatch):
    """Between two steps at the store, counted from 1, have something else done; gives how many steps there were."""
    steps, planned = 0, {}

    def step():
        nonlocal steps
        steps += 1
        if todo := planned.pop(steps, None):
            todo()

    def stepping(name):
        does = getattr(Folder, name)
        monkeypatch.setattr(Folder, name, lambda self, *words: (step(), does(self, *words))[1])

    def one_by_one(put):
        def put_each(self, files, advance):
            for file in files:
                step()
                put(self, [file], advance)

        return put_each

    for name in ("sizes", "read_small", "remove"):
        stepping(name)
    monkeypatch.setattr(Folder, "put", one_by_one(Folder.put))

    def at(number, todo):
        nonlocal steps
        steps = 0
        planned.clear()
        planned[number] = todo
        return lambda: not planned

    return at


@pytest.mark.parametrize("seed", [0, 1], ids=["the same bytes", "other bytes"])
def test_another_machine_writes_the_same_set_between_any_two_steps(some, local, write, tmp_path, between, seed):
    """Machines of one kind compute the same: nothing is in their way. What others leave there is found, and mended."""
    other = replace(some, seed=seed)
    outcomes = set()
    for number in range(1, 200):
        for name in ("there", "here", "elsewhere", "a third"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)

        def write_other():
            with contextlib.suppress(TransferError) if seed else contextlib.nullcontext():
                write(other, "elsewhere", limit="1")

        was_done = between(number, write_other)
        try:
            write(some, limit="1")
            outcomes.add("went through")
        except TransferError as error:
            assert seed and "bytes that were sent" in error.what
            outcomes.add("refused")
        if not was_done():
            break
        if seed == 0:
            assert files(tmp_path / "there") == local
        write(some, "a third", verify=True)
        check_honest(tmp_path / "there")
        assert len(list((tmp_path / "there").rglob(MANIFEST))) == 1
    assert number > 20
    assert outcomes == ({"went through", "refused"} if seed else {"went through"})


@pytest.mark.parametrize("seed", range(40))
def test_two_machines_of_one_kind_write_one_set_step_by_step_beside_each_other(
    some, local, write, tmp_path, monkeypatch, seed
):
    """Their steps at the store are shuffled: one at a time, each time either machine's."""
    random, turn = np.random.default_rng(seed), threading.Condition()
    waiting: dict[int, bool] = {}

    def in_turn(does):
        def step(self, *words):
            me = threading.get_ident()
            with turn:
                waiting[me] = False
                turn.notify_all()
                while not waiting[me]:
                    if len(waiting) == alive[0] and not any(waiting.values()):
                        waiting[random.choice(sorted(waiting))] = True
                        turn.notify_all()
                    else:
                        turn.wait(0.05)
                del waiting[me]
                return does(self, *words)

        return step

    for name in ("sizes", "read_small", "remove", "put"):
        monkeypatch.setattr(Folder, name, in_turn(getattr(Folder, name)))
    alive, failed = [2], []

    def run(machine):
        try:
            write(some, machine, limit="1")
        except Exception as error:
            failed.append(error)
        finally:
            with turn:
                alive[0] -= 1
                turn.notify_all()

    both = [threading.Thread(target=run, args=(machine,)) for machine in ("here", "elsewhere")]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert not failed
    assert files(tmp_path / "there") == local
