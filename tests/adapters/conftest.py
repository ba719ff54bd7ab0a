"""The live path on a tiny real backbone and a small GLUE folder."""

import pytest

from pipeline.adapters import lora_plan, lora_run, prompt_run
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, ExtractConfig, PassConfig, RunsConfig, TokensConfig
from pipeline.live_config import LivePathConfig, LoraOptions, PromptOptions, TrainingConfig


class Live:
    """Runs `pipeline adapt`, `extract` and `heads` with any setting changed; by default a small trial."""

    def __init__(self, backbone, glue, folder):
        self.folder = folder
        self.runs_dir, self.cache_dir = folder / "runs", folder / "cache"
        self.defaults = {
            "tasks": ("cola",),
            "glue_dir": glue,
            "data": "glue",
            "backbone": str(backbone),
            "models_dir": folder / "models",
            "cache_dir": self.cache_dir,
            "runs_dir": self.runs_dir,
            "views": "L1-mean+L-1-last",
            "epochs": 2,
            "batch_size": 16,
            "held_out": 0.25,
            "threads": 1,
        }

    def settings(self, kind, changed):
        values = {**self.defaults, **changed}
        return kind(**{name: value for name, value in values.items() if name in kind.__dataclass_fields__})

    def _all(self, *kinds, **changed):
        known = {name for kind in kinds for name in kind.__dataclass_fields__}
        assert set(changed) <= known, set(changed) - known
        return [self.settings(kind, changed) for kind in kinds]

    def lora(self, **changed):
        kinds = (LivePathConfig, LoraOptions, TrainingConfig, DataConfig, BackboneConfig, TokensConfig, CacheConfig)
        return lora_run.adapt_lora(lora_plan.Settings(*self._all(*kinds, RunsConfig, **changed)))

    def prompt(self, **changed):
        kinds = (LivePathConfig, PromptOptions, TrainingConfig, DataConfig, BackboneConfig, TokensConfig, RunsConfig)
        return prompt_run.adapt_prompt(prompt_run.Settings(*self._all(*kinds, **changed)))

    def extract(self, **changed):
        from pipeline.extract.run import extract

        kinds = (ExtractConfig, DataConfig, BackboneConfig, TokensConfig, PassConfig, CacheConfig)
        return extract(*self._all(*kinds, **{"token_budget": 256, **changed}))

    def heads(self, **changed):
        from pipeline.config import HeadsConfig
        from pipeline.heads.train import train_heads

        kept = {"views": (self.defaults["views"],), "heads": ("linear",), "backbone": "tiny-llama", **changed}
        return train_heads(self.settings(HeadsConfig, kept), CacheConfig(self.cache_dir), RunsConfig(self.runs_dir))


@pytest.fixture
def live(tiny_backbone, small_glue, tmp_path):
    return Live(tiny_backbone, small_glue, tmp_path)


@pytest.fixture
def counted_from_0(monkeypatch):
    """TensorBoard's files of one second are ordered by a process's count of them as text, in which 10 is before 9: as
    in a new process, it begins at 0."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
