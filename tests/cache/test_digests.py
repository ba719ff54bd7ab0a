"""Digests tell apart what is different, and only that."""

import hashlib
import json
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.digests import canonical_json, sha256_of_file, sha256_of_record, sha256_of_texts

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def test_the_borders_between_texts_count():
    assert sha256_of_texts(["ab", "c"]) != sha256_of_texts(["a", "bc"])
    assert sha256_of_texts(["ab"]) != sha256_of_texts(["ab", ""])
    assert sha256_of_texts([]) != sha256_of_texts([""])
    assert hashlib.sha256(b"ab" + b"c").digest() == hashlib.sha256(b"a" + b"bc").digest()  # what joining would give


def test_the_order_of_texts_counts():
    assert sha256_of_texts(["a", "b"]) != sha256_of_texts(["b", "a"])


def test_a_text_that_looks_like_a_length_is_still_a_text():
    length = (1).to_bytes(8, "little").decode()
    assert sha256_of_texts([length + "a"]) != sha256_of_texts(["", "a"])
    assert sha256_of_texts(["a", "b"]) != sha256_of_texts([f"a{length}b"])


@settings(deadline=None)
@given(left=st.lists(TEXT, max_size=5), right=st.lists(TEXT, max_size=5))
def test_different_texts_have_different_digests(left, right):
    assert (sha256_of_texts(left) == sha256_of_texts(right)) == (left == right)


@settings(deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=5), cut=st.integers(0, 4), place=st.integers(0, 20))
def test_cutting_a_text_in_two_changes_the_digest(texts, cut, place):
    assume(cut < len(texts))
    text = texts[cut]
    pieces = [*texts[:cut], text[:place], text[place:], *texts[cut + 1 :]]
    assert sha256_of_texts(pieces) != sha256_of_texts(texts)


@settings(deadline=None)
@given(record=st.dictionaries(TEXT, JSON, max_size=6), seed=st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(record, seed):
    items = list(record.items())
    seed.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(record)
    assert json.loads(canonical_json(record)) == record


def test_canonical_json_is_dense_sorted_utf8():
    assert canonical_json({"b": [1, 2.5, None, True], "a": {"z": "é", "y": ""}}) == (
        '{"a":{"y":"","z":"é"},"b":[1,2.5,null,true]}'.encode()
    )
    assert canonical_json([1, 2]) != canonical_json([2, 1])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_canonical_json_has_no_number_that_json_lacks(number):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": number})


def test_the_digest_of_a_record_is_that_of_its_canonical_json():
    record = {"b": 1, "a": "é"}
    assert sha256_of_record(record) == hashlib.sha256(canonical_json(record)).hexdigest()
    assert sha256_of_record(record) != sha256_of_record({**record, "b": 2})


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"abc", bytes(1_000_000)):
        path.write_bytes(content)
        assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()
