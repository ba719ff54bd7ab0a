"""GLUE's files: whether they are there, can be read, and have the rows of the real GLUE."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config import DataConfig
from pipeline.doctor.finding import Finding
from pipeline.errors import DataError
from pipeline.glue_rows import GLUE_ROWS
from pipeline.tasks.glue import glue_file
from pipeline.tasks.read import THREE_WAYS, read_task
from pipeline.tasks.spec import BUILT_IN, SPLITS, TaskSpec


def check_glue(glue_dir: Path) -> Iterator[Finding]:
    """Each task's files: there, readable, and with as many rows as GLUE has."""
    for task in BUILT_IN.values():
        yield _glue(task, glue_dir)


def _glue(task: TaskSpec, glue_dir: Path) -> Finding:
    assert task.glue is not None
    layout, name = task.glue, f"GLUE's {task.glue.folder}"
    if not any(glue_file(glue_dir, layout, split).exists() for split in SPLITS):
        return Finding(
            name,
            "note",
            f"not in {glue_dir}",
            means="the sample corpora (--data sample) and files of your own work without it",
            remedy=THREE_WAYS,
        )
    again = f"remove {glue_dir / layout.folder} and run make data, or name another folder with --glue-dir"
    try:
        splits = read_task(task, DataConfig(data="glue", glue_dir=glue_dir))
    except DataError as error:
        what = "; ".join(str(part) for part in (error.what, error.where, error.found) if part is not None)
        return Finding(name, "problem", what, means="stage one would refuse it", remedy=again)
    rows = {split: len(examples) for split, examples in splits.items()}
    found = f"{glue_dir / layout.folder}: " + ", ".join(f"{split} {count:,}" for split, count in rows.items())
    if others := [split for split, count in rows.items() if count != GLUE_ROWS[task.name, split]]:
        return Finding(
            name,
            "problem",
            found,
            means="GLUE has " + ", ".join(f"{GLUE_ROWS[task.name, split]:,} rows in {split}" for split in others),
            remedy=f"{again}; if it is meant to be another corpus, read it with --data <folder>",
            facts={"rows": rows},
        )
    means = "" if "test" in rows else "no test split, which no score needs: its labels are hidden"
    return Finding(name, "ok", found, means=means, facts={"rows": rows})
