"""The identity: every field decides the fingerprint, and nothing else does."""

import dataclasses
import hashlib
import json

import pytest

from pipeline.cache.identity import ABSENT, Difference, Identity, difference_table, differences, flatten
from pipeline.errors import CacheError

CHANGES = {
    "weights": "sha256:other",
    "architecture": {"model_type": "llama", "num_hidden_layers": 5, "hidden_size": 6},
    "adapter": "sha256:lora",
    "quantization": {"type": "nf4", "double": False, "block_size": 64, "compute_dtype": "float32"},
    "tokenizer": "sha256:other",
    "prompt": "Sentence: {} ",
    "special_tokens": False,
    "max_length": 511,
    "truncation": True,
    "layer": 3,
    "layer_norm": "final",
    "pooling": "last",
    "storage_dtype": "float16",
    "texts": "sha256:other",
}


def test_every_field_has_its_change_below(identity):
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Identity)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture.num_hidden_layers", 0),
        ("architecture.num_hidden_layers", True),
        ("architecture.num_hidden_layers", "4"),
        ("architecture.num_hidden_layers", None),
        ("layer", -1),
        ("layer", 5),
        ("layer_norm", "first"),
        ("pooling", "max"),
        ("pooling", ""),
    ],
)
def test_a_view_that_the_backbone_does_not_have_is_refused(identity, field, value):
    record = identity.to_dict()
    outer, _, inner = field.partition(".")
    record[outer] = {**record[outer], inner: value} if inner else value
    with pytest.raises(CacheError, match="field is wrong") as caught:
        Identity.from_dict(record)
    assert caught.value.where == field
    del record["architecture"]["num_hidden_layers"]
    with pytest.raises(CacheError, match="num_hidden_layers"):
        Identity.from_dict({**identity.to_dict(), "architecture": record["architecture"]})


def test_the_first_and_the_last_layer_are_layers(identity):
    for layer in (0, identity.architecture["num_hidden_layers"]):
        assert Identity.from_dict({**identity.to_dict(), "layer": layer}).layer == layer


@pytest.mark.parametrize("field", CHANGES)
def test_any_one_field_changes_the_fingerprint(identity, field):
    changed = dataclasses.replace(identity, **{field: CHANGES[field]})
    assert changed.fingerprint != identity.fingerprint
    assert dataclasses.replace(changed, **{field: getattr(identity, field)}).fingerprint == identity.fingerprint


def test_no_two_changes_share_a_fingerprint(identity):
    prints = {dataclasses.replace(identity, **{field: value}).fingerprint for field, value in CHANGES.items()}
    assert len(prints) == len(CHANGES)


@pytest.mark.parametrize("field", ["architecture", "quantization"])
def test_every_fact_inside_a_record_changes_the_fingerprint(identity, field):
    record = getattr(identity, field)
    prints = {dataclasses.replace(identity, **{field: {**record, name: "other"}}).fingerprint for name in record}
    prints.add(dataclasses.replace(identity, **{field: {**record, "one_more": 1}}).fingerprint)
    assert len(prints | {identity.fingerprint}) == len(record) + 2


def test_the_fingerprint_is_64_hex_digits_and_does_not_depend_on_the_order_of_keys(identity):
    backwards = dataclasses.replace(identity, architecture=dict(reversed(identity.architecture.items())))
    assert list(backwards.architecture) != list(identity.architecture)
    assert backwards.fingerprint == identity.fingerprint
    assert len(identity.fingerprint) == 64
    assert set(identity.fingerprint) <= set("0123456789abcdef")


def test_the_fingerprint_is_the_sha256_of_the_canonical_json(identity):
    text = json.dumps(identity.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert identity.fingerprint == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("field", [None, *CHANGES])
def test_an_identity_survives_json(identity, field):
    original = identity if field is None else dataclasses.replace(identity, **{field: CHANGES[field]})
    again = Identity.from_dict(json.loads(json.dumps(original.to_dict())))
    assert again == original
    assert again.fingerprint == original.fingerprint


WRONG = {
    "weights": (None, 1, b"x"),
    "architecture": (None, "llama", []),
    "adapter": (1, {}, False),
    "quantization": (None, "nf4", []),
    "tokenizer": (None, 1),
    "prompt": (None, 1),
    "special_tokens": (None, 1, 0, "true"),
    "max_length": (None, "512", 512.0, True),
    "truncation": (None, 1, 0, "false"),
    "layer": (None, "2", 2.0, True),
    "layer_norm": (None, 1),
    "pooling": (None, 1),
    "storage_dtype": (None, 1),
    "texts": (None, 1),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_field_of_the_wrong_type_is_refused_by_name(identity, field, value):
    with pytest.raises(CacheError, match="field is wrong") as caught:
        Identity.from_dict({**identity.to_dict(), field: value})
    assert caught.value.where == field
    assert caught.value.found == repr(value)


@pytest.mark.parametrize("field", WRONG)
def test_a_missing_field_is_refused(identity, field):
    record = identity.to_dict()
    del record[field]
    with pytest.raises(CacheError, match="wrong fields"):
        Identity.from_dict(record)


@pytest.mark.parametrize("record", [None, [], "x", 3, {}])
def test_what_is_no_identity_is_refused(record):
    with pytest.raises(CacheError, match="wrong fields"):
        Identity.from_dict(record)


def test_an_unknown_field_is_refused(identity):
    with pytest.raises(CacheError, match="wrong fields") as caught:
        Identity.from_dict({**identity.to_dict(), "colour": "red"})
    assert "colour" in caught.value.found


def test_a_nested_record_flattens_to_dotted_names():
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": None}}}) == {"a": 1, "b.c": 2, "b.d.e": None}


def test_differences_are_only_what_was_wanted_and_is_otherwise():
    wanted = {"layer": 2, "prompt": "a", "absent": True}
    found = {"layer": 3, "prompt": "a", "more": 1}
    assert differences(wanted, found) == [Difference("layer", 2, 3), Difference("absent", True, ABSENT)]
    assert differences(found, found) == []


def test_a_table_of_differences_is_aligned():
    table = difference_table([Difference("layer", 20, 2), Difference("pooling", "a", None)])
    assert table.split("\n") == [
        "    field    wanted  found",
        "    layer    20      2",
        "    pooling  a       null",
    ]
