"""A report of real runs on a tiny backbone, some of it hostile, and a browser to open it in."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config import CacheConfig, RunsConfig
from pipeline.heads.sweep import sweep
from pipeline.heads_config import SweepConfig
from pipeline.results.ledger import read_runs
from tests.adapters.conftest import Live
from tests.tiny_backbone import write_small_glue

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
)  # fmt: skip
PATIENCE = 120_000
"""How many milliseconds a page may take for anything: other tests have the processors meanwhile."""
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1"> {{data}} ran.'
"""A sentence of the corpus."""
HOSTILE_RUN = '20990101-000000-000000-"><img src=x onerror=window.hacked=1>-aaaaaa'
HOSTILE_VIEWS = "</script><b onmouseover=window.hacked=1>L1"


@dataclass
class Reported:
    """Runs and what was made of them.

    Args:
        path: the report.
        runs_dir, cache_dir: of the runs.
        said: what the command returned.
    """

    path: Path
    runs_dir: Path
    cache_dir: Path
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        text = self.path.read_text("utf-8")
        start = text.index('<script type="application/json" id="data">') + len(
            '<script type="application/json" id="data">'
        )
        found: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])
        return found


@pytest.fixture(scope="session")
def run_of_all_kinds(tmp_path_factory, tiny_backbone, sample_dir) -> Live:
    """Cached heads of both tasks, a sweep over layers, a LoRA and a soft prompt, and a copy of one with a bad name."""
    folder = tmp_path_factory.mktemp("reported")
    glue = write_small_glue(folder / "glue", sample_dir)
    dev = glue / "CoLA" / "dev.tsv"
    rows = [line.split("\t") for line in dev.read_text("utf-8").splitlines()]
    known = (glue / "CoLA" / "train.tsv").read_text("utf-8").split("\t")[0]
    rows[3][3] = HOSTILE
    lines = ["\t".join([("new1", known, "new2")[place % 3], *row[1:]]) for place, row in enumerate(rows)]
    dev.write_text("\n".join(lines) + "\n", "utf-8")
    live = Live(tiny_backbone, glue, folder)
    tasks = ("cola", "sst2")
    live.extract(tasks=tasks, layers=("all",), poolings=("mean", "last"))
    live.heads(tasks=tasks, heads=("logreg", "linear"))
    swept = {"tasks": ("cola",), "backbone": "tiny-llama", "heads": ("ridge",), "views": ("all",), "seeds": 3}
    sweep(live.settings(SweepConfig, swept), CacheConfig(live.cache_dir), RunsConfig(live.runs_dir), {})
    live.lora(epochs=1)
    live.prompt(tasks=("sst2",), epochs=1)
    first = read_runs(live.runs_dir)[0].run
    bad = live.runs_dir / HOSTILE_RUN
    shutil.copytree(live.runs_dir / first, bad)
    record = json.loads((bad / "run.json").read_text("utf-8"))
    record["run"], record["config"]["features"], record["head"] = HOSTILE_RUN, HOSTILE_VIEWS, "<i>head</i>"
    (bad / "run.json").write_text(json.dumps(record), "utf-8")
    assert HOSTILE in pq.read_table(bad / "predictions.parquet")["text"].to_pylist()
    return live


@pytest.fixture(scope="session")
def report(run_of_all_kinds, tmp_path_factory) -> Reported:
    """The report of these runs, as the command writes it."""
    from pipeline.report_command import features_at_hand, labels_of
    from pipeline.results.report.gather import gather
    from pipeline.results.report.writing import write_report

    live = run_of_all_kinds
    path = tmp_path_factory.mktemp("page") / "report.html"
    features = features_at_hand(live.cache_dir)
    said = write_report(path, gather(live.runs_dir, labels=labels_of(features), features=features))
    return Reported(path, live.runs_dir, live.cache_dir, said)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)} (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        page = opened.new_page()  # a fresh browser on a busy machine may be slow to its first frame
        page.evaluate("new Promise(requestAnimationFrame)")
        page.close()
        yield opened
        opened.close()


def draw(page: Any, *names: str) -> None:
    """Scroll to figures, all unless some are named, and wait until they are drawn."""
    wanted = ", ".join(f"#{name} .plot" for name in names) or ".plot"
    for plot in page.query_selector_all(wanted):
        plot.scroll_into_view_if_needed()
        page.wait_for_function("plot => plot.dataset.state === 'drawn'", arg=plot)


@pytest.fixture
def look(browser, report) -> Iterator[Callable[..., Any]]:
    """Open the report: `look(width=390)`; whatever it asks for or complains of fails the test afterwards."""
    contexts, trouble = [], []

    def open_page(width: int = 1280, scheme: str = "light", path: Path = report.path) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        own = path.as_uri()
        page.on("console", lambda told: trouble.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((own, "data:", "blob:")) else trouble.append(r.url))
        page.goto(own)
        return page

    open_page.trouble = trouble  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []
