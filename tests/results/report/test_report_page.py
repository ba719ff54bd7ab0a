"""The report in a browser: it opens, draws, searches, sorts, downloads, and everybody can use it."""

import csv
import io
import itertools
import json
from pathlib import Path

import pytest

from tests.results.report.conftest import HOSTILE, HOSTILE_RUN, draw

FIGURES = {
    "cost-cola", "cost-sst2", "layers-cola", "learning-cola", "learning-sst2", "calibration-cola",
    "calibration-sst2", "confusion-cola", "confusion-sst2", "sources-cola", "domains-cola", "phenomena-cola",
    "phenomena-sst2",
}  # fmt: skip
MARKS = ".scatterlayer .trace path, .heatmaplayer image, .heatmaplayer path"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_opens_without_a_complaint_and_draws_every_figure(look, width, scheme):
    page = look(width, scheme)
    assert page.title().startswith("CoLA and SST-2: what")
    drawn_at_once = page.evaluate("document.querySelectorAll('.plot[data-state=drawn]').length")
    assert drawn_at_once < 3  # figures wait until they come near
    assert {plot.get_attribute("data-figure") for plot in page.query_selector_all(".plot")} == FIGURES
    draw(page)
    for name in FIGURES:
        marks = page.query_selector_all(f"#{name} .plot :is({MARKS})")
        assert marks, f"{name} has no marks"
        assert page.query_selector(f"#{name} .plot .main-svg").bounding_box()["height"] > 150
    assert page.evaluate("document.documentElement.scrollWidth") == width
    lines = page.evaluate("[...document.querySelectorAll('main .keep')].map(each => each.getClientRects().length)")
    assert lines and max(lines) == 1  # options and names of views are not broken at their hyphens
    assert "--tasks sst2" in page.locator("p.note code", has_text="pipeline sweep").inner_text()


def test_what_is_drawn_is_the_runs_own_and_stage_one_can_be_counted(look):
    page = look()
    draw(page, "cost-cola", "cost-sst2", "layers-cola", "confusion-sst2")
    of = "document.querySelector('#{} .plot').data"
    assert set(page.evaluate(of.format("cost-cola") + ".map(t => t.name)")) >= {"Pareto front", "cached head", "LoRA"}
    assert "soft prompt" in page.evaluate(of.format("cost-sst2") + ".map(t => t.name)")
    assert [0, 1, 2] in page.evaluate(of.format("layers-cola") + ".map(t => t.x)")
    matrix = page.evaluate(of.format("confusion-sst2") + "[0].text.flat()")
    assert sum(int(cell.split("<br>")[0]) for cell in matrix) == 30
    training = of.format("cost-cola") + "[1].x[0]"
    before = page.evaluate(training)
    page.locator("#cost-cola").get_by_label("with stage one").check()
    page.wait_for_function(f"before => {training} > before", arg=before)


def test_a_leaderboard_sorts_by_click_and_by_key(look):
    page = look()
    table = page.locator("#leaderboard-cola")
    column = table.locator("thead th", has_text="training")
    seconds = "t => [...t.tBodies[0].rows].map(row => Number(row.cells[8].dataset.v))"
    column.get_by_role("button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    found = table.evaluate(seconds)
    assert found == sorted(found)
    assert len(set(found)) > 1
    column.get_by_role("button").press("Enter")
    assert column.get_attribute("aria-sort") == "descending"
    assert table.evaluate(seconds) == sorted(found, reverse=True)
    assert table.locator("th[aria-sort]").count() == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_columns_beyond_the_edge_are_said_until_they_are_reached(look, width):
    page = look(width)
    box = page.locator(".box:has(#leaderboard-cola)")
    said = page.locator(".more:has(+ .box > #leaderboard-cola)")
    box.scroll_into_view_if_needed()
    page.wait_for_function("box => box.hasAttribute('data-more')", arg=box.element_handle())
    number = int(said.inner_text().split()[0])
    edge = "box => box.getBoundingClientRect().right + 1"
    ends = "box => [...box.querySelectorAll('thead th')].map(each => each.getBoundingClientRect().right)"
    assert number == sum(end > box.evaluate(edge) for end in box.evaluate(ends)) > 0
    box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    page.wait_for_function("box => !box.hasAttribute('data-more')", arg=box.element_handle())
    assert not said.is_visible()


def test_a_leaderboard_is_filtered(look):
    page = look()
    page.fill("#filter-leaderboard-cola", "lora")
    assert page.locator("#leaderboard-cola tbody tr:visible").count() == 1
    assert page.locator("#count-leaderboard-cola").inner_text().startswith("1 of ")


def test_sentences_are_searched_as_one_types(look, run_of_all_kinds):
    page = look()
    rows, count = page.locator("#explorer tbody tr"), page.locator("#sentences-count")
    assert count.get_attribute("aria-live") == "polite"
    page.select_option("#sentences-kind", label="all")
    assert count.inner_text() == "30 of 30 sentences"
    page.locator("#sentences-search").press_sequentially("ran. onerror")
    assert rows.count() == 1
    assert rows.first.locator("th").inner_text() == HOSTILE
    assert count.inner_text() == "1 of 30 sentences"
    page.fill("#sentences-search", "no such words here")
    assert rows.count() == 0
    page.fill("#sentences-search", "")
    page.select_option("#sentences-order", label="most confidently wrong")
    page.select_option("#sentences-kind", label="wrong")
    sure = [float(cell.split()[0]) for cell in page.locator("#explorer [data-label='how sure']").all_inner_texts()]
    assert sure == sorted(sure, reverse=True)
    page.select_option("#sentences-order", label="hardest: wrong by most runs")
    said = page.locator("#explorer [data-label='runs wrong']").all_inner_texts()
    wrong = [int(cell.split(" of ")[0]) for cell in said]
    assert wrong == sorted(wrong, reverse=True)
    page.select_option("#sentences-corpus", label="SST-2 (glue, 30 rows)")
    assert page.locator("#sentences-source-box").is_hidden()


def test_the_theme_follows_the_system_and_the_button_and_plots_follow_it(look):
    page = look(scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    draw(page, "cost-cola")
    paper = "document.querySelector('#cost-cola .plot').layout.paper_bgcolor"
    dark_paper = page.evaluate(paper)
    page.click("#theme")
    page.wait_for_function(f"before => {paper} !== before", arg=dark_paper)
    assert page.evaluate(background) != dark
    assert page.locator("#theme").get_attribute("aria-pressed") == "false"


def saved(page, name):
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_every_figure_downloads_as_data_and_as_a_picture(look, report):
    page = look()
    for name in sorted(FIGURES):
        for kind in ("csv", "json", "png", "svg"):
            assert page.locator(f"#{name} button[data-save={kind}]").count() == 1
    file, content = saved(page, "Download CSV: CoLA (glue, 30 rows): confusion matrices")
    assert file == "confusion-cola.csv"
    lines = list(csv.DictReader(io.StringIO(content.decode("utf-8"))))
    hostile = [line for line in lines if line["run"] == HOSTILE_RUN]
    assert sum(int(line["rows"]) for line in hostile) == 30
    file, content = saved(page, "Download JSON: SST-2 (glue, 30 rows): calibration")
    record = json.loads(content)
    assert sum(line["rows"] for line in record["data"] if line["run"] == record["runs"][0]) == 30
    assert all(known["identity"]["layer"] in (1, 2) for known in record["features"].values() if known)
    _, content = saved(page, "Download CSV: CoLA (glue, 30 rows): leaderboard")
    assert {line["run"] for line in csv.DictReader(io.StringIO(content.decode("utf-8")))} >= {HOSTILE_RUN}
    page.select_option("#sentences-kind", label="all")
    page.fill("#sentences-search", "onerror")
    _, content = saved(page, "Download CSV: the sentences found")
    [line] = csv.DictReader(io.StringIO(content.decode("utf-8")))
    assert line["sentence"] == HOSTILE
    file, content = saved(page, "Download PNG: CoLA (glue, 30 rows): MCC against cost")
    assert (file, content[:8]) == ("cost-cola.png", b"\x89PNG\r\n\x1a\n")


def test_nothing_of_a_sentence_or_a_name_becomes_markup(look):
    page = look()
    draw(page, "confusion-cola", "cost-cola", "learning-cola", "calibration-cola")
    for details in page.query_selector_all("details[data-rows], details[data-behind]"):
        details.evaluate("each => { each.open = true; }")
    page.select_option("#sentences-kind", label="all")
    page.wait_for_function("document.querySelectorAll('details[data-filled]').length > 20")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('[onerror], [onmouseover], img').length") == 0
    assert HOSTILE_RUN in page.locator("#leaderboard-cola").inner_text()


def test_a_page_may_neither_fetch_nor_run_what_is_not_its_own(look):
    page = look()
    ran = page.evaluate(
        """async () => {
            const script = document.createElement('script');
            script.textContent = 'window.hacked = 1';
            document.head.append(script);
            let fetched = true;
            await fetch('https://example.org/').catch(() => { fetched = false; });
            return [window.hacked === 1, fetched];
        }"""
    )
    assert ran == [False, False]
    assert look.trouble
    assert all("Content Security Policy" in words for words in look.trouble)
    look.trouble.clear()


NAMELESS = """() => [...document.querySelectorAll(
    'input, select, button, figure, table, nav, section, [role]')].filter(each => {
    const by = (each.getAttribute('aria-labelledby') || '').split(' ').map(id => document.getElementById(id));
    const labels = [...(each.labels || []), ...by, each.caption].filter(Boolean).map(one => one.textContent.trim());
    const own = each.matches('button') ? each.textContent.trim() : '';
    return !(each.getAttribute('aria-label') || own || labels.join(''))
        && !['status', 'none', 'presentation'].includes(each.getAttribute('role')) && !each.closest('.plot *');
}).map(each => each.outerHTML.slice(0, 120))"""
LOW = """() => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const light = text => {
        const [r, g, b] = rgb(text).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const below = each => {
        for (let one = each; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (!colour.startsWith('color') && (rgb(colour)[3] ?? 1) === 1) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    return [...document.querySelectorAll('body *')].filter(each => !each.closest('.plot, tr.best, script, style')
        && [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(each => {
        const [a, b] = [light(getComputedStyle(each).color), light(below(each))].sort((x, y) => y - x);
        return [(a + .05) / (b + .05), each.outerHTML.slice(0, 100)];
    }).filter(([contrast]) => contrast < 4.5);
}"""


NARROW = """() => {
  for (const each of document.querySelectorAll('#glance .plain .kind')) each.textContent = 'random features';
  for (const each of document.querySelectorAll('#explorer td:nth-child(3)')) each.textContent = '✗ unacceptable';
  const box = (each) => each.getBoundingClientRect();
  const inside = (each) => { const range = document.createRange(); range.selectNodeContents(each); return box(range); };
  const rows = [...document.querySelectorAll('#explorer tbody tr')];
  return {
    kinds: [...document.querySelectorAll('#glance .plain tbody tr')].map(
      row => [inside(row.querySelector('.kind')).right, box(row.querySelector('.whisker')).left]),
    lefts: rows.map(row => [...row.querySelectorAll('td')].map(cell => box(cell).left)),
    cells: rows.flatMap(row => [[inside(row.cells[2]).right, box(row.cells[3]).left]]),
    selects: [...document.querySelectorAll('#sentences .bar')].flatMap(
      bar => [...bar.querySelectorAll('div:not([hidden]) > select')].map(each => [box(bar).width, box(each).width])),
  };
}"""


def test_on_a_phone_words_end_before_what_stands_beside_them_and_choices_are_whole(look):
    found = look(390).evaluate(NARROW)
    assert found["kinds"] and found["cells"] and found["selects"]
    assert all(right <= left for right, left in found["kinds"] + found["cells"])
    assert len({tuple(lefts) for lefts in found["lefts"]}) == 1
    assert all(bar == choice for bar, choice in found["selects"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(look, scheme):
    page = look(scheme=scheme)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(LOW) == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("main").count() == page.locator("header.top").count() == page.locator("nav").count() == 1
    assert page.evaluate("[...document.querySelectorAll('th')].every(each => each.hasAttribute('scope'))")
    for name in FIGURES:  # what is said of a figure has its numbers
        assert any(c.isdigit() for c in page.locator(f"#{name} .plot").get_attribute("aria-label"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#calibration-sst2 details[data-rows] summary").press("Enter")
    page.wait_for_selector("#calibration-sst2 details[data-rows] table caption")


def test_what_must_be_found_would_be(look):
    """The control of the test above: what is planted is found."""
    page = look()
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    page.evaluate("document.querySelector('h1').style.color = '#cccccc'")
    assert [each[:6] for each in page.evaluate(NAMELESS)] == ["<input"]
    assert len(page.evaluate(LOW)) == 1


def test_features_behind_a_figure_are_named_with_identity_and_passport(look, report):
    page = look()
    page.locator("#layers-cola details[data-behind] summary").click()
    links = page.locator("#layers-cola details[data-behind] a")
    links.first.wait_for()
    assert links.count() >= 6  # three layers, two poolings
    target = links.first.get_attribute("href")
    page.locator(f"tr:has({target}) summary").click()
    record = json.loads(page.locator(f"tr:has({target}) pre").inner_text())
    assert record["fingerprint"].startswith(target.removeprefix("#features-"))
    assert {"alone", "canaries"} <= set(record["passport"])
    assert record["identity"]["architecture"]["num_hidden_layers"] == 2


def test_it_is_small_enough(report):
    assert report.said["bytes"] == report.path.stat().st_size < 8_000_000
