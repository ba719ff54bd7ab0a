"""What the doctor finds: one record a finding; a check that fails becomes one, and takes no other with it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.errors import PipelineError

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: of the thing, for people.
        status: `ok`; `note`, where something is not here or slower than it could be; `problem`, where something that is
            here does not work, or what is installed does not suit it.
        found: what there is.
        means: what of it will be used, or what follows from it.
        remedy: what to do; always there for a problem.
        facts: the same for programs; sizes in bytes.
    """

    name: str
    status: Status
    found: str
    means: str = ""
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.remedy or self.status != "problem", self.name

    def to_dict(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {
            "name": self.name,
            "status": self.status,
            "found": self.found,
            "means": self.means,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }


Check = Callable[[], Iterable[Finding]]


def findings_of(name: str, check: Check) -> list[Finding]:
    """What a check finds; where it ends with an error, what it found until then, and the error as a finding.

    Args:
        name: what the check looks at, for people.
    """
    found: list[Finding] = []
    try:
        found.extend(check())
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "pipeline":
            return [*found, _failed(name, error)]
        found.append(
            Finding(name, "note", f"not looked at: the package {package} is not installed", remedy=_install(package))
        )
    except PipelineError as error:
        what = error.what + "".join(f"; {part}" for part in (error.where, error.found) if part is not None)
        found.append(Finding(name, "problem", what, remedy=error.remedy or f"expected: {error.expected}"))
    except Exception as error:  # whatever a library does on a machine that nobody has seen
        found.append(_failed(name, error))
    return found


def first_line(error: BaseException) -> str:
    """An error in one line, with its kind."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _failed(name: str, error: Exception) -> Finding:
    return Finding(
        name,
        "problem",
        f"this check ended with {first_line(error)}",
        means="nothing is known of it; the other checks do not depend on it",
        remedy="if the error's own words do not help, report it with the output of pipeline doctor --json",
    )


BASE_ONLY = ("torch", "numpy", "h5py", "pyarrow", "sklearn", "scipy", "skops", "safetensors", "xxhash")


def _install(package: str) -> str:
    return "make setup-cpu" if package in BASE_ONLY else "make setup"
