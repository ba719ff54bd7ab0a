"""Backbones compared on a tiny real one and a few rows, stage one in this process; one test starts one of its own."""

import pytest

from pipeline.choosing import measure, stage_one
from pipeline.choosing.contender import parse_contenders
from pipeline.choosing_config import BackbonesConfig
from pipeline.config import CacheConfig, DataConfig, RunsConfig
from tests.tiny_backbone import write_small_glue


class Compare:
    """Compares contenders of the tiny backbone; `{}` stands for its folder."""

    def __init__(self, backbone, glue, folder):
        self.backbone, self.data = backbone, DataConfig(glue_dir=glue)
        self.cache, self.runs = CacheConfig(folder / "cache"), RunsConfig(folder / "runs")
        self.settings = {
            "tasks": ("cola",),
            "rows": 50,
            "validation_rows": 24,
            "heads": ("ridge", "centroid"),
            "seeds": 2,
            "group_by": "sentence",
            "models_dir": folder / "models",
        }

    def contenders(self, *texts):
        return parse_contenders([text.format(self.backbone) for text in texts])

    def __call__(self, *texts, **changed):
        what = BackbonesConfig(**{**self.settings, **changed})
        return measure.compare_backbones(self.contenders(*texts), what, self.data, self.cache, self.runs)


@pytest.fixture
def in_this_process(monkeypatch):
    """No process of its own for a contender: that takes seconds."""
    monkeypatch.setattr(measure, "make_features", stage_one.extract_request)


@pytest.fixture(scope="session")
def compare(tiny_backbone, sample_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("choosing")
    return Compare(tiny_backbone, write_small_glue(folder / "glue", sample_dir), folder)


@pytest.fixture(scope="session")
def compared(compare):
    """Two that are had and two that are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "make_features", stage_one.extract_request)
        return compare("{}:none@1", "{}:none", "{}:none@7", "org/none", tasks=("cola", "sst2"))
