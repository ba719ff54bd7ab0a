"""Versions: Python, HDF5, and each package against the range that this project names for it."""

import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from typing import cast

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipeline.doctor.finding import Finding, Status

PROJECT = "feature-cache-pipeline"
PURPOSES = {
    "": "stage two",
    "extract": "stage one",
    "adapters": "the live path",
    "remote": "sftp, s3 and the Hub",
    "report": "pipeline report",
    "ray": "workers on Ray",
}
"""What the base and the extras are for; any other extra goes by its name."""
MADE = {"": "make setup-cpu", **dict.fromkeys(("extract", "adapters", "remote", "ray"), "make setup")}
DEVELOPERS = {"dev", "bench"}
"""Extras that are not looked at."""

Installed = Callable[[str], str | None]


def installed(package: str) -> str | None:
    """A package's version, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_versions() -> Iterator[Finding]:
    """Python and HDF5, then each extra's packages."""
    try:
        project = importlib.metadata.metadata(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            PROJECT,
            "note",
            "not installed as a package: which versions suit it is not known",
            remedy="make setup (or: pip install --editable .)",
        )
        return
    yield judge_python(platform.python_version(), project["Requires-Python"])
    yield from judge_packages(importlib.metadata.requires(PROJECT) or (), installed)
    from pipeline.cache.shard import hdf5_version

    yield Finding("HDF5", "ok", f"{hdf5_version()} under h5py {installed('h5py')}")


def judge_python(version: str, wanted: str) -> Finding:
    """Whether this Python is one that the project is for."""
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("Python", "ok", version)
    return Finding("Python", "problem", version, means=f"{PROJECT} wants {wanted}", remedy="install another Python")


def judge_packages(requirements: Iterable[str], installed: Installed) -> Iterator[Finding]:
    """One finding for the base and each extra; then one for each package whose version is outside its range.

    Args:
        requirements: as the project's metadata has them.
        installed: gives a package's version, or None.
    """
    parsed = [Requirement(each) for each in requirements]
    shown: set[str] = set()
    outside: set[tuple[str, str]] = set()
    extras = {name for each in parsed for name in re.findall(r'extra == "([^"]+)"', str(each.marker))}
    for extra in sorted(extras - DEVELOPERS | {""}, key=lambda name: ([*PURPOSES, name].index(name), name)):
        purpose = PURPOSES.get(extra, f"the extra {extra}")
        pip = f"pip install '{PROJECT}[{extra}]'" if extra else f"pip install {PROJECT}"
        remedy = f"{MADE[extra]} (or: {pip})" if extra in MADE else pip
        wanted = [each for each in parsed if _is_of(each, extra)]
        there = {each.name: version for each in wanted if (version := installed(each.name)) is not None}
        missing = [each.name for each in wanted if each.name not in there]
        new = [f"{package} {version}" for package, version in there.items() if package not in shown]
        shown.update(there)
        found = ", ".join(new + ["what stands above"] * (len(new) < len(there))) or "none"
        means, status = "", "ok"
        if missing:
            means = f"missing: {', '.join(missing)}" + ("; all else works without" if extra else "")
            status = "note" if extra else "problem"
        facts = {"extra": extra or None, "versions": there, "missing": missing}
        name = f"packages of {purpose}"
        yield Finding(name, cast(Status, status), found, means, remedy if missing else "", facts)
        for each in wanted:
            version, key = there.get(each.name), (each.name, str(each.specifier))
            if version is None or key in outside or each.specifier.contains(version, prereleases=True):
                continue
            outside.add(key)
            whose = f"the extra {extra!r}" if extra else "the base"
            yield Finding(each.name, "problem", version, f"outside of {each.specifier}, which {whose} names", remedy)


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Whether the base, or the extra alone, asks for a package on this machine."""
    if requirement.marker is None:
        return not extra
    of_base = requirement.marker.evaluate({"extra": ""})
    return of_base if not extra else requirement.marker.evaluate({"extra": extra}) and not of_base
