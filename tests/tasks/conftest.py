"""Small corpora in every form that the readers know."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import DataConfig
from pipeline.tasks.spec import TaskSpec


@pytest.fixture
def tone():
    """A task of one's own, which GLUE does not have."""
    return TaskSpec(name="tone", labels=("dull", "lively", "odd"), prompt="Text: {}")


@pytest.fixture
def own_folder(tmp_path):
    """Write a folder of one's own files, `own_folder({"train.csv": text, ...})`, and give its config."""

    def write(files: dict[str, str | bytes | pa.Table], **settings: str) -> DataConfig:
        folder = tmp_path / "own"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return DataConfig(data=str(folder), **settings)

    return write


@pytest.fixture
def glue_folder(tmp_path):
    """Write a GLUE folder, `glue_folder({"CoLA/train.tsv": text, ...})`, and give its config."""

    def write(files: dict[str, str]) -> DataConfig:
        for name, content in files.items():
            path = tmp_path / "glue" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
        return DataConfig(data="glue", glue_dir=tmp_path / "glue")

    return write


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """Write a local folder laid out as GLUE's CoLA on the Hub, and give its config; the Hub itself is out of reach."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    was_shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()

    def write(splits: dict[str, dict[str, list[object]]]) -> DataConfig:
        folder: Path = (
            tmp_path / f"hub-{len(list(tmp_path.glob('hub-*')))}"
        )  # datasets remembers a folder's first files
        (folder / "cola").mkdir(parents=True, exist_ok=True)
        card = ["---", "configs:", "- config_name: cola", "  data_files:"]
        for split, columns in splits.items():
            pq.write_table(pa.table(columns), folder / "cola" / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: cola/{split}-*"]
        (folder / "README.md").write_text("\n".join([*card, "---", ""]), "utf-8")
        return DataConfig(data="hub", hub_dataset=str(folder), glue_dir=tmp_path / "fetched")

    yield write
    if was_shown:
        datasets.enable_progress_bars()
