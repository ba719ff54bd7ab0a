"""Runs of every cached kind on features of the tiny backbone, which predict what stage one computed once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import (
    BackboneConfig,
    CacheConfig,
    DataConfig,
    ExtractConfig,
    HeadsConfig,
    PassConfig,
    RunsConfig,
    TokensConfig,
)
from pipeline.extract.run import extract
from pipeline.heads.baselines import measure_baselines
from pipeline.heads.joint import train_joint
from pipeline.heads.train import train_heads
from pipeline.heads_config import BaselinesConfig, JointConfig
from pipeline.results.ledger import read_predictions
from tests.tiny_backbone import write_small_glue

POOLED, TOKENS = "L1-mean+L-1-last", "L-1-tokens"
HELD_OUT = 0.25


@dataclass(frozen=True)
class Place:
    """Where everything is.

    Args:
        folder: holds `cache`, `runs`, `models` and `glue`.
        backbone: the tiny one's folder.
        adapter: of an adapter that was merged into it for one of the runs.
        runs: names by kind.
    """

    folder: Path
    backbone: Path
    adapter: Path
    runs: dict[str, str]

    def run(self, kind):
        return self.folder / "runs" / self.runs[kind]

    @property
    def models(self):
        return self.folder / "models"

    def predicted(self, kind, split="validation", task="cola"):
        """Sentences, classes and probabilities `[n, c]` as a run has them of features that stage one wrote."""
        rows = [
            row for row in read_predictions(self.run(kind)).to_pylist() if (row["split"], row["task"]) == (split, task)
        ]
        assert rows
        texts, classes, probabilities = ([row[n] for row in rows] for n in ("text", "prediction", "probabilities"))
        return texts, np.array(classes), np.array(probabilities)


@pytest.fixture(scope="session")
def place(tmp_path_factory, tiny_backbone, sample_dir, save_adapter):
    folder = tmp_path_factory.mktemp("predicting")
    glue = write_small_glue(folder / "glue", sample_dir)
    adapter = save_adapter(folder / "adapter")
    runs = RunsConfig(folder / "runs")
    data = DataConfig(glue_dir=glue)

    def stage_one(cache, *, adapter=None, poolings=("mean", "last"), tasks=("cola",), **passes):
        return extract(
            ExtractConfig(tasks=tasks, layers=("1", "-1"), poolings=poolings),
            data,
            BackboneConfig(backbone=str(tiny_backbone), models_dir=folder / "models", adapter=adapter),
            TokensConfig(),
            PassConfig(threads=1, **passes),
            CacheConfig(folder / cache),
        )

    def heads(cache, *kinds, views=POOLED, **settings):
        chosen = {"tasks": ("cola",), "backbone": str(tiny_backbone), "held_out": HELD_OUT, "threads": 1, **settings}
        config = HeadsConfig(heads=kinds, views=(views,), **chosen)
        return {run.head: run.run for run in train_heads(config, CacheConfig(folder / cache), runs)}

    stage_one("cache", poolings=("mean", "last", "tokens"), tasks=("cola", "sst2"))
    adapted = stage_one("cache", adapter=adapter)
    stage_one("float16", storage_dtype="float16")
    stage_one("bfloat16", storage_dtype="bfloat16")
    found = heads("cache", "logreg", "mix", "mlp", "RidgeClassifier") | heads("cache", "attention", views=TOKENS)
    found["adapted"] = heads("cache", "logreg", adapter=adapted[0]["name"].split("-lora-")[1][:8])["logreg"]
    for dtype in ("float16", "bfloat16"):
        found[dtype] = heads(dtype, "logreg")["logreg"]
    joint = JointConfig(
        backbone=str(tiny_backbone), views=(POOLED,), held_out=HELD_OUT, seeds=1, freeze="none", hidden_size=8,
        max_steps=20, evaluation_steps=10, threads=1,
    )  # fmt: skip
    found |= {run.head: run.run for run in train_joint(joint, CacheConfig(folder / "cache"), runs).runs}
    baselines = BaselinesConfig(
        tasks=("cola",), backbone=str(tiny_backbone), views=(POOLED,), held_out=HELD_OUT, seeds=1, draws=1, threads=1,
        zero_shot=False,
    )  # fmt: skip
    (measured,) = measure_baselines(baselines, CacheConfig(folder / "cache"), runs)
    found |= {run.head: run.run for run in measured.runs[1:]}
    return Place(folder, tiny_backbone, adapter, found)
