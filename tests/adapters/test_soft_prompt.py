"""Soft prompts: only they train, they begin as a text, a part of them can be shared, and peft loads them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.adapters.loading import LiveRun
from pipeline.adapters.soft_prompt import text_ids
from pipeline.backbone.tokens import load_tokenizer
from pipeline.errors import AdapterError, ConfigError, DataError, RunError
from pipeline.live_config import PromptOptions
from pipeline.tasks.spec import COLA, virtual_text

TEXT = "Is the sentence right ?"


def prompts_of(live, run):
    folder = live.runs_dir / run.run / "adapters"
    return {p.name: load_file(p / "adapter_model.safetensors")["prompt_embeddings"] for p in folder.iterdir()}


def embeddings_of(tiny_backbone, text):
    from transformers import AutoModel

    ids = load_tokenizer(tiny_backbone)(text, add_special_tokens=False)["input_ids"]
    model = AutoModel.from_pretrained(tiny_backbone)
    return model.get_input_embeddings().weight.detach()[ids]


def test_virtual_tokens_begin_as_the_texts_and_none_of_them_is_bos(live, tiny_backbone):
    (run,) = live.prompt(init_text=TEXT, learning_rate=1e-12, epochs=1)
    torch.testing.assert_close(prompts_of(live, run)["cola"], embeddings_of(tiny_backbone, TEXT))

    class WithBos:
        all_special_ids = (0,)

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": ([0] if add_special_tokens else []) + [7, 8, 9]}

    assert text_ids(WithBos(), TEXT, None).tolist() == [7, 8, 9]
    assert text_ids(WithBos(), TEXT, 2).tolist() == [7, 8]
    assert text_ids(WithBos(), TEXT, 5).tolist() == [7, 8, 9, 7, 8]


def test_by_default_they_begin_as_the_tasks_own_text(live, tiny_backbone):
    (run,) = live.prompt(learning_rate=1e-12, epochs=0.5)
    assert run.adapter["init_text"] == {"cola": virtual_text(COLA)}
    torch.testing.assert_close(prompts_of(live, run)["cola"], embeddings_of(tiny_backbone, virtual_text(COLA)))


def test_the_card_preset_has_four_virtual_tokens(live):
    (run,) = live.prompt(preset="card", epochs=1)
    assert prompts_of(live, run)["cola"].shape == (4, 64)
    assert run.config["training"]["learning_rate"] == 1e-2
    (run,) = live.prompt(preset="card", virtual_tokens=6, epochs=0.5)
    assert prompts_of(live, run)["cola"].shape == (6, 64)


@pytest.mark.parametrize("over", ["words", "vocabulary"])
def test_the_loss_falls_and_only_the_virtual_tokens_train(live, over, tiny_backbone):
    (run,) = live.prompt(init_text=TEXT, over=over, epochs=6, learning_rate=5e-2, select_by="loss")
    losses = [record["held_out"]["cola"]["loss"] for record in run.selection["evaluations"]]
    assert min(losses) < losses[0]
    trained = prompts_of(live, run)["cola"]
    assert (trained - embeddings_of(tiny_backbone, TEXT)).abs().max() > 1e-3
    assert run.adapter["trained_parameters"] == trained.numel()


def test_over_the_vocabulary_the_loss_counts_all_that_could_be_said(live):
    words, vocabulary = (
        live.prompt(over=over, epochs=1)[0].selection["evaluations"][0]["held_out"]["cola"]["loss"]
        for over in ("words", "vocabulary")
    )
    assert words < 1.0
    assert vocabulary > 4.0  # near the logarithm of 600 words


def test_the_untuned_prompt_is_scored_first(live, capsys):
    (run,) = live.prompt(epochs=1)
    said = capsys.readouterr().err
    assert said.index("by the prompt alone on validation") < said.index("step 0")
    assert set(run.adapter["zero_shot"]["cola"]) == {"held_out", "validation"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_peft_loads_them_and_says_the_same(live, tiny_backbone):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    (run,) = live.prompt(init_text=TEXT, epochs=3, learning_rate=5e-2, quantization="none")
    folder = live.runs_dir / run.run
    model = AutoModelForCausalLM.from_pretrained(tiny_backbone).eval()
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(model, folder / "adapters" / "cola").eval()
        texts = ["The cat sat .", "He have gone there ."]
        tokenizer = load_tokenizer(tiny_backbone)
        loaded = LiveRun.load(folder)
        for text, found in zip(texts, loaded.logits("cola", texts), strict=True):
            encoded = tokenizer(run.config["prompts"]["cola"].replace("{}", text), return_tensors="pt")
            logits = adapted(**encoded).logits[0, -1]
            expected = logits[loaded.network.readings["cola"].token_ids]
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_shared_part_trains_with_all_tasks_and_stands_before_each_ones_own(live, tiny_backbone):
    (run,) = live.prompt(tasks=("cola", "sst2"), shared_text="Read with care .", init_text=TEXT, epochs=2,
                         learning_rate=1e-2, select_by="loss")  # fmt: skip
    shared = load_file(live.runs_dir / run.run / "shared.safetensors")["shared"]
    found = prompts_of(live, run)
    for task in ("cola", "sst2"):
        torch.testing.assert_close(found[task][: len(shared)], shared)
    assert not torch.equal(found["cola"], found["sst2"])
    assert run.selection["step"] > 0
    assert (shared - embeddings_of(tiny_backbone, "Read with care .")).abs().max() > 1e-3
    assert run.adapter["shared_virtual_tokens"] == len(shared) > 0


def test_a_shared_part_is_kept_and_frozen_for_a_new_task(live):
    (first,) = live.prompt(shared_text="Read with care .", init_text=TEXT, epochs=2, learning_rate=1e-2)
    kept = load_file(live.runs_dir / first.run / "shared.safetensors")["shared"]
    settings = {"tasks": ("sst2",), "init_text": TEXT, "epochs": 4, "over": "vocabulary", "select_by": "loss"}
    (frozen,) = live.prompt(**settings, shared_from=first.run, freeze_shared=True)
    (trained,) = live.prompt(**settings, shared_from=first.run)
    assert torch.equal(prompts_of(live, frozen)["sst2"][: len(kept)], kept)
    assert not torch.equal(prompts_of(live, trained)["sst2"][: len(kept)], kept)
    assert frozen.selection["step"] > 0
    assert frozen.adapter["shared_frozen"]


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"label_words": ("the", "the cat")}, AdapterError, ("share their first token", "--label-words")),
        ({"label_words": ("one",)}, ConfigError, ("label_words", "2 words")),
        ({"init_text": ""}, ConfigError, ("nothing to train",)),
        ({"adapter": "somewhere"}, ConfigError, ("--adapter",)),
    ],
)
def test_a_wrong_setting_is_one_clear_message(live, changed, error, says):
    with pytest.raises(error) as caught:
        live.prompt(**changed)
    assert all(word in str(caught.value) for word in says), str(caught.value)


def test_settings_that_exclude_each_other_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        PromptOptions(virtual_tokens=0, shared_text="a", shared_from="b")
    assert all(word in str(caught.value) for word in ("virtual_tokens", "shared_from"))
    with pytest.raises(ConfigError, match="--shared-from"):
        PromptOptions(freeze_shared=True)
    with pytest.raises(ConfigError, match="--shared-text or --shared-from"):
        PromptOptions(mixing="equal")


def test_a_shared_part_of_another_backbone_is_refused(live):
    (first,) = live.prompt(shared_text="Read with care .", epochs=1)
    with pytest.raises(AdapterError, match="another backbone"):
        live.prompt(shared_from=first.run, quantization="none")
    (without,) = live.prompt(epochs=1)
    with pytest.raises(AdapterError, match="no virtual tokens that tasks share"):
        live.prompt(shared_from=without.run)


def test_a_task_without_tokens_of_its_own_takes_the_card_preset_too(live):
    (run,) = live.prompt(preset="card", init_text="", shared_text="Read with care .", epochs=0.5)
    assert run.adapter["virtual_tokens"] == {"cola": 0}


def test_labels_are_as_far_apart_over_the_vocabulary_as_over_the_words(live):
    """In bfloat16 too: their logits alone are not rounded to it."""
    found = {}
    for over in ("words", "vocabulary"):
        (run,) = live.prompt(over=over, epochs=0.5, learning_rate=1e-12, compute_dtype="bfloat16")
        texts = [f"The cat sat on {word} ." for word in ("it", "me", "us", "them", "him", "her")]
        loaded = LiveRun.load(live.runs_dir / run.run, models_dir=live.folder / "models")
        found[over] = np.diff(loaded.logits("cola", texts), axis=1)
    np.testing.assert_allclose(found["words"], found["vocabulary"], atol=1e-5)


def test_predict_counts_the_virtual_tokens_against_what_the_backbone_was_made_for(live):
    (run,) = live.prompt(virtual_tokens=40, init_text=TEXT, epochs=0.5)
    loaded = LiveRun.load(live.runs_dir / run.run, models_dir=live.folder / "models")
    most = loaded.session.facts.max_positions
    with pytest.raises(DataError, match=f"at most {most - 40} tokens"):
        loaded.logits("cola", ["cat " * (most - 20)])


def test_a_record_without_what_is_needed_is_one_message(live):
    (run,) = live.prompt(epochs=0.5)
    path = live.runs_dir / run.run / "run.json"
    record = json.loads(path.read_text())
    del record["config"]["label_words"]
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match="does not say enough"):
        LiveRun.load(path.parent, models_dir=live.folder / "models")
