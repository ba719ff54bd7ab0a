"""The fast test for finite numbers says what looking at each of them says."""

from functools import partial

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache.finite import all_finite, examine, examine_all
from pipeline.cache.shard import RAW, to_float32

DTYPES = sorted(RAW)


def bits_of(dtype, numbers):
    numbers = np.asarray(numbers, np.float32)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else numbers.astype(RAW[dtype])


@settings(max_examples=300, deadline=None)
@given(dtype=st.sampled_from(DTYPES), data=st.data())
def test_any_bits_are_judged_as_numpy_judges_the_numbers(dtype, data):
    width = RAW[dtype].itemsize
    bits = np.frombuffer(data.draw(st.binary(min_size=width, max_size=64 * width)), np.uint8)
    bits = bits[: len(bits) // width * width].view(RAW[dtype])
    assert all_finite(bits, dtype) == bool(np.isfinite(to_float32(bits, dtype)).all())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_each_of_all_16_bit_patterns(dtype):
    bits = np.arange(2**16, dtype=np.uint16).view(RAW[dtype])
    expected = np.isfinite(to_float32(bits, dtype))
    assert 0 < (~expected).sum() < 2**12
    assert [all_finite(bits[i : i + 1], dtype) for i in range(2**16)] == expected.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2**17 - 1, 2**17, 2**18, 2**18 + 4])
def test_one_value_anywhere_in_many_blocks_is_found(dtype, value, place):
    bits = bits_of(dtype, np.random.default_rng(0).standard_normal(2**18 + 5))
    assert all_finite(bits, dtype)
    bits[place] = bits_of(dtype, [value])[0]
    assert not all_finite(bits, dtype)


def test_finite_numbers_whose_sum_is_not_finite_pass():
    large = np.full(1000, np.finfo(np.float32).max)
    with np.errstate(over="ignore"):
        assert np.isinf(np.add.reduce(large))
    assert all_finite(large, "float32")
    large[::2] *= -1
    assert all_finite(large, "float32")
    large[3] = -np.inf
    assert not all_finite(large, "float32")


def test_two_infinities_that_cancel_do_not_pass():
    assert not all_finite(np.array([np.inf, -np.inf, 1], np.float32), "float32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_finite_and_any_shape_is_read(dtype):
    assert all_finite(np.zeros((0, 4), RAW[dtype]), dtype)
    assert all_finite(bits_of(dtype, np.ones((3, 5, 2))), dtype)


@pytest.mark.parametrize("cores", [1, 3])
def test_one_pass_sees_every_number_and_every_byte(monkeypatch, cores):
    monkeypatch.setattr("pipeline.cache.finite.usable_cores", lambda: cores)
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(200_000, 3)).astype(np.float32) for _ in range(5)]
    parts[3][150_000, 1] = np.nan
    found = examine_all([partial(examine, b"before", part, b"after", "float32") for part in parts])
    assert [finite for finite, _ in found] == [True, True, True, False, True]
    assert [digest for _, digest in found] == [
        xxhash.xxh3_128_hexdigest(b"before" + part.tobytes() + b"after") for part in parts
    ]
    assert examine_all([]) == []


def test_nothing_between_is_the_digest_of_what_is_around():
    empty = np.zeros((0, 4), np.float32)
    assert examine(b"ab", empty, b"c", "float32") == (True, xxhash.xxh3_128_hexdigest(b"abc"))
