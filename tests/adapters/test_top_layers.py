"""Live passes that begin at cached states: the same training as through the whole backbone."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.adapters.loading import LiveRun
from pipeline.adapters.top_layers import SkippedBlock
from pipeline.adapters.training import Training
from pipeline.errors import AdapterError

SETTINGS = {"views": "L2-mean+L2-last", "epochs": 5, "evaluations": 3, "learning_rate": 1e-2, "top_layers": 1}


@pytest.fixture
def cached(live):
    live.extract(layers=("1",), poolings=("tokens",), tasks=("cola", "sst2"))
    return live


@pytest.fixture
def losses(monkeypatch):
    """The loss of every step of the trainings that are run."""
    found = []
    do = Training._do

    def noting(self, step):
        found.append(do(self, step))
        return found[-1]

    monkeypatch.setattr(Training, "_do", noting)
    return found


def test_every_loss_is_that_of_whole_passes(cached, losses):
    cached.lora(**SETTINGS)
    top, losses[:] = list(losses), []
    (run,) = cached.lora(**SETTINGS, whole_passes=True)
    assert len(top) == len(losses) == 15
    torch.testing.assert_close(torch.tensor(top), torch.tensor(losses), rtol=1e-5, atol=0)
    assert max(losses) - min(losses) > 0.01  # something is trained at all
    assert (run.adapter["blocks"], run.adapter["begins_at"]) == ([1, 2], 0)


def test_the_run_says_which_features_it_began_at_and_where_its_adapters_sit(cached):
    (run,) = cached.lora(**SETTINGS)
    assert (run.adapter["blocks"], run.adapter["begins_at"]) == ([1, 2], 1)
    assert {split: len(sets) for split, sets in run.features["cola"].items()} == {
        "train": 1, "validation": 1, "test": 1,
    }  # fmt: skip
    names = load_file(cached.runs_dir / run.run / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[3] for name in names} == {"1"}


def test_every_logit_is_that_of_whole_passes(cached):
    settings = {**SETTINGS, "gate": "off", "select_by": "loss"}
    (top,), (whole,) = cached.lora(**settings), cached.lora(**settings, whole_passes=True)
    assert top.selection["step"] == whole.selection["step"] > 0
    one, other = (
        LiveRun.load(cached.runs_dir / run.run, models_dir=cached.folder / "models").logits("cola", ["A cat .", "It ."])
        for run in (top, whole)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_two_tasks_that_share_adapters_each_begin_at_their_own_states(cached, losses):
    cached.lora(**SETTINGS, tasks=("cola", "sst2"), freeze="none")
    top, losses[:] = list(losses), []
    cached.lora(**SETTINGS, tasks=("cola", "sst2"), freeze="none", whole_passes=True)
    torch.testing.assert_close(torch.tensor(top), torch.tensor(losses), rtol=1e-5, atol=0)


def test_the_blocks_below_are_not_even_there(cached, monkeypatch):
    seen = []
    forward = SkippedBlock.forward

    def noting(self, states, *args, **kwargs):
        seen.append(states.shape)
        return forward(self, states)

    monkeypatch.setattr(SkippedBlock, "forward", noting)
    cached.lora(**SETTINGS)
    assert seen
    seen.clear()
    cached.lora(**SETTINGS, whole_passes=True)
    assert not seen


def test_without_the_cached_states_one_message_says_how_to_make_them(live):
    with pytest.raises(AdapterError, match="pipeline extract --tasks cola --layers 1 --poolings tokens"):
        live.lora(**SETTINGS)


def test_states_that_are_not_the_backbones_are_noticed(cached, monkeypatch):
    from pipeline.adapters import top_layers

    of = top_layers.LowerStates.of
    monkeypatch.setattr(top_layers.LowerStates, "of", lambda self, *args: of(self, *args) * 1.01)
    with pytest.raises(AdapterError, match="begin at the cached layer give something else"):
        cached.lora(**SETTINGS)


@pytest.mark.parametrize("peft", ['modules_to_save=["embed_tokens"]', "trainable_token_indices=[5,6]"])
def test_what_would_train_below_the_adapters_is_refused(cached, peft):
    with pytest.raises(AdapterError, match="outside the blocks that get adapters") as caught:
        cached.lora(**SETTINGS, peft=(peft,))
    assert "embed_tokens" in str(caught.value)


def test_states_of_sentences_that_were_cut_are_not_taken_for_whole_ones(live):
    live.extract(layers=("1",), poolings=("tokens",), max_length=112, truncation=True)
    with pytest.raises(AdapterError, match="its tokens view is not there") as caught:
        live.lora(**SETTINGS)
    assert "truncation" in str(caught.value)
