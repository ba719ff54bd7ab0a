"""Score against cost as one HTML file that needs nothing else: the Pareto plot."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.choosing.comparison import Comparison, Measured
from pipeline.errors import ConfigError, MissingPackage, RunError
from pipeline.partials import partial_path
from pipeline.results.counts import METRIC_NAMES

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINT, ON_FRONT = "#8a8f98", "#1f5fbf"
HEIGHT = 460
"""Pixels of a task's part."""
AROUND = 140
"""Pixels above and below: title, legend, the last axis' name."""
RIGHT = 0.6
"""Of the axis, from where on a name stands left of its point."""
HEAD = (
    '<head><title>Backbones: score against cost</title><meta name="viewport" content="width=device-width, '
    'initial-scale=1">'
)


def check_plot(path: Path, *, overwrite: bool) -> None:
    """Refuse, before anything is measured, a file that could not be written.

    Raises:
        ConfigError: it is there and is not to be overwritten, or is called otherwise than a page.
        MissingPackage: plotly is not installed.
    """
    if path.suffix != ".html":
        raise ConfigError("the plot is a page", where="plot", expected="a name that ends in .html", found=path.name)
    if path.exists() and not overwrite:
        raise ConfigError("the file is there already", where=path, remedy="name another, or overwrite it with --force")
    try:
        import plotly  # noqa: F401
    except ImportError as error:
        raise MissingPackage("plotly", "report") from error


def write_plot(comparison: Comparison, path: Path) -> None:
    """Write the figure as a page with all that it needs in it; the file appears when it is whole.

    Raises:
        RunError: it cannot be written.
    """
    figure = pareto_figure(comparison)
    height = (
        f"{figure.layout.height}px"  # of the page as of the figure: it would else be as high as the window at least
    )
    page = figure.to_html(
        include_plotlyjs=True, full_html=True, config={"responsive": True}, default_height=height
    ).replace("<html>", '<html lang="en">', 1)
    page = page.replace("<head>", HEAD, 1)
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, "utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError("the plot cannot be written", where=path, found=error.strerror or error) from error


def pareto_figure(comparison: Comparison) -> "go.Figure":
    """For each task, score with its interval against backbone seconds for a thousand sentences, the front marked."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    tasks = comparison.tasks
    titles = [_title(comparison, task.name) for task in tasks]
    gap = 0.16 if len(tasks) == 1 else 0.16 / (len(tasks) - 1)
    figure = make_subplots(rows=len(tasks), cols=1, subplot_titles=titles, vertical_spacing=gap)
    backbones = {each.contender.backbone for each in comparison.measured}
    for row, task in enumerate(tasks, start=1):
        measured, front = comparison.of_task(task.name), comparison.front(task.name)
        most = max((each.seconds_per_thousand for each in measured), default=0.0)
        on_front = [each for each, is_on in zip(measured, front, strict=True) if is_on]
        others = [each for each, is_on in zip(measured, front, strict=True) if not is_on]
        steps = sorted(on_front, key=lambda each: each.seconds_per_thousand)
        looks = {"mode": "lines+markers+text", "line": {"color": ON_FRONT, "shape": "hv", "dash": "dot"}}
        for name, points, look in (
            ("on the front", steps, looks | {"marker": {"size": 12, "color": ON_FRONT}}),
            (
                "beaten",
                others,
                {"mode": "markers+text", "marker": {"size": 9, "color": POINT, "symbol": "circle-open"}},
            ),
        ):
            names = {"name": name, "legendgroup": name, "showlegend": row == 1}
            drawn = _points(points, most, with_names=len(backbones) > 1)
            figure.add_trace(go.Scatter(**drawn, **look, **names), row=row, col=1)
        figure.update_xaxes(title="backbone seconds for 1,000 sentences", rangemode="tozero", row=row, col=1)
        figure.update_yaxes(title=f"{METRIC_NAMES[task.metric]}, 95 % interval", row=row, col=1)
    of = f" of {escape(comparison.measured[0].contender.name)}" if len(backbones) == 1 else ""
    figure.update_layout(
        title={"text": f"Score against cost{of}", "yref": "container", "y": 0.98, "yanchor": "top"},
        template="plotly_white",
        height=AROUND + HEIGHT * len(tasks),
        margin={"l": 60, "r": 20, "t": 95, "b": 95},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.01, "xanchor": "left", "x": 0},
    )
    return figure


def _points(measured: list[Measured], most: float, *, with_names: bool) -> dict[str, Any]:
    """Where contenders stand and what is said of them.

    Args:
        most: seconds at the axis' end.
        with_names: of the backbones, which say nothing where there is one.
    """
    scores = [each.score for each in measured]
    return {
        "x": [each.seconds_per_thousand for each in measured],
        "y": [score.estimate for score in scores],
        "error_y": {
            "type": "data",
            "array": [(score.estimate if score.high is None else score.high) - score.estimate for score in scores],
            "arrayminus": [score.estimate - (score.estimate if score.low is None else score.low) for score in scores],
            "thickness": 1,
        },
        "text": [escape(each.contender.label if with_names else each.contender.form) for each in measured],
        "textposition": [f"top {'left' if each.seconds_per_thousand > RIGHT * most else 'right'}" for each in measured],
        "cliponaxis": False,
        "hovertext": [_hover(each) for each in measured],
        "hoverinfo": "text",
    }


def _hover(each: Measured) -> str:
    lines = [
        escape(str(each.contender)),
        f"{each.run.config['metric']} {each.score:.3f}",
        f"{escape(each.run.head)} on {escape(each.views)}",
        f"{each.seconds_per_thousand:.1f} s, {each.bytes_per_thousand / 1e6:.2f} MB for 1,000 sentences",
        f"LogME {each.logme[each.views]:.4f}",
    ]
    return "<br>".join(lines)


def _title(comparison: Comparison, task: str) -> str:
    drawn = {sample.split: sample.rows for sample in comparison.samples if sample.task == task}
    return f"{escape(task)}: {drawn['train']:,} training rows, {drawn['validation']:,} validation rows"
