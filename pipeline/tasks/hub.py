"""GLUE from the Hugging Face Hub: `nyu-mll/glue` through `datasets`."""

import functools
from typing import Any

from pipeline.errors import DataError, MissingPackage
from pipeline.tasks.examples import Examples, parse_examples
from pipeline.tasks.spec import GlueLayout, Split, TaskSpec

REPOSITORY = "nyu-mll/glue"


@functools.lru_cache(maxsize=1)
def _load(repository: str, config: str, revision: str | None) -> Any:
    """All splits at once, as the Hub gives them; kept while the next split is asked for."""
    import datasets

    return datasets.load_dataset(repository, config, revision=revision)


def read_hub(
    task: TaskSpec, layout: GlueLayout, split: Split, *, repository: str, revision: str | None
) -> Examples | None:
    """Read one split of one of GLUE's tasks from a data set of the Hub, or from a local folder laid out as one.

    Args:
        repository: the data set's Hub id, or a local folder.
        revision: a commit, branch or tag; None is the main branch.

    Returns:
        the split, or None where the data set has no such split.

    Raises:
        DataError: the Hub cannot be reached and has not been before, or there is no such data set.
        MissingPackage: `datasets` is not installed.
    """
    try:
        import datasets
        import httpx2
    except ImportError as error:
        raise MissingPackage("datasets", "extract") from error
    place = f"{repository}/{layout.hub_config}, split {split}" + (f", revision {revision}" if revision else "")
    try:
        splits = _load(repository, layout.hub_config, revision)
    except (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            "the data set cannot be had from the Hub",
            where=place,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="check the network and HF_HUB_OFFLINE; or bring GLUE as a folder: GLUE_DIR=<folder>",
        ) from error
    if split not in splits:
        return None
    table = splits[split]
    if not {"sentence", "label"} <= set(table.column_names):
        raise DataError(
            "the data set has the wrong columns",
            where=place,
            expected="sentence, label, idx",
            found=", ".join(table.column_names),
        )
    labels = list(table["label"])
    return parse_examples(
        task,
        split,
        texts=list(table["sentence"]),
        labels=None if set(labels) == {-1} else labels,  # GLUE hides its test labels behind -1
        idx=list(table["idx"]) if "idx" in table.column_names else None,
        lines=range(1, len(labels) + 1),
        path=place,
        origin=f"hub: {place}",
    )
