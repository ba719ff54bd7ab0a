"""The page: what was gathered as one HTML file that needs nothing else."""

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.results.ledger import now
from pipeline.results.report.breakdowns import domains_figure, phenomena_figure, sources_figure
from pipeline.results.report.confusion import confusion_figure
from pipeline.results.report.cost import cost_figure
from pipeline.results.report.figure import Figure
from pipeline.results.report.gather import Gathered, Task
from pipeline.results.report.glance import card
from pipeline.results.report.layers import layers_figure
from pipeline.results.report.leaderboard import Place, leaderboard_of
from pipeline.results.report.learning import learning_figure
from pipeline.results.report.markup import embedded_json, esc, figure_html, section
from pipeline.results.report.passports import features_behind
from pipeline.results.report.reliability import calibration_figure
from pipeline.results.report.sentences import sentences_of
from pipeline.results.report.tables import (
    explorer_html,
    features_html,
    leaderboard_data,
    leaderboard_html,
    patterns_html,
)

GENERATOR = "feature-cache-pipeline report"
"""What a report says of itself in its first lines: such a file may be replaced by a newer one."""


@dataclass(frozen=True)
class _Part:
    """A section of figures.

    Args:
        name, title, intro: of the section; the intro is HTML of our own.
        figures: those that there is data for.
        nothing: what is said where there are none.
        short: its name in the list of sections.
        wide: one below the other, each as wide as the page.
    """

    name: str
    title: str
    intro: str
    figures: Sequence[Figure]
    nothing: str
    short: str
    wide: bool = False


def page_of(gathered: Gathered) -> str:
    """The whole page.

    Raises:
        ModuleNotFoundError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    places = {task.name: leaderboard_of(task) for task in gathered.tasks}
    parts = _parts(gathered)
    figures = [figure for part in parts for figure in part.figures]
    behind = sorted({run for figure in figures for run in figure.runs})
    sets = features_behind(gathered, behind, [name for figure in figures for name in figure.features])
    explored = [found for task in gathered.tasks if (found := sentences_of(task)) is not None]
    data = {
        "figures": {figure.id: figure.to_dict() for figure in figures}
        | {f"leaderboard-{task.name}": leaderboard_data(task, places[task.name]).to_dict() for task in gathered.tasks},
        "sentences": explored,
        "runs": _runs(gathered.tasks),
        "features": {each["fingerprint"]: each for each in sets},
    }
    sections = [_glance(gathered, places), _leaderboards(gathered, places)]
    sections += [_figures(part) for part in parts]
    sections += [_sentences(bool(explored)), _features(sets)]
    script, plotly = _asset("report.js"), _inert(get_plotlyjs())
    return _filled(
        _asset("page.html"),
        {
            "policy": _policy([script, plotly]),
            "generator": GENERATOR,
            "title": esc(_heading(gathered)),
            "css": _asset("report.css"),
            "heading": esc(_heading(gathered)).replace("-", "\N{NON-BREAKING HYPHEN}"),
            "lead": _lead(gathered),
            "nav": _nav(parts),
            "sections": "\n".join(sections),
            "colophon": esc(_colophon(gathered)),
            "data": embedded_json(data),
            "plotly": plotly,
            "script": script,
        },
    )


def _filled(template: str, values: dict[str, str]) -> str:
    """A template with its slots filled, each once: what a value holds is never looked at for slots."""
    first, *others = template.split("{{")
    found = [first]
    for each in others:
        slot, _, rest = each.partition("}}")
        found += [values[slot], rest]
    return "".join(found)


def _asset(name: str) -> str:
    path = importlib.resources.files("pipeline.results.report") / "assets" / name
    return path.read_text("utf-8").replace("\r\n", "\n")


def _inert(source: str) -> str:
    """A library's source as the text of a script element, which ends at nothing but its own end tag."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    lower = text.lower()
    assert "</script" not in lower and "<!--" not in lower, "this plotly.js cannot stand in a script element"
    return text


def _policy(scripts: Sequence[str]) -> str:
    """What the browser may do with the page: run these very scripts, and fetch nothing."""
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _heading(gathered: Gathered) -> str:
    titles = " and ".join(filter(None, [", ".join(t.title for t in gathered.tasks[:-1]), gathered.tasks[-1].title]))
    return f"{titles}: what {len(gathered.runs)} run{'s' * (len(gathered.runs) > 1)} found"


def _lead(gathered: Gathered) -> str:
    weights: dict[str, set[str]] = {}
    for run in gathered.runs:
        if run.config.get("backbone"):
            weights.setdefault(str(run.config["backbone"]), set()).add(str(run.config.get("quantization")))
    named = "; ".join(f"{backbone}: {', '.join(sorted(kinds))}" for backbone, kinds in sorted(weights.items())[:3])
    first, last = gathered.runs[0].created[:10], gathered.runs[-1].created[:10]
    dates = first if first == last else f"{first} to {last}"
    return (
        f"Heads on cached hidden states, and adapters trained through the backbone ({esc(named)}). Scores are of "
        f'validation unless a figure says otherwise. Runs of <span class="keep">{esc(dates)}</span>.'
    )


def _colophon(gathered: Gathered) -> str:
    versions = gathered.runs[-1].versions
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    made = f"{now():%Y-%m-%d %H:%M} UTC"
    return f"Made {made}; this file needs no network. The newest run was made with {shown}. Figures: plotly.js (MIT)."


def _nav(parts: Sequence[_Part]) -> str:
    names = [("glance", "At a glance"), ("leaderboards", "Leaderboards")]
    names += [(part.name, part.short) for part in parts]
    names += [("sentences", "Sentences"), ("features", "Features")]
    return "".join(f'<li><a href="#{name}">{esc(title)}</a></li>' for name, title in names)


def _runs(tasks: Sequence[Task]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for task in tasks:
        for entry in task.entries:
            words = ", ".join(filter(None, [entry.title, entry.views, entry.weights]))
            record = found.setdefault(entry.name, {"says": words, "features": []})
            record["features"] = [*record["features"], *entry.fingerprints]  # type: ignore[misc]
    return found


def _glance(gathered: Gathered, places: dict[str, list[Place]]) -> str:
    cards = "".join(card(task, places[task.name]) for task in gathered.tasks)
    return section(
        "glance",
        "At a glance",
        "The best of each task on validation, how sure that is, and what it cost.",
        f'<div class="grid">{cards}</div>',
    )


def _leaderboards(gathered: Gathered, places: dict[str, list[Place]]) -> str:
    tables = "".join(leaderboard_html(task, places[task.name]) for task in gathered.tasks)
    return section(
        "leaderboards",
        "Leaderboards",
        "Every run. A click on a column's name sorts by it.",
        f'<div class="stack">{tables}</div>',
    )


def _parts(gathered: Gathered) -> list[_Part]:
    tasks = gathered.tasks
    shown = "The runs shown in detail are the best of each kind and head, unless <code>--runs</code> named others."
    cost = [cost_figure(task) for task in tasks]
    layers = [layers_figure(task, gathered) for task in tasks]
    curves = [learning_figure(task) for task in tasks]
    calibration = [calibration_figure(task) for task in tasks]
    matrices = [confusion_figure(task) for task in tasks]
    groups = [figure(task) for task in tasks for figure in (sources_figure, phenomena_figure, domains_figure)]
    return [
        _Part(
            "cost", "Accuracy against cost", "What a better score takes: cached heads, LoRA and soft prompts.",
            _there(cost), "No run has a score on validation.", "Cost",
        ),
        _Part(
            "layers", "Layers and pooling", "Where in the backbone the answer is, and how tokens are best pooled.",
            _there(layers), "No run says: <code>pipeline sweep</code> on features of <code>--layers all</code> does.",
            "Layers",
        ),
        _Part(
            "learning", "Learning curves", shown, _there(curves), "No run shown in detail was trained step by step.",
            "Learning", True,
        ),
        _Part(
            "calibration", "Calibration", shown, _there(calibration), "No run shown in detail has probabilities.",
            "Calibration", True,
        ),
        _Part(
            "confusion", "Confusion matrices", shown, _there(matrices), "No run's predictions are at hand.",
            "Confusion", True,
        ),
        _Part(
            "breakdowns", "By source and phenomenon",
            "The best run, and beside it the best of another kind, on parts of validation.", _there(groups),
            "The runs neither say where sentences are from nor hold them.", "Breakdowns",
        ),
    ]  # fmt: skip


def _there(figures: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def _figures(part: _Part) -> str:
    kind = "stack" if part.wide or len(part.figures) == 1 else "grid"
    content = f'<div class="{kind}">{"".join(map(figure_html, part.figures))}</div>'
    if part.name == "breakdowns" and part.figures:
        content += patterns_html()
    return section(
        part.name, part.title, part.intro, content if part.figures else f'<p class="note">{part.nothing}</p>'
    )


def _sentences(there: bool) -> str:
    return section(
        "sentences",
        "Sentences",
        "The most confidently wrong of a run, and the hardest: those that most runs get wrong.",
        explorer_html() if there else '<p class="note">No run holds its sentences: runs of older versions do not.</p>',
    )


def _features(sets: Sequence[dict[str, object]]) -> str:
    missing = sum("identity" not in each for each in sets)
    note = f" {missing} of them are not in this cache: their fingerprints are all that is known." if missing else ""
    return section(
        "features",
        "Features",
        f"What the runs in the figures above were trained on and scored on, each with its identity and passport.{note}",
        features_html(sets) if sets else '<p class="note">No run shown looks at cached features.</p>',
    )
