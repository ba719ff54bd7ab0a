"""Settings of `pipeline backbones`: what is compared, on which sample, and how heads are chosen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.config import CacheConfig, Dtype, raise_problems

CONTENDERS = (
    "smollm2-135m:nf4@10",
    "smollm2-135m:nf4@20",
    "smollm2-135m:nf4",
    "smollm2-135m:int8",
    "smollm2-135m:none",
    "smollm2-135m:checkpoint",
)
"""What is compared where nobody names anything: the embedded backbone, cut and whole, in all its forms."""


@dataclass(frozen=True)
class BackbonesConfig:
    """What backbones are compared on, and how a head is chosen for each.

    Args:
        tasks: their names.
        task_files: TOML files that describe tasks of your own.
        rows: so many training rows are drawn, the same for every backbone: each class by its share, sentences that no
            other contains before what they contain. 0 takes all.
        validation_rows: and so many of validation; 0 takes all.
        heads: that are tried on each backbone, as in a sweep.
        seeds: how many ways of holding out training rows every head is tried on; a fifth five times is five-fold
            cross-validation.
        held_out: the share of the drawn training rows that each way holds out, to choose the head and its views on.
        group_by: what is held out together, as in a sweep: source or sentence.
        seed: of the draw, of the held-out rows and of the heads.
        prompt: the text around a sentence, with {} in its place; by default each task's own.
        compute_dtype: `auto` is bfloat16 on CUDA and float32 on the CPU.
        device: `auto` is CUDA where there is one; `cpu`, `cuda` or `cuda:1` otherwise.
        models_dir: where the embedded backbone and quantised weights are kept.
        threads: CPU threads; 0 is all cores.
    """

    tasks: tuple[str, ...] = ("cola", "sst2")
    task_files: tuple[Path, ...] = ()
    rows: int = 2000
    validation_rows: int = 0
    heads: tuple[str, ...] = ("logreg", "ridge", "svm", "lda", "centroid")
    seeds: int = 5
    held_out: float = 0.2
    group_by: Literal["source", "sentence"] = "source"
    seed: int = 0
    prompt: str | None = None
    compute_dtype: Dtype = "auto"
    device: str = "auto"
    models_dir: Path = field(default_factory=lambda: Path("data") / "models")
    threads: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected at least {least}, found {getattr(self, name)}"
            for name, least in (("rows", 0), ("validation_rows", 0), ("seeds", 1), ("threads", 0))
            if getattr(self, name) < least
        ]
        if not self.heads:
            problems.append("heads: expected at least one, found none")
        if not 0 < self.held_out <= 0.5:
            problems.append(f"held_out: expected a share above 0 and up to 0.5, found {self.held_out}")
        if not 0 <= self.seed < 2**32:
            problems.append(f"seed: expected a number from 0 to {2**32 - 1}, found {self.seed}")
        if self.prompt is not None and self.prompt.count("{}") != 1:
            problems.append(f"prompt: expected the sentence's slot {{}} exactly once, found {self.prompt!r}")
        raise_problems(problems)


@dataclass(frozen=True)
class SampleCacheConfig(CacheConfig):
    """Where the samples' features are kept.

    Args:
        cache_dir: a cache of its own, so that a sample is never taken for the whole corpus.
    """

    cache_dir: Path = field(default_factory=lambda: Path("data") / "backbones")
