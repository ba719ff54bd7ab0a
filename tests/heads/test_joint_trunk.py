"""The trunk's training alone: what the seed decides, what freezing keeps, and rows that nothing can be learned from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import HeadError
from pipeline.heads import shared_trunk
from pipeline.heads.fit import TrainingRows
from pipeline.heads.shared_trunk import Start, digest_of_head, train_trunk
from pipeline.heads_config import JointConfig

CONFIG = JointConfig(hidden_size=6, dropout=0.2, batch_size=16, evaluation_steps=5, patience=4, max_steps=40)


def rows_of(seed, n=120, d=8, classes=2):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = (random.normal(size=(n, d)) + 1.5 * random.normal(size=(classes, d))[y]).astype(np.float32)
    return TrainingRows(X, y, np.arange(20, n), np.arange(20))


ROWS = {"a": rows_of(1), "b": rows_of(2, n=300, classes=3)}


def weights(trained, task):
    return {name: value.numpy().tobytes() for name, value in trained.heads[task].network.state_dict().items()}


def test_the_seed_alone_decides_and_leaves_torchs_own_numbers_alone():
    state = torch.get_rng_state()
    one, two, other = (train_trunk(ROWS, CONFIG, seed=seed, label="x") for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert weights(one, "a") == weights(two, "a")
    assert weights(one, "a") != weights(other, "a")
    assert one.evaluations == two.evaluations


def test_alone_and_together_a_trunk_begins_alike_and_a_task_sees_the_same_batches(monkeypatch):
    seen, real = {}, shared_trunk._Training._step

    def spy(self, batches):
        for task, rows in batches.items():
            seen.setdefault((len(batches), task), []).append(rows.tolist())
        seen.setdefault(len(batches), self.trained[0].detach().clone())
        return real(self, batches)

    monkeypatch.setattr(shared_trunk._Training, "_step", spy)
    few = replace(CONFIG, max_steps=9, patience=100)
    train_trunk(ROWS, few, seed=3, label="together")
    train_trunk({"b": ROWS["b"]}, few, seed=3, label="alone")
    assert seen[2, "b"] == seen[1, "b"]
    assert torch.equal(seen[2], seen[1])
    of_a = [number for batch in seen[2, "a"] for number in batch]
    assert sorted(of_a[:100]) == list(range(20, 120))  # each row once, then again
    assert len(of_a) > 100
    assert all(number >= 20 for number in of_a)  # what is held out is not trained on


def test_a_frozen_head_gets_no_gradient_and_the_trunk_does():
    alone = train_trunk({"a": ROWS["a"]}, CONFIG, seed=3, label="alone")
    start = Start("a", alone.heads["a"])
    before = weights(alone, "a")
    together = train_trunk(ROWS, CONFIG, seed=3, label="together", start=start)
    after = weights(together, "a")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"body.0.weight", "body.0.bias"}
    assert weights(alone, "a") == before  # what is begun with is not written to
    assert together.frozen["before"] == together.frozen["after"] == digest_of_head(alone.heads["a"].network)
    free = train_trunk(ROWS, CONFIG, seed=3, label="free")
    assert digest_of_head(free.heads["a"].network) != together.frozen["before"]
    assert free.frozen is None


def test_a_frozen_head_that_changes_all_the_same_is_an_error(monkeypatch):
    alone = train_trunk({"a": ROWS["a"]}, CONFIG, seed=3, label="alone")
    real = shared_trunk._Training._step

    def meddles(self, batches):
        with torch.no_grad():
            self.classifiers["a"].body[-1].bias += 1e-6
        return real(self, batches)

    monkeypatch.setattr(shared_trunk._Training, "_step", meddles)
    with pytest.raises(HeadError, match="frozen has changed"):
        train_trunk(ROWS, CONFIG, seed=3, label="x", start=Start("a", alone.heads["a"]))


def test_a_task_without_a_signal_keeps_what_it_began_with():
    random = np.random.default_rng(0)
    noise = TrainingRows(
        random.normal(size=(60, 8)).astype(np.float32), np.arange(60) % 2, np.arange(30), np.arange(30, 60)
    )
    trained = train_trunk({"a": noise}, replace(CONFIG, learning_rate=0.03, max_steps=400), seed=0, label="x")
    assert trained.stopped_early
    assert trained.evaluations[-1]["step"] < 400
    shares = trained.heads["a"].network.body[-1].bias.detach().softmax(dim=0)
    assert shares.tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def with_(value, rows, task="b"):
    X = rows[task].X.copy()
    X[7, 2] = value
    return {**rows, task: replace(rows[task], X=X)}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (with_(np.nan, ROWS), ("not finite", "where: b", "row 7, feature 2")),
        (with_(np.inf, ROWS), ("not finite", "where: b", "row 7, feature 2")),
        ({**ROWS, "a": replace(ROWS["a"], y=np.ones_like(ROWS["a"].y))}, ("only one class", "where: a")),
        ({**ROWS, "a": rows_of(1, d=9)}, ("not equally wide", "{'a': 9, 'b': 8}")),
        ({**ROWS, "a": replace(ROWS["a"], y=ROWS["a"].y[:-1])}, ("do not fit together",)),
    ],
)
def test_rows_that_nothing_can_be_learned_from(rows, parts):
    with pytest.raises(HeadError) as refused:
        train_trunk(rows, CONFIG, seed=0, label="x")
    assert all(part in str(refused.value) for part in parts), refused.value


def test_a_head_of_another_shape_is_not_begun_with():
    alone = train_trunk({"b": ROWS["b"]}, CONFIG, seed=3, label="alone")
    with pytest.raises(HeadError, match="of another shape"):
        train_trunk(ROWS, replace(CONFIG, hidden_size=7), seed=3, label="x", start=Start("b", alone.heads["b"]))
    with pytest.raises(HeadError, match=r"expected: .*classes \[0, 1\]"):
        train_trunk(ROWS, CONFIG, seed=3, label="x", start=Start("a", alone.heads["b"]))


def test_held_out_rows_are_looked_at_as_often_as_asked_and_patience_counts_steps():
    rare = replace(CONFIG, evaluation_steps=10, patience=100, max_steps=30)
    steps = [each["step"] for each in train_trunk(ROWS, rare, seed=3, label="x", looks_every=7).evaluations]
    assert steps == [0, 7, 14, 21, 28, 30]
    assert [each["step"] for each in train_trunk(ROWS, rare, seed=3, label="x").evaluations] == [0, 10, 20, 30]
    hasty = replace(CONFIG, learning_rate=0.5, evaluation_steps=10, patience=2, max_steps=400)
    for looks_every in (4, 10):
        ended = train_trunk(ROWS, hasty, seed=3, label="x", looks_every=looks_every)
        last, best = ended.evaluations[-1]["step"], ended.evaluations[ended.best]["step"]
        assert ended.stopped_early
        assert 20 <= last - best < 20 + looks_every
