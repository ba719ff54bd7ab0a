"""A command's trainings, one after the other, on one device."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.config import RunsConfig
from pipeline.kernels import exact_float32
from pipeline.results.ledger import Run
from pipeline.results.trackers import TENSORBOARD, tracking
from pipeline.results.trainings import note_done, run_there, state_folders
from pipeline.threads import limited_threads


class Plan(Protocol):
    """What one training is to do."""

    @property
    def settled(self) -> Mapping[str, Any]:
        """All that decides what comes out."""


P = TypeVar("P", bound=Plan)


@tracking()
def train_each(
    device: str, runs: RunsConfig, threads: int, plans: Sequence[P], train: Callable[[P, Path], Run]
) -> list[Run]:
    """One training after the other; where a command was stopped and is given again, those that are done are not redone.

    Args:
        device: they train on.
        threads: of the CPU; 0 leaves them alone.
        train: is given a plan and the folder of its state.

    Raises:
        RunError: another process is at the same trainings.
    """
    with (
        limited_threads(threads),
        exact_float32(device),
        state_folders(runs, [plan.settled for plan in plans]) as folders,
    ):
        return [run_there(folder, runs) or train(plan, folder) for plan, folder in zip(plans, folders, strict=True)]


def finish_run(run_folder: Path, folder: Path, run: Run) -> None:
    """The last of a training before its run appears in the ledger: take its logs, and note which run it became.

    Args:
        run_folder: the run's, not there yet under its own name.
        folder: of the training's state.
    """
    if (folder / TENSORBOARD).is_dir():
        shutil.copytree(folder / TENSORBOARD, run_folder / TENSORBOARD)
    note_done(folder, run)
