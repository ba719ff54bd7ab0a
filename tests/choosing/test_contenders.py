"""What people write for a contender, and what is said of what they should not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.choosing.contender import QUANTIZATIONS, Contender, parse_contenders
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "contender"),
    [
        ("smollm2-135m", Contender("smollm2-135m")),
        ("smollm2-135m:int8", Contender("smollm2-135m", "int8")),
        ("smollm2-135m@20", Contender("smollm2-135m", "nf4", 20)),
        ("org/name:none@0.67", Contender("org/name", "none", 0.67)),
        ("org/name#refs/pr/1:nf4@-2", Contender("org/name", "nf4", -2, "refs/pr/1")),
        ("org/name#v1.0", Contender("org/name", revision="v1.0")),
        ("../my models/a:checkpoint", Contender("../my models/a", "checkpoint")),
    ],
)
def test_a_specification_and_what_it_means(text, contender):
    assert parse_contenders([text]) == (contender,)


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}(/[a-z0-9._-]{1,8})?", fullmatch=True)
LAYERS = st.just(-1) | st.integers(-40, 40) | st.floats(0, 1).map(lambda share: round(share, 3))
CONTENDERS = st.builds(
    Contender,
    NAMES,
    st.sampled_from(QUANTIZATIONS),
    LAYERS,
    st.none() | st.from_regex("[a-z0-9./-]{1,9}", fullmatch=True),
)


@settings(max_examples=40)
@given(st.lists(CONTENDERS, min_size=1, max_size=4, unique_by=str))
def test_what_is_written_of_a_contender_is_read_as_the_same(contenders):
    assert parse_contenders([str(each) for each in contenders]) == tuple(contenders)


def test_a_folder_is_shown_by_its_name_and_a_hub_id_whole():
    labels = [each.label for each in parse_contenders(["/models/Some Model:none@3", "org/name", "smollm2-135m:int8"])]
    assert labels == ["some-model:none@3", "org/name:nf4", "smollm2-135m:int8"]


def test_all_that_is_wrong_is_said_at_once():
    wrong = ["a:nf3", "b@top", ":nf4", "c", "c:nf4@-1", "d@1.5", "e#:nf4", ""]
    with pytest.raises(ConfigError) as error:
        parse_contenders(["smollm2-135m", *wrong])
    message = str(error.value)
    for part in ("'nf3'", "'top'", "':nf4'", "'c:nf4@-1': the same as 'c'", "1.5", "'e#:nf4'", "''"):
        assert part in message
    assert message.count("\n  - ") == len(wrong) - 1
    assert "smollm2-135m" not in message
