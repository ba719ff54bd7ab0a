"""The whole examination: every check in its section, and what all of it comes to.

A check's module is imported within the check: what a package that is missing or broken takes with it is that check.
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Dtype
from pipeline.doctor.finding import Finding, findings_of
from pipeline.errors import BackboneError

PATIENCE_SECONDS = 10.0
"""For all that the Hub is asked: looking up its name has no limit of its own."""


@dataclass(frozen=True)
class Places:
    """What the other commands would be told.

    Args:
        cache_dir: where features are kept.
        runs_dir: where runs are kept.
        models_dir: where the embedded backbone and quantised weights are kept.
        glue_dir: the GLUE folder.
        device: `auto`, or a device by name.
    """

    cache_dir: Path
    runs_dir: Path
    models_dir: Path
    glue_dir: Path
    device: str = "auto"


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        sections: findings by what they are about, in the order of reading.
        seconds: that it took.
    """

    sections: dict[str, list[Finding]]
    seconds: float

    def of(self, status: str) -> list[Finding]:
        """The findings of one status."""
        return [each for found in self.sections.values() for each in found if each.status == status]

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "problems": len(self.of("problem")),
            "notes": len(self.of("note")),
            "seconds": round(self.seconds, 2),
            "findings": [
                {"section": section, **each.to_dict()} for section, found in self.sections.items() for each in found
            ],
        }


def examine(places: Places) -> Report:
    """Look at everything; no check depends on another, and none raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries' own, on a terminal where the findings are to stand
        return _examine(places)


def _examine(places: Places) -> Report:
    began = time.perf_counter()
    hub = meanwhile("Hub", _hub)
    device, dtype, of_device = _resolved(places.device)
    sections = {
        "GPU": [*findings_of("NVIDIA GPU", _gpu), *of_device],
        "Backbone and quantisation": findings_of("transformers", _transformers)
        + findings_of("bitsandbytes", lambda: _nf4(device)),
        "CPU": findings_of("matrix products", _kernels),
        "Disk": findings_of("files of the cache", lambda: _files(places)),
        "Versions": findings_of("versions", _versions),
        "Data and backbones": findings_of("GLUE", lambda: _glue(places)),
    }
    sections["CPU"] += findings_of("cores", _cores) + findings_of("memory", _memory)
    sections["Disk"] = findings_of("room", lambda: _room(places, dtype)) + sections["Disk"]
    sections["Disk"] += findings_of("leftovers", lambda: _leftovers(places))
    sections["Data and backbones"] += findings_of("backbones", lambda: _backbones(places, device, dtype))
    sections["Hub"] = hub()
    return Report(sections, time.perf_counter() - began)


def _resolved(wanted: str) -> tuple[str, Dtype, list[Finding]]:
    """The device and the dtype that the commands would take, and what is to be said of them."""
    taken: list[tuple[str, Dtype]] = []

    def resolve() -> Iterator[Finding]:
        from pipeline.backbone.facts import resolve_device, resolve_dtype

        try:
            device = resolve_device(wanted)
        except BackboneError as error:
            remedy = f"name one of {error.expected}, or leave --device out"
            yield Finding(f"--device {wanted}", "problem", error.what, "the CPU is looked at instead", remedy)
            return
        taken.append((device, resolve_dtype("auto", device)))
        yield Finding(
            f"--device {wanted}",
            "ok",
            f"{device}, in {taken[0][1]}",
            means="stage one and the live path compute there",
            facts={"device": device, "compute_dtype": taken[0][1]},
        )

    found = findings_of(f"--device {wanted}", resolve)
    return *(taken[0] if taken else ("cpu", "float32")), found


def meanwhile(
    name: str, check: Callable[[], Iterator[Finding]], patience: float = PATIENCE_SECONDS
) -> Callable[[], list[Finding]]:
    """Begin a check that waits for another machine; what is given back ends the waiting, and gives the findings.

    Args:
        patience: seconds from now on, after which the check counts as unanswered.
    """
    until, found = time.monotonic() + patience, list[Finding]()
    thread = threading.Thread(target=lambda: found.extend(findings_of(name, check)), daemon=True)  # never waited for
    thread.start()

    def findings() -> list[Finding]:
        thread.join(max(0.0, until - time.monotonic()))
        if not thread.is_alive():
            return found
        what = f"no answer within {patience:g} seconds"
        remedy = "check the network and its name servers; HF_HUB_OFFLINE=1 spares the waiting"
        return [Finding(name, "note", what, remedy=remedy)]

    return findings


def _hub() -> Iterator[Finding]:
    from pipeline.doctor.hub import check_hub

    yield from check_hub()


def _gpu() -> Iterator[Finding]:
    from pipeline.doctor.gpu import check_gpu

    yield from check_gpu()


def _transformers() -> Iterator[Finding]:
    from pipeline.doctor.nf4 import check_transformers

    yield from check_transformers()


def _nf4(device: str) -> Iterator[Finding]:
    from pipeline.doctor.nf4 import check_bitsandbytes

    yield from check_bitsandbytes(device)


def _kernels() -> Iterator[Finding]:
    from pipeline.doctor.cpu import check_kernels

    yield from check_kernels()


def _cores() -> Iterator[Finding]:
    from pipeline.doctor.cpu import check_cores

    yield from check_cores()


def _memory() -> Iterator[Finding]:
    from pipeline.doctor.cpu import check_memory

    yield from check_memory()


def _room(places: Places, dtype: Dtype) -> Iterator[Finding]:
    from pipeline.doctor.disk import check_room

    yield from check_room(places.cache_dir, places.runs_dir, places.models_dir, dtype)


def _files(places: Places) -> Iterator[Finding]:
    from pipeline.doctor.disk import check_files

    yield from check_files(places.cache_dir)


def _leftovers(places: Places) -> Iterator[Finding]:
    from pipeline.doctor.disk import check_leftovers

    yield from check_leftovers(places.cache_dir, places.runs_dir, places.models_dir)


def _versions() -> Iterator[Finding]:
    from pipeline.doctor.versions import check_versions

    yield from check_versions()


def _glue(places: Places) -> Iterator[Finding]:
    from pipeline.doctor.glue_folder import check_glue

    yield from check_glue(places.glue_dir)


def _backbones(places: Places, device: str, dtype: Dtype) -> Iterator[Finding]:
    from pipeline.doctor.backbones import check_budgets, check_eight_billion, check_embedded

    yield from check_embedded(places.models_dir)
    yield from check_eight_billion(device, dtype)
    yield from check_budgets(device)
