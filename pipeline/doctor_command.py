"""`pipeline doctor`: what this machine can do. A room is imported inside the command that needs it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import App

from pipeline.config import BackboneConfig, CacheConfig, DataConfig, LedgerConfig
from pipeline.errors import MachineError
from pipeline.terminal import LISTS, Flat, Json, print_result

doctor_app = App(name="doctor", default_parameter=LISTS)


@dataclass(frozen=True)
class MachineConfig:
    """What is looked at.

    Args:
        device: the device to look at: `auto` is CUDA where there is one; `cpu`, `cuda` or `cuda:1` otherwise.
        models_dir: where the embedded backbone and quantised weights are kept.
        glue_dir: the GLUE folder (environment: GLUE_DIR).
    """

    device: str = "auto"
    models_dir: Path = field(default_factory=lambda: BackboneConfig().models_dir)
    glue_dir: Path = field(default_factory=lambda: DataConfig().glue_dir)


@doctor_app.default
def doctor(
    *,
    machine: Annotated[MachineConfig, Flat] = MachineConfig(),
    cache: Annotated[CacheConfig, Flat] = CacheConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """Look at what this machine has and what of it will be used, and try it; each problem is said with its remedy.

    Example: `pipeline doctor --device cpu`

    A problem is something that is here and does not work: the exit code is then 2. A note is something that is not
    here, or slower than it could be: notes alone end with 0.
    """
    from pipeline.doctor.examine import Places, examine
    from pipeline.doctor.lines import report_for_people
    from pipeline.progress import say

    say("looking at this machine, some seconds")
    report = examine(Places(cache.cache_dir, runs.runs_dir, machine.models_dir, machine.glue_dir, machine.device))
    print_result(report.to_dict(), json, lambda _: report_for_people(report))
    if problems := report.of("problem"):
        raise MachineError(
            f"{len(problems)} of what was looked at does not work",
            found=", ".join(each.name for each in problems),
            remedy="each stands above with its remedy",
        )
