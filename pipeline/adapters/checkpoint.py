"""The state of a training that is under way: one safetensors file, replaced at once, never unpickled."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.errors import AdapterError
from pipeline.partials import partial_path

FILE = "state.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a training is, beside its tensors.

    Args:
        settled: a record of all that decides what comes out; a state of another record is never gone on with.
        step: steps that are done.
        seconds: of training so far.
        scheduler: the learning-rate schedule's state.
        evaluations: one record each.
        losses: of the steps since the last evaluation, by task.
    """

    settled: Mapping[str, Any]
    step: int = 0
    seconds: float = 0.0
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)


def write_state(folder: Path, progress: Progress, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a state in the place of the one before; a kill leaves the one or the other."""
    path = folder / FILE
    partial = partial_path(path)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={"progress": json.dumps(asdict(progress))},
        )
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read_state(folder: Path) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """The state that a folder holds, if it holds one.

    Raises:
        AdapterError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads((file.metadata() or {})["progress"]))
            return progress, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise AdapterError(
            "the state of a training that was stopped cannot be read",
            where=path,
            found=f"{type(error).__name__}: {error}",
            remedy="remove it: the training begins anew",
        ) from error
