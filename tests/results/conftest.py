"""Runs as heads enter them, made without training anything."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.results.entering import new_run, write_record
from pipeline.results.intervals import Interval
from pipeline.results.ledger import Run


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """A run of a head on CoLA; tests replace what they are about."""

    def make(name: str = "20260101-000000-cola-logreg-aaaaaa", *, held_out: float | None = 0.5, **changes) -> Run:
        scores = {"validation": {"mcc": 0.4, "accuracy": 0.8, "f1": 0.875}}
        if held_out is not None:
            scores["held_out"] = {"mcc": held_out, "accuracy": held_out, "f1": held_out}
        facts = {
            "run": name,
            "path": "cached",
            "tasks": ("cola",),
            "head": "logreg",
            "config": {
                "features": "L20-mean",
                "seed": 3,
                "backbone": "smollm2-135m",
                "quantization": "nf4",
                "data": "glue",
            },
            "seed": 3,
            "features": {"cola": {"train": ["3fa9"], "validation": ["77aa"]}},
            "seconds": 1.25,
            "scores": {"cola": scores},
            "baseline": {"cola": {"validation": {"mcc": 0.0, "accuracy": 0.691, "f1": 0.817}}},
            "selection": {"C": 0.01, "tried": 7},
            "statistics": {
                "cola": {
                    "validation": {
                        "intervals": {
                            "mcc": Interval(0.4, 0.341, 0.459, 0.95, "bca").to_dict(),
                            "accuracy": Interval(0.8, 0.78, 0.82, 0.95, "bca").to_dict(),
                        }
                    }
                }
            },
        }
        return Run(**{**facts, **changes})

    return make


@pytest.fixture
def enter(make_run: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """Enter a run into the ledger in `tmp_path`."""

    def store(name: str, **changes) -> Run:
        run = make_run(name, **changes)
        with new_run(tmp_path, name) as folder:
            write_record(folder, run)
        return run

    return store
