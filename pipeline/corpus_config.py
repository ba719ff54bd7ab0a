"""Where the rows of stage one come from, and whether they are held in memory."""

from dataclasses import dataclass

from pipeline.config import DataConfig


@dataclass(frozen=True)
class CorpusConfig(DataConfig):
    """Where the rows of stage one come from.

    Args:
        stream: read rows as they are needed, for corpora that do not fit into memory: .parquet or .jsonl files, several
            a split (`train.parquet`, `train-*.parquet` or `train/*.parquet`), or Parquet on the Hub. Rows are cut as
            they stand, and features are known by the files' SHA-256, or the Hub's commit.
    """

    stream: bool = False
