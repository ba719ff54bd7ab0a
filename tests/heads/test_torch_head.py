"""The PyTorch head: scikit-learn's manners, early stopping, and randomness that stays inside."""

import ast
import inspect
import textwrap

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.metrics import log_loss

from pipeline.errors import HeadError
from pipeline.heads.torch_head import TorchHead

RNG = np.random.default_rng(2)
X = (RNG.normal(size=(260, 16)) * np.linspace(0.01, 50, 16) + 7).astype(np.float32)
Y = (X[:, 3] / X[:, 3].std() + RNG.normal(size=260) > (X[:, 3] / X[:, 3].std()).mean()).astype(np.int64)
FIT, HELD = slice(0, 180), slice(180, 260)


def _fit(head: TorchHead) -> TorchHead:
    return head.fit(X[FIT], Y[FIT], X[HELD], Y[HELD])


def test_settings_are_read_set_and_cloned_as_scikit_learn_does():
    head = TorchHead(hidden_size=7, dropout=0.25, random_state=3)
    assert set(head.get_params()) == set(inspect.signature(TorchHead.__init__).parameters) - {"self"}
    assert (head.get_params()["hidden_size"], head.get_params()["dropout"]) == (7, 0.25)
    assert head.set_params(learning_rate=0.5) is head
    assert head.learning_rate == 0.5
    with pytest.raises(ValueError, match="no_such"):
        head.set_params(no_such=1)
    fitted = _fit(head.set_params(learning_rate=1e-3))
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not hasattr(twin, "module_")
    assert is_classifier(head)


def test_the_constructor_only_keeps_what_it_is_given():
    marks = {name: object() for name in TorchHead().get_params()}
    head = TorchHead(**marks)
    assert vars(head) == marks
    body = ast.parse(textwrap.dedent(inspect.getsource(TorchHead.__init__))).body[0].body
    assert len(body) == len(marks)
    assert all(isinstance(line, ast.Assign) and isinstance(line.value, ast.Name) for line in body)


def test_names_that_fitting_makes_end_in_an_underscore():
    head = TorchHead(max_epochs=2)
    settings = set(vars(head))
    made = set(vars(_fit(head))) - settings
    assert made >= {"classes_", "best_epoch_", "losses_", "module_"}
    assert all(name.endswith("_") and not name.startswith("_") for name in made)
    assert head.get_params() == TorchHead(max_epochs=2).get_params()


def test_fitting_again_forgets_the_first_fit():
    head = TorchHead(hidden_size=4, max_epochs=3)
    first = _fit(head).decision_function(X).copy()
    head.fit(X[FIT][:, :5], 1 - Y[FIT], X[HELD][:, :5], 1 - Y[HELD])
    assert len(head.module_.mean) == 5
    np.testing.assert_array_equal(_fit(head).decision_function(X), first)


@pytest.fixture(scope="module")
def overfitted():
    """Much capacity, few rows: the held-out loss falls and then rises."""
    return _fit(TorchHead(hidden_size=64, dropout=0.0, learning_rate=0.02, weight_decay=0.0, patience=6))


def _loss(head: TorchHead) -> float:
    return log_loss(Y[HELD], head.predict_proba(X[HELD]))


def test_the_weights_of_the_best_epoch_are_kept(overfitted: TorchHead):
    losses = overfitted.losses_
    assert overfitted.best_epoch_ == int(np.argmin(losses)) + 1
    assert _loss(overfitted) == pytest.approx(min(losses), rel=1e-5)
    assert losses[-1] > min(losses) * 1.05
    last = TorchHead(**{**overfitted.get_params(), "max_epochs": len(losses), "patience": 1000})
    assert _loss(_fit(last)) == pytest.approx(min(losses), rel=1e-5)


def test_training_stops_when_the_loss_has_not_fallen_for_so_many_epochs(overfitted: TorchHead):
    assert len(overfitted.losses_) == overfitted.best_epoch_ + overfitted.patience < overfitted.max_epochs
    longer = _fit(TorchHead(**{**overfitted.get_params(), "patience": 12}))
    assert len(longer.losses_) == longer.best_epoch_ + 12
    assert longer.losses_[: len(overfitted.losses_)] == overfitted.losses_
    capped = _fit(TorchHead(**{**overfitted.get_params(), "max_epochs": 2}))
    assert capped.losses_ == overfitted.losses_[:2]


def test_held_out_rows_only_say_when_to_stop():
    """Their labels turned round change the epoch, and no step before it."""
    one = TorchHead(hidden_size=8, max_epochs=1)
    straight = _fit(clone(one)).decision_function(X)
    turned = clone(one).fit(X[FIT], Y[FIT], X[HELD], 1 - Y[HELD]).decision_function(X)
    np.testing.assert_array_equal(straight, turned)
    many = TorchHead(hidden_size=8, learning_rate=0.02)
    assert clone(many).fit(X[FIT], Y[FIT], X[HELD], 1 - Y[HELD]).best_epoch_ < _fit(clone(many)).best_epoch_


def test_features_are_standardised_by_the_rows_fitted_on():
    head = _fit(TorchHead(max_epochs=1))
    np.testing.assert_allclose(head.module_.mean.numpy(), X[FIT].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(head.module_.scale.numpy(), X[FIT].std(axis=0), rtol=1e-5)
    rescaled = TorchHead(max_epochs=5).fit(X[FIT] * 64 + 32, Y[FIT], X[HELD] * 64 + 32, Y[HELD])
    same = _fit(TorchHead(max_epochs=5))
    np.testing.assert_allclose(rescaled.decision_function(X * 64 + 32), same.decision_function(X), atol=1e-3)


def test_a_feature_that_never_changes_is_no_trouble():
    still = X.copy()
    still[:, 2] = 5.0
    head = TorchHead(max_epochs=3).fit(still[FIT], Y[FIT], still[HELD], Y[HELD])
    assert np.isfinite(head.decision_function(still)).all()


def test_logits_probabilities_and_classes_agree():
    head = _fit(TorchHead(hidden_size=8, learning_rate=0.01))
    logits, probabilities = head.logits(X), head.predict_proba(X)
    assert logits.shape == probabilities.shape == (260, 2)
    exp = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(probabilities, exp / exp.sum(axis=1, keepdims=True), rtol=1e-6)
    assert head.predict(X).tolist() == logits.argmax(axis=1).tolist()
    assert head.score(X[HELD], Y[HELD]) > 0.6
    np.testing.assert_array_equal(head.logits(X), logits)  # no dropout when it predicts


def test_class_numbers_need_not_begin_at_zero_or_follow_each_other():
    names = np.asarray([2, 5])
    head = TorchHead(max_epochs=3).fit(X[FIT], names[Y[FIT]], X[HELD], names[Y[HELD]])
    assert head.classes_.tolist() == [2, 5]
    assert head.predict(X).tolist() == names[_fit(TorchHead(max_epochs=3)).predict(X)].tolist()


@pytest.mark.parametrize("hidden_size", [0, 8])
def test_a_seed_decides_every_weight(hidden_size):
    def logits(seed: int) -> np.ndarray:
        return _fit(TorchHead(hidden_size=hidden_size, max_epochs=4, random_state=seed)).decision_function(X)

    first = logits(1)
    torch.rand(3)  # whatever happened before
    np.testing.assert_array_equal(first, logits(1))
    assert not np.array_equal(first, logits(2))


def test_fitting_leaves_the_global_random_states_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    head = _fit(TorchHead(hidden_size=8, max_epochs=3, random_state=5))
    head.predict_proba(X)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), torch_state)  # a draw would show


@pytest.mark.parametrize("shape", [(4, 15), (4, 17), (16,), (2, 2, 16)])
def test_features_of_another_width_are_refused(shape):
    head = _fit(TorchHead(max_epochs=1))
    with pytest.raises(HeadError, match=r"\[n, 16\]") as caught:
        head.predict(np.zeros(shape, dtype=np.float32))
    assert str(list(shape)) in str(caught.value)
    assert head.predict(np.zeros((4, 16), dtype=np.float32)).shape == (4,)


def test_training_that_diverges_is_said_to():
    with pytest.raises(HeadError, match="lower the learning rate"):
        _fit(TorchHead(hidden_size=8, learning_rate=1e30, max_epochs=20))


def test_no_argument_of_fit_is_written_to():
    copies = X.copy(), Y.copy()
    _fit(TorchHead(hidden_size=8, max_epochs=2)).predict(X)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(Y, copies[1])


@pytest.mark.parametrize("hidden_size", [0, 8])
def test_an_untrained_head_predicts_the_classes_shares(hidden_size):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)).astype(np.float32), np.repeat([2, 5], [30, 10])
    head = TorchHead(hidden_size=hidden_size, max_epochs=1, learning_rate=1e-12, weight_decay=0.0).fit(X, y, X, y)
    assert head.predict_proba(X) == pytest.approx(np.tile([0.75, 0.25], (40, 1)), abs=1e-5)


@pytest.mark.parametrize("hidden_size", [0, 16])
@pytest.mark.parametrize("width", [4, 64, 1024])
def test_a_step_of_the_default_rate_moves_a_logit_no_further_for_wide_features(width, hidden_size):
    rng = np.random.default_rng(width)
    X, y = rng.normal(size=(64, width)).astype(np.float32), np.repeat([0, 1], 32)
    head = TorchHead(hidden_size=hidden_size, max_epochs=1, batch_size=64, dropout=0.0).fit(X, y, X, y)
    apart = head.decision_function(X)
    assert 0 < np.abs(apart).mean() < 0.5
