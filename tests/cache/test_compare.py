"""Two feature sets side by side: every field in which they differ, and no other."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from pipeline.cache.compare import compare
from pipeline.cache.identity import flatten
from pipeline.housekeeping.tables import comparison_tables


@pytest.fixture
def manifest(corpus, tmp_path):
    """A feature set's manifest: `manifest(changes={…}, facts={…})`."""

    def write(**settings):
        return corpus(**settings).write(tmp_path / str(len(list(tmp_path.iterdir())))).manifest

    return write


def text_of(found, width=200):
    console = Console(width=width, file=io.StringIO())
    console.print(comparison_tables(found))
    return console.file.getvalue()


def fields(rows):
    return [row.field for row in rows]


def test_a_set_compared_with_itself_differs_in_nothing(manifest):
    found = compare(manifest(), manifest())
    assert found.identity == found.recorded == ()
    assert found.to_dict()["same_identity"] is True
    assert "identity: equal" in text_of(found)
    assert "recorded: equal" in text_of(found)


def test_what_differs_beside_equal_identities_is_said_apart(manifest):
    one = manifest()
    two = manifest(shard_rows=8, facts={"source": "glue", "recorded": {"numpy": "3", "device": "cpu"}})
    found = compare(one, two)
    assert found.identity == ()
    assert {"source", "shard_rows", "recorded.numpy", "recorded.device"} <= set(fields(found.recorded))
    assert set(fields(found.recorded)).isdisjoint({"task", "split", "rows", "labels", "backbone", "labelled"})
    assert set(fields(found.recorded)).isdisjoint({"digest", "seals", "fingerprint"})
    record = found.to_dict()
    assert {"field": "recorded.device", "b": "cpu"} in record["recorded"]
    assert {"field": "source", "a": "sample", "b": "glue"} in record["recorded"]
    assert "(absent)" in text_of(found)


def test_every_field_of_the_identity_is_compared(manifest, identity):
    one = manifest(changes=identity.to_dict())
    for name, value in flatten(identity.to_dict()).items():
        *outer, last = name.split(".")
        other = "sha256:x" if value is None else (not value if isinstance(value, bool) else type(value)(f"{value}1"))
        change = {outer[0]: {**getattr(identity, outer[0]), last: other}} if outer else {last: other}
        changed = dataclasses.replace(one, identity=dataclasses.replace(identity, **change))
        assert [(d.field, d.wanted, d.found) for d in compare(one, changed).identity] == [(name, value, other)]
        assert [(d.field, d.wanted, d.found) for d in compare(changed, one).identity] == [(name, other, value)]


@pytest.mark.parametrize(("one", "other"), [(1, True), (64, 64.0), (0, False)])
def test_values_that_differ_in_json_alone_differ(manifest, identity, one, other):
    sets = [
        dataclasses.replace(
            manifest(), identity=dataclasses.replace(identity, quantization={"type": "nf4", "double": value})
        )
        for value in (one, other)
    ]
    assert sets[0].fingerprint != sets[1].fingerprint
    assert fields(compare(*sets).identity) == ["quantization.double"]


def test_sets_of_other_tasks_and_splits_are_compared_field_by_field(manifest):
    one = manifest()
    two = manifest(changes={"prompt": "Review: {}", "texts": "sha256:dd"}, facts={"task": "sst2", "split": "test"})
    found = compare(one, two)
    assert fields(found.identity) == ["prompt", "texts"]
    assert {"task", "split"} <= set(fields(found.recorded))
    assert json.loads(json.dumps(found.to_dict()))["b"]["task"] == "sst2"


def test_a_field_that_only_one_has_stands_on_its_side(manifest):
    one = manifest()
    two = manifest(changes={"quantization": {"type": "nf4", "compute_dtype": "float32", "new": 3}})
    sides = {row["field"]: row for row in compare(one, two).to_dict()["identity"]}
    assert sides["quantization.double"] == {"field": "quantization.double", "a": True}
    assert sides["quantization.new"] == {"field": "quantization.new", "b": 3}


def test_long_prompts_are_shown_where_they_part(manifest):
    prompts = [f"{'Examples that both begin with. ' * 9}{end}: {{}}" for end in ("Sentence", "Text")]
    text = text_of(compare(*(manifest(changes={"prompt": prompt}) for prompt in prompts)))
    [line] = [line for line in text.split("\n") if line.startswith("│ prompt")]
    assert "Sentence: {}" in line
    assert "Text: {}" in line
    assert len(line) < 150


def test_in_a_narrow_terminal_values_go_on_within_their_columns(manifest):
    found = compare(
        manifest(changes={"texts": "sha256:" + "a" * 60}), manifest(changes={"texts": "sha256:" + "b" * 60})
    )
    text = text_of(found, width=60)
    assert max(map(len, text.split("\n"))) <= 60
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in text.split("\n") if line.startswith("│")]
    a, b = ("".join(row[side] for row in rows) for side in (1, 2))
    assert ("a" * 40 in a, "b" in a, "b" * 40 in b, "a" in b.replace("sha256", "")) == (True, False, True, False)
