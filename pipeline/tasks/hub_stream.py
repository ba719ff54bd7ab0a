"""A data set of the Hub that is not downloaded: its Parquet files are read row group by row group, over the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import DataConfig
from pipeline.errors import DataError, MissingPackage
from pipeline.tasks.spec import Split, TaskSpec


def hub_files(task: TaskSpec, data: DataConfig, split: Split) -> list[str]:
    """Where a split's Parquet files lie: `hf://` URLs of one commit, or paths of a local folder laid out as a data set.

    Returns:
        none where the data set has no such split.

    Raises:
        DataError: the Hub cannot be reached, there is no such data set, or it is not of Parquet files.
        MissingPackage: `datasets` is not installed.
    """
    builder = _builder(task, data)
    files: Sequence[Any] = (builder.config.data_files or {}).get(split) or ()
    paths = [str(each) for each in files]
    if any(Path(path).suffix != ".parquet" for path in paths):
        raise DataError(
            "only a data set of Parquet files can be streamed",
            where=data.hub_dataset,
            expected=".parquet",
            found=", ".join(sorted({Path(path).suffix for path in paths})),
            remedy="the Hub keeps most data sets as Parquet too: --hub-revision refs/convert/parquet",
        )
    return paths


def _builder(task: TaskSpec, data: DataConfig) -> Any:
    try:
        import datasets
        import httpx2
    except ImportError as error:
        raise MissingPackage("datasets", "extract") from error
    config = None if task.glue is None else task.glue.hub_config
    try:
        return datasets.load_dataset_builder(data.hub_dataset, config, revision=data.hub_revision)
    except (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            "the data set cannot be had from the Hub",
            where=f"{data.hub_dataset}{f'/{config}' if config else ''}",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="check the network and HF_HUB_OFFLINE; or bring the files: --data <folder>",
        ) from error
