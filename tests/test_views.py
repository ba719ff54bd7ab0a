"""Views: which layer a number means, and how a view is written down."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.views import POOLINGS, View, check_pooling, parse_layer, resolve_layer


@pytest.mark.parametrize(
    ("layer", "number"), [(0, 0), (7, 7), (30, 30), (-1, 30), (-2, 29), (-31, 0), (0.0, 0), (0.5, 15), (1.0, 30)]
)
def test_layers_count_as_hidden_states_do(layer, number):
    assert resolve_layer(layer, 30) == number


def test_one_whole_number_is_a_layer_and_one_point_zero_a_share():
    assert resolve_layer(1, 30) == 1
    assert resolve_layer(1.0, 30) == 30


@settings(deadline=None)
@given(depth=st.integers(1, 200), data=st.data())
def test_a_negative_layer_is_what_python_indexing_says(depth, data):
    layers = list(range(depth + 1))
    layer = data.draw(st.integers(-depth - 1, depth))
    assert resolve_layer(layer, depth) == layers[layer]


@settings(deadline=None)
@given(share=st.floats(0, 1), depth=st.integers(1, 200))
def test_a_share_of_the_depth_is_the_nearest_layer(share, depth):
    number = resolve_layer(share, depth)
    assert isinstance(number, int)
    assert 0 <= number <= depth
    assert abs(number - share * depth) <= 0.5


@pytest.mark.parametrize("layer", [31, -32, 1000, 1.01, -0.01, math.nan, math.inf])
def test_a_layer_that_the_backbone_lacks_is_refused_and_the_range_named(layer):
    with pytest.raises(ConfigError, match="no such layer") as caught:
        resolve_layer(layer, 30)
    assert "0 (embeddings) to 30 (last), -1 to -31" in str(caught.value)
    assert f"found: {layer}" in str(caught.value)


LAYERS = st.integers(-500, 500) | st.integers(0, 10_000).map(lambda number: number / 10_000)


@settings(deadline=None)
@given(layer=LAYERS, pooling=st.sampled_from(POOLINGS))
def test_a_view_reads_back_as_it_was_written(layer, pooling):
    view = View(layer, pooling)
    again = View.parse(str(view))
    assert again == view
    assert type(again.layer) is type(layer)


def test_a_view_reads_as_the_docs_write_it():
    assert View.parse("L20-mean") == View(20, "mean")
    assert View.parse("L-1-last") == View(-1, "last")
    assert View.parse("L0.6-tokens") == View(0.6, "tokens")
    assert View.parse("L20-mean") != View.parse("L20-last")


def test_a_resolved_view_keeps_its_pooling():
    assert View(-1, "last").resolved(12) == View(12, "last")
    assert View(0.25, "first").resolved(12) == View(3, "first")


@pytest.mark.parametrize(
    "text",
    ["", "20-mean", "L20", "L20-", "L-mean", "Lx-mean", "L20-mean ", " L20-mean", "l20-mean", "L20_mean", "L20-MEAN"],
)
def test_a_text_that_is_no_view_is_refused_and_repeated(text):
    with pytest.raises(ConfigError, match="this is no view") as caught:
        View.parse(text)
    assert caught.value.found == text


@pytest.mark.parametrize("text", ["L1.2.3-mean", "L.-mean", "L1-2-mean", "L--1-mean"])
def test_a_view_whose_layer_is_no_number_is_refused(text):
    with pytest.raises(ConfigError):
        View.parse(text)


def test_an_unknown_pooling_is_refused_and_the_known_ones_named():
    with pytest.raises(ConfigError, match=r"last \| mean \| first \| tokens"):
        View.parse("L20-max")
    assert [check_pooling(name) for name in POOLINGS] == list(POOLINGS)


@pytest.mark.parametrize(("text", "layer"), [("20", 20), ("-1", -1), ("0.6", 0.6), ("1", 1), ("1.0", 1.0)])
def test_a_layer_is_read_as_a_person_writes_it(text, layer):
    found = parse_layer(text)
    assert (found, type(found)) == (layer, type(layer))


@pytest.mark.parametrize("text", ["", "last", "1,5", "0x10"])
def test_a_layer_that_is_no_number_is_refused(text):
    with pytest.raises(ConfigError, match="a layer is not a number"):
        parse_layer(text)
