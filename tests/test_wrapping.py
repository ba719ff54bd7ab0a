"""Long lines for people go on in the next, with words whole; where nobody looks, they are left alone."""

import io

import pytest

from pipeline.wrapping import wrapped
from tests.terminals import on_terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def forty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")


def test_words_stay_whole_and_what_follows_is_indented(forty):
    message = "pipeline: no such column\n  found: scor\n  expected: one of these names: accuracy, balanced_accuracy, f1"
    assert wrapped(message, Terminal()).split("\n") == [
        "pipeline: no such column",
        "  found: scor",
        "  expected: one of these names:",
        "    accuracy, balanced_accuracy, f1",
    ]


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        (
            "  do: no such features. To write them: pipeline extract --tasks cola --layers 10 20 --poolings mean last",
            [
                "  do: no such features. To write them:",
                "    pipeline extract --tasks cola --layers 10 20 --poolings mean last",
            ],
        ),
        (
            "  do: check the name; pipeline predict RUN --file test.tsv --to x.tsv writes one, of a run of cola",
            [
                "  do: check the name;",
                "    pipeline predict RUN --file test.tsv --to x.tsv writes one,",
                "    of a run of cola",
            ],
        ),
        (
            "  do: DATA=sample takes what is here (make setup), and make data fetches it with a network",
            [
                "  do: DATA=sample takes what is here",
                "    (make setup), and",
                "    make data fetches it with a network",
            ],
        ),
    ],
)
def test_a_command_can_be_copied(forty, line, lines):
    assert wrapped(line, Terminal()).split("\n") == lines
    assert " ".join(each.strip() for each in lines) == line.strip()


def test_lines_are_as_wide_as_their_characters_and_keep_their_spaces(forty):
    line = f"  found: {'数据' * 6} {'数据' * 5}  and some more words"
    assert wrapped(line, Terminal()).split("\n") == [
        f"  found: {'数据' * 6}",
        f"    {'数据' * 5}  and some more",
        "    words",
    ]


def test_a_word_that_is_too_wide_stays_whole(forty):
    path = "/a/very/long/path/that/is/wider/than/forty/characters.parquet"
    assert wrapped(f"  where: {path} and more", Terminal()).split("\n")[-2:] == [f"    {path}", "    and more"]


def test_where_nobody_looks_lines_are_whole(forty):
    message = "x " * 200
    assert wrapped(message, io.StringIO()) == message


def test_a_stream_that_is_closed_has_no_width(monkeypatch):
    closed = Terminal()
    closed.close()
    assert wrapped("x " * 200, closed) == "x " * 200
    monkeypatch.setattr("sys.stderr", None)
    assert wrapped("x " * 200) == "x " * 200


def test_a_command_complains_within_the_width_of_its_terminal(tmp_path):
    words = ["-m", "pipeline", "runs", "ls", "--where", "scor>0.1", "--runs-dir", str(tmp_path)]
    said, code = on_terminal(words, 60)
    lines = said.splitlines()
    assert code == 2 and "balanced_accuracy" in said
    assert len(lines) > 5 and max(map(len, lines)) <= 60
