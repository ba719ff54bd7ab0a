"""Writing the report: one file, whole or not at all, and over nothing but an earlier report."""

from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, RunError
from pipeline.partials import partial_path
from pipeline.results.report.gather import Gathered
from pipeline.results.report.page import GENERATOR, page_of

SUFFIXES = (".html", ".htm")
HEAD_BYTES = 4096
"""Of a file that is there: its first lines say whether it is a report."""


def write_report(path: Path, gathered: Gathered) -> dict[str, Any]:
    """Write the report of what was gathered.

    Returns:
        `file`, `bytes`, `runs` (how many), `detailed` (how many of them are shown in detail), `tasks` (their names),
        `corpora` (what each is called, the most important first).

    Raises:
        ConfigError: the file's name does not end in .html or .htm, or the file is there, and is no report.
        RunError: the file cannot be written.
        ModuleNotFoundError: plotly is not installed.
    """
    _refuse_others(path)
    content = page_of(gathered).encode("utf-8")
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError("the report cannot be written", where=path, found=error.strerror or str(error)) from error
    return {
        "file": str(path),
        "bytes": len(content),
        "runs": len(gathered.runs),
        "detailed": len({entry.name for corpus in gathered.corpora for entry in corpus.chosen}),
        "tasks": list(dict.fromkeys(corpus.task for corpus in gathered.corpora)),
        "corpora": [corpus.title for corpus in gathered.corpora],
    }


def _refuse_others(path: Path) -> None:
    """Refuse a name that browsers do not take for a page, and to write over what is no report.

    Raises:
        ConfigError: the name ends otherwise, or there is such a file, or a folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            "the report is an HTML page, and the file's name says something else",
            where=path,
            expected=" | ".join(SUFFIXES),
            found=path.suffix or "a name without an ending",
            remedy=f"name it {path.with_suffix('.html') if path.name else 'report.html'}",
        )
    if not path.exists():
        return
    is_report = False
    if path.is_file():
        with path.open("rb") as file:
            is_report = f'content="{GENERATOR}"'.encode() in file.read(HEAD_BYTES)
    if not is_report:
        raise ConfigError(
            "this is there already, and no report",
            where=path,
            expected="a new file, or an earlier report",
            remedy="name another file, or move this one away",
        )
