"""The sections of figures, and the switch that says of which corpora they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.results.report.breakdowns import domains_figure, phenomena_figure, sources_figure
from pipeline.results.report.confusion import confusion_figure
from pipeline.results.report.corpora import SAMPLE, Corpus
from pipeline.results.report.cost import cost_figure
from pipeline.results.report.figure import Figure
from pipeline.results.report.gather import Gathered
from pipeline.results.report.layers import layers_figure
from pipeline.results.report.learning import learning_figure
from pipeline.results.report.markup import esc, figure_html, section, unbroken
from pipeline.results.report.reliability import calibration_figure
from pipeline.results.report.tables import patterns_html


@dataclass(frozen=True)
class Part:
    """A section of figures.

    Args:
        name, title, intro: of the section; the intro is HTML of our own.
        figures: those that there is data for, by corpus.
        nothing: what is said of a corpus that has none, as HTML.
        short: its name in the list of sections.
        wide: one below the other, each as wide as the page.
    """

    name: str
    title: str
    intro: str
    figures: Sequence[tuple[Corpus, Sequence[Figure]]]
    nothing: Callable[[Corpus], str]
    short: str
    wide: bool = False


def parts_of(gathered: Gathered) -> list[Part]:
    """Every section of figures, in the order of the page."""
    shown = "The runs shown in detail are the best of each kind and head, unless <code>--runs</code> named others."

    def of_each(*draw: Callable[[Corpus], Figure | None]) -> list[tuple[Corpus, Sequence[Figure]]]:
        return [
            (corpus, [figure for one in draw if (figure := one(corpus)) is not None]) for corpus in gathered.corpora
        ]

    def always(words: str) -> Callable[[Corpus], str]:
        return lambda corpus: words

    return [
        Part(
            "cost", "Accuracy against cost", "What a better score takes, in time.",
            of_each(cost_figure), always("no run has a score on validation."), "Cost",
        ),
        Part(
            "layers", "Layers and pooling", "Where in the backbone the answer is, and how tokens are best pooled.",
            of_each(lambda corpus: layers_figure(corpus, gathered)), _no_layers, "Layers",
        ),
        Part(
            "learning", "Learning curves", shown, of_each(learning_figure),
            always("no run shown in detail was trained step by step."), "Learning", True,
        ),
        Part(
            "calibration", "Calibration", shown, of_each(calibration_figure),
            always("no run shown in detail has probabilities."), "Calibration", True,
        ),
        Part(
            "confusion", "Confusion matrices", shown, of_each(confusion_figure),
            always("no run's predictions are at hand."), "Confusion", True,
        ),
        Part(
            "breakdowns", "By source and phenomenon",
            "The best run, and beside it the best of another kind, on parts of validation.",
            of_each(sources_figure, phenomena_figure, domains_figure),
            always("its runs neither say where sentences are from nor hold them."), "Breakdowns",
        ),
    ]  # fmt: skip


def _no_layers(corpus: Corpus) -> str:
    """What makes a curve over layers."""
    of = ["--tasks", corpus.task, *(["--data", SAMPLE] if corpus.source == SAMPLE else [])]
    extract = unbroken(["pipeline", "extract", *of, "--layers", "all"], " ")
    sweep = unbroken(["pipeline", "sweep", *of, "--views", "all"], " ")
    return f"no run has tried three layers or more. These do: <code>{extract}</code>, then <code>{sweep}</code>."


def of_corpus(corpus: Corpus) -> str:
    """Attributes of an element that is shown where its corpus is."""
    return f' data-corpus="{esc(corpus.id)}"{"" if corpus.is_first else " hidden"}'


def part_html(part: Part) -> str:
    """A section with the figures of every corpus."""
    figures = "".join(figure_html(each, of_corpus(corpus)) for corpus, found in part.figures for each in found)
    notes = "".join(
        f'<p class="note"{of_corpus(corpus)}>{esc(corpus.title)}: {part.nothing(corpus)}</p>'
        for corpus, found in part.figures
        if not found
    )
    content = (f'<div class="{"stack" if part.wide else "grid"}">{figures}</div>' if figures else "") + notes
    if part.name == "breakdowns" and figures:
        content += patterns_html()
    return section(part.name, part.title, part.intro, content)


def switch_html(corpora: Sequence[Corpus]) -> str:
    """Of each task with several corpora a choice of which one the figures are of; nothing where no task has."""
    choices = ""
    for task in dict.fromkeys(each.task for each in corpora):
        of_task = [each for each in corpora if each.task == task]
        if len(of_task) > 1:
            options = "".join(
                f'<option value="{esc(each.id)}"{" selected" if each.is_first else ""}>'
                f"{esc(each.title.removeprefix(each.task_title).strip(' ()'))}</option>"
                for each in of_task
            )
            name = f"figures-of-{esc(task)}"
            choices += (
                f'<div><label for="{name}">Figures of {esc(of_task[0].task_title)}</label>'
                f'<select id="{name}" class="switch">{options}</select></div>'
            )
    label = "Data of the figures"
    return f'<div class="wide switches" role="group" aria-label="{label}">{choices}</div>' if choices else ""
