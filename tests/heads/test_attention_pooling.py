"""Attention pooling finds the position that says something, and does not see the padding."""

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier

from pipeline.cache import FeatureCache
from pipeline.errors import HeadError
from pipeline.heads.attention_pooling import AttentionPoolingHead, padded, pool
from pipeline.heads.token_rows import TokenRows
from pipeline.heads.torch_head import TorchHead

D = 8


def _rows(seed: int, n: int = 400) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Rows of 6 to 20 positions, of which one, marked by its first feature, knows the class; and which one it is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    lengths = rng.integers(6, 21, n)
    informed = rng.integers(lengths)
    rows = [rng.normal(size=(length, D)) for length in lengths]
    for row, place, label in zip(rows, informed, y, strict=True):
        row[place, :2] = 4.0, 2.0 * (2 * label - 1)
    return [(3.0 + 0.5 * row).astype(np.float32) for row in rows], y, informed


TRAIN, TEST = _rows(0), _rows(1)


@pytest.fixture(scope="module")
def head() -> AttentionPoolingHead:
    return AttentionPoolingHead(learning_rate=0.02, max_epochs=60).fit(*TRAIN[:2])


def test_the_informative_position_is_found_where_the_mean_dilutes_it(head):
    weights = head.attention(TEST[0])
    found = [int(of_row.argmax()) for of_row in weights]
    assert (np.asarray(found) == TEST[2]).mean() > 0.95
    assert np.mean([of_row.max() for of_row in weights]) > 0.8
    means = [np.stack([row.mean(axis=0) for row in rows]) for rows in (TRAIN[0], TEST[0])]
    of_means = TorchHead(learning_rate=0.02, max_epochs=60).fit(means[0], TRAIN[1])
    assert head.score(TEST[0], TEST[1]) > 0.95
    assert of_means.score(means[1], TEST[1]) < 0.9


def test_attention_is_a_weight_for_each_position(head):
    weights = head.attention(TEST[0][:20])
    assert [of_row.shape for of_row in weights] == [(len(row),) for row in TEST[0][:20]]
    assert [float(of_row.sum()) for of_row in weights] == pytest.approx([1.0] * 20, abs=1e-5)
    assert all((of_row > 0).all() for of_row in weights)


def test_the_length_of_other_rows_changes_nothing(head):
    light = AttentionPoolingHead(learning_rate=0.02, max_epochs=2).fit(*TRAIN[:2])  # it still looks at all positions
    short, long = TEST[0][0][:6], np.concatenate([TEST[0][1]] * 20)
    for each in (head, light):
        (alone,) = each.logits([short])
        np.testing.assert_allclose(each.logits([long, short, long])[1], alone, atol=1e-5)
        np.testing.assert_allclose(each.attention([long, short])[1], each.attention([short])[0], atol=1e-6)
    as_if_padded = light.logits([np.concatenate([short, np.zeros_like(short)])])[0]
    assert np.abs(as_if_padded - light.logits([short])[0]).max() > 1e-2


def test_what_stands_after_a_rows_end_weighs_nothing():
    scores, values = torch.randn(7, 2), torch.randn(7, 2, 3)
    lengths = torch.tensor([2, 5])
    found = pool(scores, values, lengths)
    for row, here in enumerate((slice(0, 2), slice(2, 7))):
        expected = torch.einsum("tk,tkm->km", scores[here].softmax(dim=0), values[here])
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
    without_mask = padded(scores, lengths, 0.0).softmax(dim=1)
    assert float(without_mask[0, 2:].min()) > 0.01  # what the mask keeps out


def test_the_network_is_the_equation(head):
    _, y, _ = TRAIN
    fitted = np.concatenate([row for row, out in zip(TRAIN[0], head._hold_out(y), strict=True) if not out])
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    query = head.module_.query.detach().numpy()
    output = head.module_.output
    for row, logits in zip(TEST[0][:10], head.logits(TEST[0][:10]), strict=True):
        z = (row - mean) / scale
        weights = torch.from_numpy(z @ query / D**0.5).softmax(dim=0).numpy()
        with torch.inference_mode():
            np.testing.assert_allclose(logits, output(torch.from_numpy(weights @ z)).numpy(), atol=1e-3)


def test_an_untrained_query_is_mean_pooling():
    head = AttentionPoolingHead(learning_rate=1e-9, max_epochs=1).fit(*TRAIN[:2])
    for weights in head.attention(TEST[0][:10]):
        np.testing.assert_allclose(weights, 1 / len(weights), rtol=1e-4)


def test_it_has_scikit_learns_manners(head):
    assert is_classifier(head)
    twin = clone(head)
    assert twin.get_params() == head.get_params()
    assert not hasattr(twin, "module_")
    logits, decisions = head.logits(TEST[0]), head.decision_function(TEST[0])
    assert logits.shape == (400, 2)
    np.testing.assert_array_equal(decisions, logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(head.predict_proba(TEST[0])[:, 1], 1 / (1 + np.exp(-decisions.astype(float))), rtol=1e-5)
    assert head.predict(TEST[0]).tolist() == (decisions > 0).astype(int).tolist()
    assert head.n_features_in_ == D


def test_a_feature_set_trains_and_is_read_as_the_same_rows_in_memory_are(tokens_cache, token_corpora):
    sets = [FeatureCache(tokens_cache.cache_dir).open("cola", split, layer=2, pooling="tokens") for split in SPLITS]
    corpus, held = (token_corpora[split] for split in SPLITS)
    settings = {"learning_rate": 0.02, "max_epochs": 40}
    stored = AttentionPoolingHead(**settings).fit(sets[0], sets[0].y, sets[1], sets[1].y)
    assert stored.score(sets[1], sets[1].y) > 0.9
    in_memory = held.X["L2-tokens"]
    np.testing.assert_array_equal(stored.logits(sets[1]), stored.logits(in_memory))
    some = np.array([5, 70, 6])
    np.testing.assert_allclose(stored.logits(TokenRows(sets[1])[some]), stored.logits(in_memory)[some], atol=1e-5)
    assert np.abs(np.diff(stored.logits(in_memory)[some], axis=0)).max() > 1e-2
    straight = AttentionPoolingHead(**settings).fit(corpus.X["L2-tokens"], corpus.truth, in_memory, held.truth)
    assert min(stored.losses_) == pytest.approx(min(straight.losses_), abs=0.05)


SPLITS = ("train", "validation")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([np.zeros((3, D)), np.zeros((2, D + 1))], "no rows of tokens"),
        ([np.zeros(D), np.zeros(D)], "no rows of tokens"),
        ([], "no rows of tokens"),
        ([np.zeros((3, D)), np.zeros((0, D))], "no positions\n  where: row 1"),
    ],
)
def test_what_are_no_rows_of_tokens_is_refused(head, rows, message):
    with pytest.raises(HeadError, match=message):
        AttentionPoolingHead().fit(rows, np.arange(len(rows)) % 2)
    with pytest.raises(HeadError, match=message):
        head.predict(rows)
    with pytest.raises(HeadError, match=rf"\[t, {D}\]"):
        head.predict([np.zeros((3, D - 1), dtype=np.float32)])


def test_a_pooled_view_is_refused(tokens_cache):
    pooled = FeatureCache(tokens_cache.cache_dir).open("cola", "train", layer=1, pooling="mean")
    with pytest.raises(HeadError, match="one vector a row"):
        AttentionPoolingHead().fit(pooled, pooled.y)
