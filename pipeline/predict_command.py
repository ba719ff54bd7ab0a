"""`pipeline predict`: what was trained, on new sentences. A room is imported inside the command that needs it."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from pipeline.config import BackboneConfig, LedgerConfig
from pipeline.errors import ConfigError
from pipeline.terminal import LISTS, Flat, Json, columns, missing_package, print_result

predict_app = App(
    name="predict", help="Classify new sentences with an adapter that was trained.", default_parameter=LISTS
)


@dataclass(frozen=True)
class PlaceConfig:
    """Where the run's backbone is found, and where it computes.

    Args:
        models_dir: where the embedded backbone and quantised weights are kept.
        device: `auto` is CUDA where there is one; `cpu`, `cuda` or `cuda:1` otherwise.
    """

    models_dir: Path = field(default_factory=lambda: BackboneConfig().models_dir)
    device: str = "auto"


@predict_app.default
def predict(
    run: str,
    /,
    *sentences: str,
    task: str | None = None,
    place: Annotated[PlaceConfig, Flat] = PlaceConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """Classify sentences, or the lines of standard input, with what a run of `pipeline adapt` trained.

    Example: `pipeline predict RUN "The cat sat on the mat." --task cola`

    Args:
        run: the run's name, or its beginning.
        sentences: what to classify; without any, each line of standard input is one.
        task: one of the run's tasks; needed only where there are several.
    """
    from pipeline.results.ledger import find_run, read_run

    folder = find_run(runs.runs_dir, run)
    tasks = read_run(folder).tasks
    if task is not None and task not in tasks:
        raise ConfigError("this run is of another task", where="task", expected=" | ".join(tasks), found=task)
    if task is None and len(tasks) > 1:
        raise ConfigError("this run is of several tasks", where="task", expected=" | ".join(tasks), found="none")
    texts = list(sentences) or [line.rstrip("\n") for line in sys.stdin]
    if not texts:
        raise ConfigError("there is no sentence", where="sentences", expected="arguments, or lines on standard input")
    if not all(text.strip() for text in texts):
        raise ConfigError("a sentence is empty", where=f"sentence {[bool(t.strip()) for t in texts].index(False) + 1}")
    try:
        from pipeline.adapters.loading import LiveRun
    except ModuleNotFoundError as error:
        raise missing_package(error, "adapters") from error
    live = LiveRun.load(folder, models_dir=place.models_dir, device=place.device)
    task = task or tasks[0]
    probabilities_of = live.predict_proba(task, texts)
    labels = live.run.config["labels"][task]
    rows = [
        _row(text, labels, probabilities.tolist()) for text, probabilities in zip(texts, probabilities_of, strict=True)
    ]
    print_result(rows, json, lambda rows: columns(map(_shown, rows), ("sentence", "label", "probability")))


def _row(text: str, labels: list[str], probabilities: list[float]) -> dict[str, Any]:
    best = max(range(len(labels)), key=probabilities.__getitem__)
    return {
        "sentence": text,
        "label": labels[best],
        "prediction": best,
        "probabilities": dict(zip(labels, probabilities, strict=True)),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "probability": f"{row['probabilities'][row['label']]:.3f}"}
