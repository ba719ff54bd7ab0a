"""The short version of `make chaos`, and proof that it can fail."""

import dataclasses

import pytest

from tests.chaos import campaign, faults
from tests.chaos.bench import Bench, Outcome, open_bench

REAL = "`pipeline extract` killed"  # takes many seconds, and has tests of its own
SEED = 11


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with open_bench(tmp_path_factory.mktemp("chaos")) as bench:
        yield bench


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in faults.SHARES if name != REAL])
def test_no_fault_breaks_a_promise(bench: Bench, name):
    found: dict[str, list[Outcome]] = {}
    campaign.run(bench, {name: max(2, campaign.plan(40)[name])}, SEED, found)
    assert not [(outcome.what, outcome.broken) for outcome in found[name] if outcome.broken]
    if all(outcome.skipped for outcome in found[name]):
        pytest.skip(found[name][0].skipped)


@pytest.mark.slow
def test_what_is_served_wrong_is_seen(bench):
    """Another kind's answers stand for those of a reader that lies."""
    right, other = (bench.references[kind] for kind in ("mean-float32", "first-float32"))
    folder = bench.lay("mean-float32")
    for expected, wrong in ((right, []), (dataclasses.replace(right, answers=other.answers), ["X", "batches", "take"])):
        outcome = Outcome("nothing")
        assert bench.judge_reading(outcome, folder, [expected])
        assert set(wrong) <= set(outcome.wrong)
        assert bool(outcome.broken) == bool(wrong)


@pytest.mark.slow
def test_what_is_left_is_seen(bench):
    folder = bench.lay("mean-float32")
    (folder / "shard-00001.json.damaged").write_text("left")
    outcome = Outcome("nothing")
    bench.judge_repair(outcome, {"gave": None}, bench.references["mean-float32"])
    assert [name.rpartition("/")[2] for name in outcome.left] == ["shard-00001.json.damaged"]


def test_kinds_share_the_faults_and_each_has_one():
    assert sum(campaign.plan(388).values()) >= 300
    assert min(campaign.plan(1).values()) == 1
    assert list(campaign.plan(5, "disk")) == ["a full disk"]
    assert sorted({faults.Turn(n, 24, None).step(8) for n in range(24)}) == list(range(1, 9))
    assert [faults.Turn(n, 3, None).step(9) for n in range(3)] == [1, 4, 7]


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"wrong": ["X"]}, 2),
        ({"other": ["a traceback"]}, 3),
        ({"found": False}, 4),
        ({"lost": 2}, 5),
        ({"left": ["a.partial"]}, 6),
    ],
)
def test_every_broken_promise_shows_in_the_table(changed, column):
    good = Outcome("good", found=True, lost=1)
    bad = dataclasses.replace(good, **changed)
    tables = [campaign.table({"kind": [good, each]}).splitlines()[2].split(" | ") for each in (good, bad)]
    assert [place for place in range(7) if tables[0][place] != tables[1][place]] == [column]
    assert (good.broken, len(bad.broken)) == ([], 1)
