"""Many heads trained together are what each is alone: own rows, own labels, own standardisation, own end."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.errors import HeadError
from pipeline.heads.attention_pooling import AttentionPoolingStack
from pipeline.heads.scalar_mix import ScalarMixStack
from pipeline.heads.stacked.adamw import Schedule
from pipeline.heads.stacked.rows import RowSource
from pipeline.heads.stacked.stack import ClassifierStack, Stack
from pipeline.heads.stacked.training import StackResult, as_rows, held_out_logits, train_stack
from pipeline.heads.token_rows import TokenRows

RNG = np.random.default_rng(7)
N, D, K = 400, 12, 4
X = (RNG.normal(size=(N, D)) * np.exp(RNG.normal(size=D)) + 5.0).astype(np.float32)
SIGNAL = (X - X.mean(axis=0)) / X.std(axis=0) @ RNG.normal(size=D)
Y = np.digitize(SIGNAL + RNG.normal(size=N), [-1.0, 1.0])  # three classes
FOLD = RNG.integers(0, 5, N)
HELD = np.arange(K)[:, None] == FOLD
FIT = ~HELD & (RNG.random((K, N)) < 0.8)  # some rows are in neither
LABELS = np.stack([Y, Y, 2 - Y, RNG.permutation(Y)])
DECAY = (0.0, 0.1, 1.0, 10.0)
SEEDS = (3, 1, 4, 2)

Make = Callable[[tuple[int, ...]], Stack]
KINDS: dict[str, tuple[Make, RowSource]] = {
    "linear": (lambda seeds: ClassifierStack(seeds, D, 3), as_rows(X)),
    "mlp": (lambda seeds: ClassifierStack(seeds, D, 3, hidden_size=8), as_rows(X)),
    "mlp with dropout": (lambda seeds: ClassifierStack(seeds, D, 3, hidden_size=8, dropout=0.3), as_rows(X)),
    "mix": (lambda seeds: ScalarMixStack(seeds, 3, D, 3), as_rows(X)),
    "mix of an mlp": (lambda seeds: ScalarMixStack(seeds, 3, D, 3, hidden_size=8), as_rows(X)),
    "attention": (
        lambda seeds: AttentionPoolingStack(len(seeds), D // 2, 3),
        TokenRows([row.reshape(2, -1)[: 1 + (n % 3 > 0)] for n, row in enumerate(X)]),
    ),
}


def _train(kind: str, heads: list[int], data: RowSource | None = None, **settings: object) -> StackResult:
    make, source = KINDS[kind]
    defaults = {"learning_rate": 0.02, "weight_decay": [DECAY[k] for k in heads], "batch_size": 32, "patience": 3}
    return train_stack(
        make(tuple(SEEDS[k] for k in heads)),
        source if data is None else data,
        LABELS[heads],
        FIT[heads],
        HELD[heads],
        Schedule(**(defaults | {"max_epochs": 40} | settings)),
    )


def _logits(kind: str, stack: Stack, k: int) -> np.ndarray:
    everything = torch.ones(N, dtype=torch.bool)
    with torch.inference_mode():
        return torch.cat([stack.head(k)(batch) for _, batch in KINDS[kind][1].blocks(everything)]).numpy()


@pytest.fixture(scope="module", params=KINDS)
def together(request) -> tuple[str, StackResult]:
    return request.param, _train(request.param, list(range(K)))


def test_a_stack_comes_out_as_its_heads_alone(together):
    kind, result = together
    for k in range(K):
        alone = _train(kind, [k])
        assert result.best_epochs[k] == alone.best_epochs[0]
        np.testing.assert_allclose(result.losses[k], alone.losses[0], rtol=1e-3)
        np.testing.assert_allclose(_logits(kind, result.stack, k), _logits(kind, alone.stack, 0), atol=2e-3)
    assert len({len(losses) for losses in result.losses}) > 1  # some left the stack before others
    for changed in ({"seed": 1}, {"weight_decay": 2 * DECAY[1]}):  # what a difference looks like
        other = _train(kind, [1], **changed)
        assert np.abs(_logits(kind, result.stack, 1) - _logits(kind, other.stack, 0)).max() > 2e-2


def test_every_head_keeps_the_weights_of_its_best_epoch(together):
    kind, result = together
    found = held_out_logits(result.stack, KINDS[kind][1], HELD)
    for k, logits in enumerate(found):
        loss = float(cross_entropy(torch.from_numpy(logits), torch.from_numpy(LABELS[k][HELD[k]])))
        assert loss == pytest.approx(min(result.losses[k]), rel=1e-4)
        assert int(np.argmin(result.losses[k])) + 1 == result.best_epochs[k]
        assert len(result.losses[k]) == min(result.best_epochs[k] + 3, 40)
    np.testing.assert_allclose(result.best_losses, [min(losses) for losses in result.losses])
    assert any(losses[-1] > min(losses) + 1e-3 for losses in result.losses)  # the last epoch's would show


def test_held_out_logits_are_of_each_heads_own_rows_in_their_order(together):
    kind, result = together
    for k, logits in enumerate(held_out_logits(result.stack, KINDS[kind][1], HELD)):
        everywhere = _logits(kind, result.stack, k)
        np.testing.assert_allclose(logits, everywhere[HELD[k]], atol=1e-4)
        assert np.abs(logits - np.roll(everywhere[HELD[k]], 1, axis=0)).max() > 1e-2


@pytest.mark.parametrize("hidden_size", [0, 8])
def test_one_head_is_what_plain_torch_makes_of_the_same_batches(hidden_size):
    epochs, rate, decay = 3, 0.02, 0.3
    stack = ClassifierStack([5], D, 3, hidden_size=hidden_size)
    fit, held = np.ones((1, N), dtype=bool), HELD[:1]
    schedule = Schedule(rate, decay, batch_size=64, max_epochs=epochs, patience=epochs, seed=9)
    result = train_stack(stack, X, Y, fit, held, schedule)
    stack.standardise_by(torch.from_numpy(X.mean(axis=0))[None], torch.from_numpy(X.std(axis=0))[None])
    network = stack.head(0).train()
    network.begin_at_shares(torch.from_numpy(Y))
    optimizer = torch.optim.AdamW(network.body.parameters(), lr=rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(9)
    states = []
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(N, generator=generator), 64):
            optimizer.zero_grad()
            cross_entropy(network(torch.from_numpy(X[rows])), torch.from_numpy(Y[rows])).backward()
            optimizer.step()
        states.append({name: value.detach().clone() for name, value in network.state_dict().items()})
    found = result.stack.head(0).state_dict()
    best = int(result.best_epochs[0]) - 1
    for name, value in states[best].items():
        np.testing.assert_allclose(found[name], value, atol=2e-4)
    assert any(float((found[name] - states[best - 1][name]).abs().max()) > 1e-2 for name in found)


def _weights(result: StackResult, k: int = 0) -> np.ndarray:
    return np.concatenate([tensor[k].ravel().numpy() for tensor in result.stack.tensors.values()])


@pytest.mark.parametrize("kind", ["linear", "mlp", "mix"])
def test_rows_that_a_head_does_not_fit_on_have_no_part_in_it(kind):
    make, _ = KINDS[kind]

    def train(changed: np.ndarray) -> np.ndarray:
        other, labels = X.copy(), Y.copy()
        other[changed] = 1e4 * np.random.default_rng(0).normal(size=(changed.sum(), D))
        labels[changed] = -7  # no class at all
        schedule = Schedule(learning_rate=0.02, batch_size=32, max_epochs=4)
        return _weights(train_stack(make((1,)), other, labels, FIT[:1], HELD[:1], schedule))

    neither = ~FIT[0] & ~HELD[0]
    assert neither.sum() > 40
    np.testing.assert_array_equal(train(neither), train(np.zeros(N, dtype=bool)))
    with pytest.raises(HeadError, match="no class"):
        train(FIT[0])


def test_another_heads_rows_have_no_part_in_a_head():
    def train(rows: np.ndarray) -> np.ndarray:
        other = X.copy()
        other[rows] *= -1.5
        schedule = Schedule(learning_rate=0.02, batch_size=32, max_epochs=4)
        return _weights(train_stack(ClassifierStack([1, 1], D, 3, hidden_size=8), other, Y, fit, held, schedule), 1)

    half = np.arange(N) < N // 2
    fit, held = np.stack([half, ~half]) & (FOLD > 0), np.stack([half, ~half]) & (FOLD == 0)
    straight = train(np.zeros(N, dtype=bool))
    np.testing.assert_allclose(train(half), straight, atol=1e-4)
    assert np.abs(train(fit[1]) - straight).max() > 1e-2


def test_each_head_standardises_by_its_own_rows_or_by_what_is_given():
    schedule = Schedule(max_epochs=1)
    own = train_stack(ClassifierStack(SEEDS, D, 3), X, Y, FIT, HELD, schedule).stack
    for k in range(K):
        network = own.head(k)
        np.testing.assert_allclose(network.mean, X[FIT[k]].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(network.scale, X[FIT[k]].std(axis=0), rtol=1e-5)
    assert not np.allclose(own.head(0).mean, own.head(1).mean, rtol=1e-5)
    rng = np.random.default_rng(0)
    given = rng.normal(size=(K, D)), rng.uniform(1, 2, size=(K, D))
    stack = train_stack(ClassifierStack(SEEDS, D, 3), X, Y, FIT, HELD, schedule, standardisation=given).stack
    np.testing.assert_allclose(stack.head(2).mean, given[0][2], rtol=1e-6)
    np.testing.assert_allclose(stack.head(2).scale, given[1][2], rtol=1e-6)


def test_features_far_from_zero_lose_nothing():
    far = X + np.float32(1024)  # still exact to 1e-4 of their spread
    near, moved = (
        train_stack(
            ClassifierStack(SEEDS, D, 3, hidden_size=8), np.float32(data), Y, FIT, HELD, Schedule(0.02, max_epochs=3)
        )
        for data in (far - np.float32(1024), far)
    )
    for k in range(K):
        np.testing.assert_allclose(moved.losses[k], near.losses[k], rtol=2e-3)


def test_on_shuffled_labels_a_head_stays_at_chance():
    true = np.digitize(SIGNAL, [np.median(SIGNAL)])
    labels = np.stack([true, np.random.default_rng(0).permutation(true)])
    held = np.stack([FOLD < 2] * 2)
    result = train_stack(ClassifierStack([0, 0], D, 2), X, labels, ~held, held, Schedule(learning_rate=0.02))
    of_true, of_shuffled = (
        float((logits.argmax(axis=1) == labels[k][held[k]]).mean())
        for k, logits in enumerate(held_out_logits(result.stack, X, held))
    )
    assert of_true > 0.85
    assert abs(of_shuffled - 0.5) < 0.12
    assert result.best_losses[1] > 0.6 > 0.4 > result.best_losses[0]


def test_heads_that_have_stopped_leave_the_stack():
    told: list[tuple[int, int]] = []
    _, data = KINDS["linear"]
    widths: list[int] = []

    class Watched(ClassifierStack):
        def logits(self, batch, dropped=None):
            if torch.is_grad_enabled():
                widths.append(len(self))
            return super().logits(batch, dropped)

    schedule = Schedule(0.02, DECAY, batch_size=N, patience=3, max_epochs=60)
    result = train_stack(Watched(SEEDS, D, 3), data, LABELS, FIT, HELD, schedule, told=lambda *args: told.append(args))
    ends = [len(losses) for losses in result.losses]
    stops = [end < 60 or 60 - best >= 3 for end, best in zip(ends, result.best_epochs, strict=True)]
    left = [sum(end > epoch or not stop for end, stop in zip(ends, stops, strict=True)) for epoch, _ in told]
    assert [going for _, going in told] == left
    assert widths == [sum(end >= epoch for end in ends) for epoch, _ in told]
    assert min(ends) < max(ends)
    assert told[-1][0] == max(ends)


def test_a_stack_that_is_trained_is_not_changed():
    stack = ClassifierStack(SEEDS, D, 3, hidden_size=8)
    before = {name: tensor.clone() for name, tensor in stack.tensors.items()}
    result = train_stack(stack, X, Y, FIT, HELD, Schedule(max_epochs=2))
    for name, tensor in before.items():
        assert torch.equal(stack.tensors[name], tensor)
        assert not torch.equal(result.stack.tensors[name], tensor)
    assert torch.equal(stack.mean, torch.zeros(K, D))


def test_no_random_state_but_its_own_is_touched():
    state = torch.get_rng_state()
    first, again = (_weights(_train("mlp with dropout", [0, 1], max_epochs=2)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_divergence_names_the_head():
    with pytest.raises(HeadError, match="diverged") as caught:
        train_stack(
            ClassifierStack(SEEDS[:2], D, 3),
            X,
            Y,
            FIT[:2],
            HELD[:2],
            Schedule(learning_rate=1.0, weight_decay=(0.0, 1e30), max_epochs=20),
            names=["calm", "wild"],
        )
    assert str(caught.value.where).startswith("wild, epoch")
    train_stack(ClassifierStack(SEEDS[:1], D, 3), X, Y, FIT[:1], HELD[:1], Schedule(1.0, 0.0, max_epochs=20))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": Y[:-1]}, "do not go together"),
        ({"fit": FIT[:2]}, "do not go together"),
        ({"held": HELD[:, :-1]}, "do not go together"),
        ({"data": X[:, :-1]}, "do not go together"),
        ({"schedule": Schedule(weight_decay=(0.1, 0.2))}, "do not go together"),
        ({"fit": FIT & (np.arange(K) != 2)[:, None]}, "no rows to fit on\n  where: head 2"),
        ({"held": HELD & (np.arange(K) != 1)[:, None]}, "no rows held out to stop on\n  where: head 1"),
        ({"y": Y + 1}, "no class\n  where: head 0"),
        ({"y": Y - 1}, "no class"),
        ({"data": np.where(np.arange(D) == 3, np.nan, X).astype(np.float32)}, "not finite"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed, message):
    arguments = {"data": X, "y": Y, "fit": FIT, "held": HELD, "schedule": Schedule(max_epochs=1)}
    train_stack(ClassifierStack(SEEDS, D, 3), **arguments)
    with pytest.raises(HeadError, match=message):
        train_stack(ClassifierStack(SEEDS, D, 3), **(arguments | changed))


def test_a_class_that_a_head_never_sees_is_improbable_and_not_impossible():
    fit = FIT & (Y < 2)
    result = train_stack(ClassifierStack(SEEDS, D, 3), X, Y, fit, HELD, Schedule(learning_rate=1e-6, max_epochs=1))
    probabilities = torch.from_numpy(held_out_logits(result.stack, X, HELD)[0]).softmax(dim=1)
    assert 0 < float(probabilities[:, 2].max()) < 1 / fit[0].sum()
    assert np.isfinite(result.best_losses).all()
