"""The page: what was gathered as one HTML file that needs nothing else."""

import base64
import hashlib
import importlib.resources
from collections import Counter
from collections.abc import Sequence

from pipeline.results.ledger import now
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.figure import counted
from pipeline.results.report.gather import Gathered
from pipeline.results.report.glance import card
from pipeline.results.report.leaderboard import Place, leaderboard_of
from pipeline.results.report.markup import embedded_json, esc, section
from pipeline.results.report.parts import Part, part_html, parts_of, switch_html
from pipeline.results.report.passports import features_behind
from pipeline.results.report.sentences import sentences_of
from pipeline.results.report.tables import explorer_html, features_html, leaderboard_data, leaderboard_html

GENERATOR = "feature-cache-pipeline report"
"""What a report says of itself in its first lines: such a file may be replaced by a newer one."""


def page_of(gathered: Gathered) -> str:
    """The whole page.

    Raises:
        ModuleNotFoundError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    places = {corpus.id: leaderboard_of(corpus) for corpus in gathered.corpora}
    parts = parts_of(gathered)
    figures = [figure for part in parts for _, of_corpus in part.figures for figure in of_corpus]
    behind = sorted({run for figure in figures for run in figure.runs})
    sets = features_behind(gathered, behind, [name for figure in figures for name in figure.features])
    explored = [found for corpus in gathered.corpora if (found := sentences_of(corpus)) is not None]
    boards = [leaderboard_data(corpus, places[corpus.id]) for corpus in gathered.corpora]
    data = {
        "figures": {figure.id: figure.to_dict() for figure in [*figures, *boards]},
        "sentences": explored,
        "runs": _runs(gathered.corpora),
        "features": {each["fingerprint"]: each for each in sets},
    }
    sections = [_glance(gathered, places), _leaderboards(gathered, places)]
    sections += [part_html(part) for part in parts]
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
            "switch": switch_html(gathered.corpora),
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
    titles = list(dict.fromkeys(corpus.task_title for corpus in sorted(gathered.corpora, key=lambda each: each.place)))
    named = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    return f"{named}: what {counted(len(gathered.runs), 'run')} found"


def _lead(gathered: Gathered) -> str:
    weights: dict[str, set[str]] = {}
    for run in gathered.runs:
        if run.config.get("backbone"):
            weights.setdefault(str(run.config["backbone"]), set()).add(str(run.config.get("quantization")))
    named = "; ".join(f"{backbone}: {', '.join(sorted(kinds))}" for backbone, kinds in sorted(weights.items())[:3])
    named = f" ({esc(named)})" if named else ""
    kinds = {entry.kind for corpus in gathered.corpora for entry in corpus.entries}
    words = ["Heads on cached hidden states"] * ("cached" in kinds)
    words += [("adapters" if words else "Adapters") + " trained through the backbone"] * bool(
        kinds & {"lora", "prompt"}
    )
    words = words or ["Baselines"]
    first, last = gathered.runs[0].created[:10], gathered.runs[-1].created[:10]
    dates = first if first == last else f"{first} to {last}"
    return (
        f"{', and '.join(words)}{named}. Scores are of validation unless a figure says otherwise. "
        f'Runs of <span class="keep">{esc(dates)}</span>.'
    )


def _colophon(gathered: Gathered) -> str:
    versions = gathered.runs[-1].versions
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    made = f"{now():%Y-%m-%d %H:%M} UTC"
    return f"Made {made}; this file needs no network. The newest run was made with {shown}. Figures: plotly.js (MIT)."


def _nav(parts: Sequence[Part]) -> str:
    names = [("glance", "At a glance"), ("leaderboards", "Leaderboards")]
    names += [(part.name, part.short) for part in parts]
    names += [("sentences", "Sentences"), ("features", "Features")]
    return "".join(f'<li><a href="#{name}">{esc(title)}</a></li>' for name, title in names)


def _runs(corpora: Sequence[Corpus]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for corpus in corpora:
        for entry in corpus.entries:
            words = ", ".join(filter(None, [entry.title, entry.views, entry.weights]))
            record = found.setdefault(entry.name, {"says": words, "features": []})
            record["features"] = [*record["features"], *entry.fingerprints]  # type: ignore[misc]
    return found


def _glance(gathered: Gathered, places: dict[str, list[Place]]) -> str:
    of_task = Counter(corpus.task for corpus in gathered.corpora)
    cards = "".join(
        card(corpus, places[corpus.id], is_one_of_several=of_task[corpus.task] > 1) for corpus in gathered.corpora
    )
    return section(
        "glance",
        "At a glance",
        "The best of each task and its data on validation, how sure that is, and what it cost.",
        f'<div class="grid">{cards}</div>',
    )


def _leaderboards(gathered: Gathered, places: dict[str, list[Place]]) -> str:
    tables = "".join(leaderboard_html(corpus, places[corpus.id]) for corpus in gathered.corpora)
    return section(
        "leaderboards",
        "Leaderboards",
        "Every run, beside those that were scored on the same rows. A click on a column's name sorts by it.",
        f'<div class="stack">{tables}</div>',
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
