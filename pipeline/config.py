"""Every setting, with its default in one place; a config's errors are all reported at once."""

import importlib.util
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConfigError, MissingPackage
from pipeline.tasks.spec import Split

Quantization = Literal["nf4", "int8", "none", "checkpoint"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Tracker = Literal["none", "tensorboard", "mlflow"]
TRACKERS: Mapping[Tracker, tuple[str, ...]] = {
    "none": (),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
"""The packages that each needs."""


def _data_dir() -> Path:
    return Path("data")


def raise_problems(problems: list[str]) -> None:
    """Raise one error for all problems of a config."""
    if problems:
        raise ConfigError("these settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems))


def parse_settings(texts: tuple[str, ...]) -> Mapping[str, Any]:
    """Read `name=value` texts; a value that is JSON is taken as JSON, any other as text."""
    return dict(_parse_setting(text) for text in texts)


def _parse_setting(text: str) -> tuple[str, Any]:
    name, value = text.split("=", 1)
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


@dataclass(frozen=True)
class DataConfig:
    """Where sentences and labels come from.

    Args:
        data: `glue` (a GLUE folder), `hub` (GLUE from the Hub), `sample` (small corpora that come with the project),
            or a folder with train, validation and test as .csv, .tsv, .parquet or .jsonl files.
        glue_dir: the GLUE folder (environment: GLUE_DIR).
        sample_dir: the sample's folder.
        hub_dataset: the data set on the Hub, or a local folder laid out as one.
        hub_revision: its commit, branch or tag.
        text_column: the column of the sentences in your own files; by default the task's.
        label_column: the column of the labels there; by default the task's.
    """

    data: str = "glue"
    glue_dir: Path = field(default_factory=lambda: Path(os.environ.get("GLUE_DIR") or _data_dir() / "glue"))
    sample_dir: Path = field(default_factory=lambda: _data_dir() / "sample")
    hub_dataset: str = "nyu-mll/glue"
    hub_revision: str | None = None
    text_column: str | None = None
    label_column: str | None = None

    @property
    def source(self) -> str:
        """The source's name for records: `glue`, `hub`, `sample` or `files`."""
        return source_name(self.data)


@dataclass(frozen=True)
class FetchConfig(DataConfig):
    """Where GLUE comes from when it is fetched.

    Args:
        data: `hub` (fetch it) or `glue` (check the folder that is there).
    """

    data: str = "hub"


SOURCES = ("glue", "hub", "sample")
CATALOGUE = ("smollm2-135m", "deepseek-r1-distill-llama-8b")
"""Backbones that have names."""


def source_name(data: str) -> str:
    """What a source of data is called in records: a folder of one's own is `files`."""
    return data if data in SOURCES else "files"


@dataclass(frozen=True)
class BackboneConfig:
    """Which frozen LLM, and in which numbers.

    Args:
        backbone: a name of the catalogue (smollm2-135m, deepseek-r1-distill-llama-8b), a Hub id, or a local folder.
        revision: the Hub commit, branch or tag.
        adapter: the folder of a LoRA adapter as peft saves it, to be merged into the backbone's weights.
        quantization: `nf4` (bitsandbytes 4-bit, double quantisation), `int8` (bitsandbytes), `none`, or `checkpoint`
            (the weights as the checkpoint ships them).
        compute_dtype: `auto` is bfloat16 on CUDA and float32 on the CPU.
        device: `auto` is CUDA where there is one; `cpu`, `cuda` or `cuda:1` otherwise.
        models_dir: where the embedded backbone is converted to, once.
    """

    backbone: str = "smollm2-135m"
    revision: str | None = None
    adapter: Path | None = None
    quantization: Quantization = "nf4"
    compute_dtype: Dtype = "auto"
    device: str = "auto"
    models_dir: Path = field(default_factory=lambda: _data_dir() / "models")

    def __post_init__(self) -> None:
        if not self.backbone:
            raise_problems(["backbone: expected a name, a Hub id or a folder, found an empty text"])


def backbone_slug(backbone: str) -> str:
    """A backbone's name as folders and records have it: of a Hub id or a folder (links followed), the last part."""
    folder = Path(backbone).expanduser()
    last = (folder.resolve() if folder.is_dir() else folder).name
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-") or "backbone"


@dataclass(frozen=True)
class TokensConfig:
    """How sentences become tokens.

    Args:
        prompt: the text around a sentence, with {} in its place; by default each task's own.
        max_length: the most tokens that a prompted sentence may have; by default 512, or what the backbone was made
            for where that is less.
        truncation: cut the sentences that are longer, and count them; otherwise they are refused.
        special_tokens: let the tokenizer add its special tokens (such as BOS).
    """

    prompt: str | None = None
    max_length: int | None = None
    truncation: bool = False
    special_tokens: bool = True

    def __post_init__(self) -> None:
        problems = []
        if self.prompt is not None and self.prompt.count("{}") != 1:
            problems.append(f"prompt: expected the sentence's slot {{}} exactly once, found {self.prompt!r}")
        if self.max_length is not None and self.max_length < 1:
            problems.append(f"max_length: expected at least 1 token, found {self.max_length}")
        raise_problems(problems)


@dataclass(frozen=True)
class PassConfig:
    """How stage one goes through a corpus.

    Args:
        storage_dtype: the numbers in the shards; `auto` is the compute dtype.
        shard_rows: rows a shard; a killed run loses at most the work of one shard. 0 is 4096, doubled until a split has
            at most 32 shards, or a shard 32,768 rows.
        order: of the rows that are cut into shards: `split`, as they stand in the split, which reads as a memory map;
            `tokens`, so that rows that begin alike meet in a shard and what they share is computed once, which reads
            as a copy; `auto` is `tokens` where that saves a twentieth of the tokens to compute.
        token_budget: tokens a batch, padding included; 0 is what a short probe finds to suit the device, which is
            remembered.
        threads: CPU threads; 0 is all cores.
        verify: hash the shards that are there before they are kept, instead of trusting their sizes.
        drift_tolerance: the largest relative difference between a stored row and the same row computed again; by
            default 1e-4 for float32, and more for 16-bit numbers.
        lock_timeout: seconds to wait for another process that writes the same features while it finishes no shard.
    """

    storage_dtype: Dtype = "auto"
    shard_rows: int = 0
    order: Literal["auto", "split", "tokens"] = "auto"
    token_budget: int = 0
    threads: int = 0
    verify: bool = False
    drift_tolerance: float | None = None
    lock_timeout: float = 3600.0

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected at least {least}, found {getattr(self, name)}"
            for name, least in (("shard_rows", 0), ("token_budget", 0), ("threads", 0))
            if getattr(self, name) < least
        ]
        for name in ("drift_tolerance", "lock_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                problems.append(f"{name}: expected a number from 0 on, found {value}")
        raise_problems(problems)


@dataclass(frozen=True)
class CacheConfig:
    """Where features are kept.

    Args:
        cache_dir: the cache's folder; the only thing that passes from the GPU machine to the CPU machine.
    """

    cache_dir: Path = field(default_factory=lambda: _data_dir() / "cache")


@dataclass(frozen=True)
class TransferConfig:
    """Which feature sets are copied to or from another place, and how.

    Args:
        tasks: only those of these tasks; by default of all.
        splits: only those of these splits; by default of all.
        replace: overwrite feature sets there that have the same name and other seals; otherwise they are refused.
        dry_run: say what would be copied, and copy nothing.
    """

    tasks: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    replace: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class LedgerConfig:
    """Where runs are kept.

    Args:
        runs_dir: the folder of all runs.
    """

    runs_dir: Path = field(default_factory=lambda: _data_dir() / "runs")


@dataclass(frozen=True)
class RunsConfig(LedgerConfig):
    """Where new runs are kept, and who else is told of them.

    Args:
        log: `mlflow` tells each run to MLflow too (MLFLOW_TRACKING_URI, or mlflow.db beside the runs), `tensorboard`
            writes its files into the run's folder.
    """

    log: Tracker = "none"

    def __post_init__(self) -> None:
        for package in TRACKERS[self.log]:
            if importlib.util.find_spec(package) is None:
                raise MissingPackage(package, "log")


@dataclass(frozen=True)
class ExtractConfig:
    """What stage one does.

    Args:
        tasks: their names.
        task_files: TOML files that describe tasks of your own.
        splits: by default train and validation, and test where there is one.
        layers: layer numbers, shares of the depth, or `all`; by default each task's own.
        poolings: by default each task's own.
    """

    tasks: tuple[str, ...] = ("cola", "sst2")
    task_files: tuple[Path, ...] = ()
    splits: tuple[Split, ...] = ()
    layers: tuple[str, ...] = ()
    poolings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeaturesConfig:
    """Which features of the cache stage two works on.

    Args:
        tasks: their names.
        task_files: TOML files that describe tasks of your own.
        backbone: the backbone whose features to train on.
        quantization: and its quantisation.
        adapter: the beginning of the digest of the adapter that was merged into it, as it stands after `lora-` in the
            feature set's name; by default none was.
        data: and the source of its sentences (glue, hub, sample, or a folder of files).
        prompt: and the text around them; by default each task's own.
        where: other fields of the features' identity, such as quantization.compute_dtype=float32.
        held_out: about the share of the training rows to select on (one over a whole number); where that is few of
            them, the strength of a linear head is chosen on up to five such shares.
        seed: of the held-out rows, of a head's first weights and of its batches.
        threads: CPU threads; 0 is all cores.
    """

    tasks: tuple[str, ...] = ("cola", "sst2")
    task_files: tuple[Path, ...] = ()
    backbone: str = "smollm2-135m"
    quantization: Quantization = "nf4"
    adapter: str | None = None
    data: str = "glue"
    prompt: str | None = None
    where: tuple[str, ...] = ()
    held_out: float = 0.1
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        raise_problems(self._problems())

    def _problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = []
        if not 0 < self.held_out <= 0.5:
            problems.append(f"held_out: expected a share above 0 and up to 0.5, found {self.held_out}")
        if not 0 <= self.seed < 2**32:
            problems.append(f"seed: expected a number from 0 to {2**32 - 1}, found {self.seed}")
        if self.threads < 0:
            problems.append(f"threads: expected at least 0, found {self.threads}")
        if self.adapter is not None and not re.fullmatch(r"(sha256:)?[0-9a-f]{6,64}", self.adapter):
            problems.append(f"adapter: expected six or more hex digits, as cache ls has them, found {self.adapter!r}")
        problems += [f"where: expected <field>=<value>, found {text!r}" for text in self.where if "=" not in text]
        return problems


@dataclass(frozen=True)
class HeadsConfig(FeaturesConfig):
    """What stage two trains, and on which features.

    Args:
        heads: `logreg`, `ridge`, `svm`, `lda`, `centroid`, `linear`, `mlp`, `mix` (of several views), `attention` (on
            the tokens view), or any scikit-learn classifier by its class name.
        views: such as L20-mean, L-1-last, or several side by side: L16-mean+L20-mean; by default each task's own.
        params: settings of the heads by their scikit-learn names, such as C=0.1 or weight_decay=3.
    """

    heads: tuple[str, ...] = ("logreg", "linear", "mlp")
    views: tuple[str, ...] = ()
    params: tuple[str, ...] = ()

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if not self.heads:
            problems.append("heads: expected at least one, found none")
        problems += [f"params: expected <field>=<value>, found {text!r}" for text in self.params if "=" not in text]
        return problems
