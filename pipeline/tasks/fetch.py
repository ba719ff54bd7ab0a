"""GLUE as a folder: fetched from the Hub once, or checked where it is."""

from dataclasses import replace
from typing import Any

from pipeline.config import DataConfig
from pipeline.errors import ConfigError
from pipeline.progress import say
from pipeline.tasks.glue import write_glue
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks


def check_or_fetch(names: tuple[str, ...], data: DataConfig) -> list[dict[str, Any]]:
    """Read the tasks' splits; those from the Hub are written to `data.glue_dir`, unless they are there.

    Returns:
        one record a split: task, split, rows, labels, origin.

    Raises:
        ConfigError: a task is not one of GLUE's.
        DataError: the source is missing or malformed.
    """
    records = []
    for task in find_tasks(names):
        if task.glue is None:
            raise ConfigError("this task is not one of GLUE's", found=task.name)
        there = (data.glue_dir / task.glue.folder).is_dir()
        if data.source == "hub" and there:
            say(f"{task.name}: {data.glue_dir / task.glue.folder} is there; checking it, fetching nothing")
        source = replace(data, data="glue") if data.source == "hub" and there else data
        for examples in read_task(task, source).values():
            if source.source == "hub":
                say(f"{task.name}/{examples.split}: written to {write_glue(data.glue_dir, examples, task.glue)}")
            labels = (
                "none"
                if examples.labels is None
                else " ".join(f"{name}:{examples.labels.count(number)}" for number, name in enumerate(task.labels))
            )
            records.append(
                {
                    "task": task.name,
                    "split": examples.split,
                    "rows": len(examples),
                    "labels": labels,
                    "origin": examples.origin,
                }
            )
    return records
