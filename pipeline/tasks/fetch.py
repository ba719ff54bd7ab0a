"""GLUE as a folder: fetched from the Hub once, or checked where it is."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pipeline.config import DataConfig
from pipeline.errors import ConfigError, DataError
from pipeline.partials import partial_path
from pipeline.progress import say
from pipeline.tasks.examples import Examples
from pipeline.tasks.glue import write_glue
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import GlueLayout, TaskSpec, find_tasks


def check_or_fetch(names: tuple[str, ...], data: DataConfig) -> list[dict[str, Any]]:
    """Read the tasks' splits; a task from the Hub is written to `data.glue_dir`, unless its folder is there.

    Returns:
        one record a split: task, split, rows, labels, origin.

    Raises:
        ConfigError: a task is not one of GLUE's.
        DataError: the source is missing or malformed, or the folder cannot be written.
    """
    records = []
    for task in find_tasks(names):
        if task.glue is None:
            raise ConfigError("this task is not one of GLUE's", found=task.name)
        folder = data.glue_dir / task.glue.folder
        there = folder.is_dir() and any(folder.iterdir())
        if data.source == "hub" and there:
            say(f"{task.name}: {folder} is there; checking it, fetching nothing (remove it to fetch it anew)")
        source = replace(data, data="glue") if data.source == "hub" and there else data
        splits = read_task(task, source)
        if source.source == "hub":
            _store(splits.values(), task.glue, data)
        records += [_describe(task, examples) for examples in splits.values()]
    return records


def _store(splits: Iterable[Examples], layout: GlueLayout, data: DataConfig) -> None:
    """Write a task's splits into a partial folder, which then appears as a whole or not at all."""
    partial = partial_path(data.glue_dir / layout.folder)
    try:
        for examples in splits:
            write_glue(partial, examples, layout)
        (partial / layout.folder).rename(data.glue_dir / layout.folder)
    except OSError as error:
        raise DataError("GLUE cannot be stored", where=data.glue_dir, found=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{layout.folder}: written to {data.glue_dir / layout.folder}")


def _describe(task: TaskSpec, examples: Examples) -> dict[str, Any]:
    labels = "none"
    if examples.labels is not None:
        labels = " ".join(f"{name}:{examples.labels.count(number)}" for number, name in enumerate(task.labels))
    return {
        "task": task.name,
        "split": examples.split,
        "rows": len(examples),
        "labels": labels,
        "origin": examples.origin,
    }
