"""Tables in terminals of any width: words stay whole as long as they can, and what was left out is said."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from pipeline.fitting_table import FittingTable, fitting_widths
from pipeline.joints import broken_at_joints


def _shown(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def _runs():
    table = FittingTable(("seconds", "head"), caption="about")
    for name in ("task", "head", "seconds", "run"):
        table.add_column(name, overflow="fold", no_wrap=name == "run")
    table.add_row("cola", "lora r=4 alpha=16 lr=0.001 epochs=1", "12.5", "20261126-215105-cola-lora-86dc18")
    table.add_row("sst2", "logreg", "1.5", "20261126-215105-sst2-logreg-86dc18")
    return table


def test_where_there_is_room_every_line_is_whole():
    text = _shown(_runs(), 120)
    assert "lora r=4 alpha=16 lr=0.001 epochs=1" in text
    assert "left out" not in text


def test_words_are_wrapped_before_a_column_goes_and_never_broken():
    text = _shown(_runs(), 72)
    assert "12.5" not in text and "left out for want of width: seconds" in text
    words = {word for line in text.splitlines() for word in line.replace("│", " ").split()}
    assert words >= {"lora", "r=4", "alpha=16", "epochs=1", "logreg", "cola", "sst2"}
    assert "20261126-215105-sst2-logreg-86dc18" in words


def test_where_nothing_more_can_go_the_longest_words_alone_are_broken():
    text = _shown(_runs(), 30)
    assert "seconds, head" in " ".join(text.split())
    assert "cola" in text and "20261126-215105-sst2-logreg-86dc18" not in text
    assert max(map(len, text.splitlines())) <= 30


def test_where_words_are_broken_columns_that_are_whole_are_broken_last():
    measured, whole = [(24, 24), (30, 30), (4, 4)], [True, False, False]
    assert fitting_widths(measured, 40, whole) == [24, 12, 4]
    assert fitting_widths(measured, 40) == [18, 18, 4]
    assert max(fitting_widths(measured, 30, whole)) < 24  # no room for them


@pytest.mark.parametrize("room", [1, 12, 20, 33, 50, 400])
def test_widths_fill_the_room_and_no_more(room):
    measured = [(4, 4), (6, 35), (5, 20), (10, 10)]
    widths = fitting_widths(measured, room)
    assert all(1 <= width <= most for width, (_, most) in zip(widths, measured, strict=True))
    assert sum(widths) <= max(room, 4)
    if room >= 25:
        assert all(width >= least for width, (least, _) in zip(widths, measured, strict=True))
        assert sum(widths) == 69 or sum(widths) > room - len(measured)


def test_cells_are_shortened_before_a_column_goes_and_what_is_not_shown_is_not_explained():
    table = _runs()
    table.notes = {"task": "task: what is learned", "seconds": "seconds: of training"}
    table.shorten("run", ["86dc18", "86dc19"], "run: its end")
    wide, narrow, least = (" ".join(_shown(table, width).split()) for width in (120, 60, 32))
    assert "about. task: what is learned. seconds: of training" in wide and "its end" not in wide
    assert "12.5" in narrow and "86dc19" in narrow and "lora-86dc18" not in narrow and "run: its end" in narrow
    assert "left out" not in narrow and "of training" in narrow
    assert "left out for want of width: seconds" in least and "of training" not in least


def test_headers_with_commas_are_told_apart_and_lines_of_a_caption_stay_lines():
    table = FittingTable(
        ("live, s", "saved"), caption="in all: 2\none: damaged", notes={"task": "task: what is learned"}
    )
    table.caption_justify = "left"
    for name in ("task", "live, s", "saved"):
        table.add_column(name, no_wrap=True)
    table.add_row("cola" * 4, "1" * 16, "2" * 16)
    text = _shown(table, 34)
    assert "left out for want of width: live, s; saved" in " ".join(text.split())
    lines = [line.strip() for line in text.splitlines()]
    assert "one: damaged" in lines
    assert lines[lines.index("one: damaged") + 1].startswith("task: what is")


@pytest.mark.parametrize("styled", [False, True])
def test_a_word_that_is_too_wide_is_broken_behind_a_joint(styled):
    table = FittingTable()
    for name in ("views", "number"):
        table.add_column(name, overflow="fold", no_wrap=name == "number")
    views = "L16-mean+L20-mean+L30-last"
    table.add_row(Text(views, "bold") if styled else views, "0.4567")
    cells = [line.split("│")[1].strip() for line in _shown(table, 35).splitlines() if line.count("│") == 3]
    assert cells == ["L16-mean+L20-mean+", "L30-last"]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("short enough", 12, ["short enough"]),
        ("on L16-mean+L20-mean now", 12, ["on L16-mean+", "L20-mean now"]),
        ("data/runs/20261127-a.parquet", 14, ["data/runs/", "20261127-", "a.parquet"]),
        ("data/predictions.parquet", 18, ["data/predictions.", "parquet"]),
        ("aggregation-of-everything", 16, ["aggregation-of-", "everything"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("a/bcdefghij", 9, ["a/", "bcdefghij"]),
        ("数据+很长的名字", 9, ["数据+", "很长的名", "字"]),
        ("数", 1, ["数"]),
    ],
)
def test_breaks_are_as_far_on_as_fits(text, width, lines):
    broken = broken_at_joints(Text(text), width).plain
    console = Console(width=max(width, 2), file=io.StringIO())
    console.print(Text(broken), end="", soft_wrap=False)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == lines
    assert broken.replace("\n", "") == text


def test_a_broken_word_keeps_its_styles():
    text = Text.assemble(("L16-mean+L20", "red"), "-mean+L30-last", style="bold")
    broken = broken_at_joints(text, 12)
    assert broken.plain == "L16-mean+\nL20-mean+\nL30-last"
    red = [broken.plain[span.start : span.end] for span in broken.spans if span.style == "red"]
    assert "".join(red).replace("\n", "") == "L16-mean+L20"
