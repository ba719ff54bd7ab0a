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


def test_a_command_can_be_copied(forty):
    message = "  do: run pipeline extract --tasks cola --layers 10 20 --poolings mean last"
    assert wrapped(message, Terminal()) == message


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
