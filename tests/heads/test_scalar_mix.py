"""The scalar mix finds the layer that says something, and is a linear head where there is only one."""

import numpy as np
import pytest
import torch

from pipeline.errors import HeadError
from pipeline.heads.scalar_mix import ScalarMixHead
from pipeline.heads.torch_head import TorchHead

N, L, D = 400, 4, 12
RNG = np.random.default_rng(5)
Y = RNG.integers(0, 2, N)
NOISE = RNG.normal(size=(N, L, D))
SIGNAL = np.outer(2 * Y - 1, RNG.normal(size=D) / D**0.5)


def _layers(informative: int | None) -> np.ndarray:
    """`[n, L * d]`: layers of noise at scales of their own; one of them, if any, tells the classes apart."""
    X = NOISE.copy()
    if informative is not None:
        X[:, informative] += 1.5 * SIGNAL
    return ((X * [[[1.0], [50.0], [0.1], [4.0]]]) - 7.0).reshape(N, L * D).astype(np.float32)


@pytest.mark.parametrize("hidden_size", [0, 16])
@pytest.mark.parametrize("informative", [0, 2])
def test_the_informative_layer_gets_the_largest_weight(informative, hidden_size):
    head = ScalarMixHead(layers=L, hidden_size=hidden_size).fit(_layers(informative), Y)
    assert head.weights_.shape == (L,)
    assert head.weights_.sum() == pytest.approx(1.0, abs=1e-6)
    assert int(head.weights_.argmax()) == informative
    assert head.weights_[informative] > 0.5
    assert head.score(_layers(informative), Y) > 0.8
    nothing = ScalarMixHead(layers=L, hidden_size=hidden_size).fit(_layers(None), Y)
    assert nothing.weights_.max() < 0.5


def test_of_one_layer_it_is_the_linear_head():
    X = _layers(1)
    settings = {"max_epochs": 15, "learning_rate": 0.01, "weight_decay": 0.1, "random_state": 2}
    mix, linear = ScalarMixHead(layers=1, **settings).fit(X, Y), TorchHead(**settings).fit(X, Y)
    np.testing.assert_allclose(mix.logits(X), linear.logits(X), atol=1e-5)
    np.testing.assert_allclose(mix.losses_, linear.losses_, rtol=1e-5)
    assert (mix.weights_.tolist(), mix.gamma_) == ([1.0], 1.0)
    two = ScalarMixHead(layers=2, **settings).fit(X, Y)
    assert np.abs(two.logits(X) - linear.logits(X)).max() > 1e-2


@pytest.mark.parametrize("hidden_size", [0, 16])
def test_the_network_is_the_equation(hidden_size):
    X = _layers(2)
    head = ScalarMixHead(layers=L, hidden_size=hidden_size, max_epochs=5).fit(X, Y)
    z = ((X - X[_fitted(X)].mean(axis=0)) / X[_fitted(X)].std(axis=0)).reshape(N, L, D)
    mixed = head.gamma_ * sum(weight * z[:, layer] for layer, weight in enumerate(head.weights_))
    with torch.inference_mode():
        expected = head.module_.body(torch.from_numpy(mixed.astype(np.float32))).numpy()
    np.testing.assert_allclose(head.logits(X), expected, atol=1e-4)
    assert len(set(head.weights_.tolist())) == L


def _fitted(X: np.ndarray) -> np.ndarray:
    return ~ScalarMixHead(layers=L)._hold_out(Y)


def test_weight_decay_leaves_the_mix_alone():
    settings = {"layers": L, "max_epochs": 5, "learning_rate": 1e-9}
    head = ScalarMixHead(**settings, weight_decay=1e6).fit(_layers(2), Y)
    assert head.gamma_ == pytest.approx(1.0, abs=1e-4)
    assert head.weights_ == pytest.approx([1 / L] * L, abs=1e-4)


def test_layers_of_unequal_width_are_refused():
    with pytest.raises(HeadError, match="not layers of equal width") as caught:
        ScalarMixHead(layers=5).fit(_layers(0), Y)
    assert (caught.value.expected, caught.value.found) == ("a multiple of 5 numbers a row", L * D)
    head = ScalarMixHead(layers=L, max_epochs=1).fit(_layers(0), Y)
    with pytest.raises(HeadError, match=f"n, {L * D}"):
        head.predict(_layers(0)[:, : L * (D - 1)])
    with pytest.raises(HeadError, match="layers: expected a whole number from 1 on, found 0"):
        ScalarMixHead(layers=0).fit(_layers(0), Y)
