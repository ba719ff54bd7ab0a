"""LoRA through the backbone: peft's adapters, heads beside them, and every wrong setting said once."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from pipeline.adapters import training
from pipeline.adapters.loading import LiveRun
from pipeline.adapters.lora import _AddedInOnePass, put_adapters_on
from pipeline.adapters.session import Session
from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.load import load_backbone
from pipeline.cache import FeatureCache
from pipeline.classifier import StoredClassifier
from pipeline.config import BackboneConfig, DataConfig
from pipeline.errors import AdapterError, ConfigError, DamagedFeatureSet, DataError
from pipeline.live_config import LoraOptions, TrainingConfig, with_preset
from pipeline.results.ledger import read_run
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks
from pipeline.views import View
from tests.tiny_backbone import make_tiny_backbone


def folder_of(live, run):
    return live.runs_dir / run.run


def weights_of(live, run):
    folder = folder_of(live, run)
    found = load_file(folder / "adapter" / "adapter_model.safetensors")
    for path in sorted((folder / "heads").iterdir()):
        found |= {f"{path.stem}/{name}": tensor for name, tensor in load_file(path).items()}
    return found


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_task_gets_a_run_with_adapters_a_head_scores_and_predictions(live):
    (run,) = live.lora(target_modules=("q_proj", "v_proj"))
    stored, told = (json.dumps(each.to_dict(), sort_keys=True) for each in (read_run(folder_of(live, run)), run))
    assert stored == told
    assert (run.path, run.tasks, run.head, run.adapter["kind"]) == ("live", ("cola",), "linear", "lora")
    assert set(run.scores["cola"]) == {"held_out", "validation"}
    assert set(run.baseline["cola"]) == {"validation"}
    assert [record["step"] for record in run.selection["evaluations"]] == [0, 2, 3, 5, 6]
    names = {name for name in weights_of(live, run) if "lora" in name}
    layers = [f"layers.{n}.self_attn.{p}_proj.lora_{m}.weight" for n in (0, 1) for p in "qv" for m in "AB"]
    assert names == {f"base_model.model.{name}" for name in layers}


def test_tasks_have_adapters_of_their_own_unless_told_otherwise(live):
    runs = live.lora(tasks=("cola", "sst2"), epochs=1)
    assert [run.tasks for run in runs] == [("cola",), ("sst2",)]
    (shared,) = live.lora(tasks=("cola", "sst2"), epochs=1, freeze="none")
    assert shared.tasks == ("cola", "sst2")
    assert set(shared.scores) == set(shared.baseline) == {"cola", "sst2"}
    assert {p.stem for p in (folder_of(live, shared) / "heads").iterdir()} == {"cola", "sst2"}


def test_the_same_seed_gives_the_same_weights_and_another_one_others(live):
    first, again, other = (live.lora(seed=seed, dropout=0.1)[0] for seed in (1, 1, 2))
    assert same(weights_of(live, first), weights_of(live, again))
    assert not same(weights_of(live, first), weights_of(live, other))


def test_the_random_numbers_of_whoever_calls_are_left_alone(live):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    live.lora(epochs=1)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("token_budget", [40, 100_000])
def test_a_step_is_the_same_in_many_live_passes_as_in_one(live, token_budget, monkeypatch):
    passes = []
    backward = training.Training._do

    def count(self, step):
        passes.append(len(self.network.batches(self.tasks[step.task].train, step.rows)))
        return backward(self, step)

    monkeypatch.setattr(training.Training, "_do", count)
    (run,) = live.lora(token_budget=token_budget, seed=4)
    assert (min(passes) > 1) == (token_budget == 40)
    losses = [record["held_out"]["cola"]["loss"] for record in run.selection["evaluations"]]
    expected = live.lora(token_budget=512, seed=4)[0].selection["evaluations"]
    np.testing.assert_allclose(losses, [record["held_out"]["cola"]["loss"] for record in expected], rtol=1e-5)


def test_keeping_inputs_alone_changes_no_number(live):
    (usual,) = live.lora()
    (sparing,) = live.lora(gradient_checkpointing=True)
    one, other = weights_of(live, usual), weights_of(live, sparing)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_keeping_inputs_alone_changes_no_number_where_tasks_look_at_other_layers(live):
    shared = {"tasks": ("cola", "sst2"), "views": None, "freeze": "none", "epochs": 1}
    (usual,) = live.lora(**shared)
    (sparing,) = live.lora(**shared, gradient_checkpointing=True)
    assert len(set(usual.config["views"].values())) == 2
    one, other = weights_of(live, usual), weights_of(live, sparing)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_training_moves_the_held_out_loss_and_keeps_the_best_weights(live):
    (run,) = live.lora(epochs=20, learning_rate=1e-2, evaluations=1, select_by="loss", held_out=0.5)
    losses = [record["held_out"]["cola"]["loss"] for record in run.selection["evaluations"]]
    assert min(losses) < losses[0]
    assert run.selection["step"] == run.selection["evaluations"][int(np.argmin(losses))]["step"]


def test_a_training_that_does_nothing_ends_with_a_warning(live, capsys):
    (run,) = live.lora(learning_rate=1e-12, head_learning_rate=1e-12, epochs=1)
    warnings = " ".join(run.selection["warnings"])
    assert "not one prediction moved" in warnings
    assert f"warning: {run.selection['warnings'][0]}" in capsys.readouterr().err


def test_patience_ends_a_training_early(live):
    (run,) = live.lora(learning_rate=1e-12, head_learning_rate=1e-12, epochs=9, patience=2)
    assert run.selection["stopped_early"]
    assert len(run.selection["evaluations"]) == 3


def test_a_training_whose_patience_ends_with_its_last_step_did_not_stop_early(live):
    (run,) = live.lora(learning_rate=1e-12, head_learning_rate=1e-12, epochs=1, patience=2)
    assert not run.selection["stopped_early"]


def test_every_schedule_head_and_decay_trains_otherwise(live):
    ways = (
        {}, {"schedule": "cosine"}, {"schedule": "constant"}, {"weight_decay": 0.5}, {"head": "mlp"},
        {"head_learning_rate": 1e-2}, {"warmup": 0.5}, {"max_grad_norm": 1e-3},
    )  # fmt: skip
    runs = [live.lora(**way, learning_rate=1e-2, select_by="loss", epochs=1, evaluations=3)[0] for way in ways]
    losses = [tuple(r["held_out"]["cola"]["loss"] for r in run.selection["evaluations"]) for run in runs]
    assert len(set(losses)) == len(ways)
    assert [run.head for run in runs].count("mlp") == 1


@pytest.mark.parametrize("name", ["type", "values", "train", "half"])
def test_a_task_may_have_any_name(live, tmp_path, name):
    """Also one that torch's containers have for something else."""
    data = tmp_path / "data"
    data.mkdir()
    rows = [
        f"a {kind} story number {number}\t{label}" for number in range(12) for label, kind in enumerate(("good", "bad"))
    ]
    for split in ("train", "validation"):
        (data / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    spec = tmp_path / "task.toml"
    spec.write_text(
        f'name = "{name}"\nlabels = ["bad", "good"]\nprompt = "{{}}"\nlabel_words = ["the", "a"]\n'
        'views = ["L-1-last"]\nhead_view = ["L-1-last"]\nmetric = "accuracy"\n'
        'text_column = "text"\nlabel_column = "label"\n'
    )
    mine = {"tasks": (name,), "task_files": (spec,), "data": str(data), "epochs": 1}
    (run,) = live.lora(**mine)
    assert set(run.scores) == {name}
    assert weights_of(live, run)
    assert set(live.prompt(**mine)[0].scores) == {name}


def test_the_card_preset_is_exactly_that(live):
    (run,) = live.lora(preset="card", epochs=1)
    config = json.loads((folder_of(live, run) / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (4, 512, 0.0, "none")
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert run.config["lora"]["rank"] == 4
    assert run.config["training"]["learning_rate"] == 3e-5


def test_settings_win_over_their_preset(live):
    (run,) = live.lora(preset="card", rank=2, batch_size=8, epochs=0.5)
    assert (run.adapter["rank"], run.adapter["alpha"], run.config["training"]["batch_size"]) == (2, 512, 8)


def test_any_further_option_of_peft_is_peft_s(live):
    (run,) = live.lora(peft=("use_rslora=true",), epochs=1)
    config = json.loads((folder_of(live, run) / "adapter" / "adapter_config.json").read_text())
    assert config["use_rslora"] is True


@pytest.mark.parametrize(
    ("peft", "named"),
    [
        ("bias=all", "k_proj.bias"),
        ("bias=lora_only", "q_proj.base_layer.bias"),
        ("trainable_token_indices=[5,6]", "trainable_tokens_delta"),
        ("use_dora=true", "lora_magnitude_vector"),
        ('modules_to_save=["norm","input_layernorm","mlp"]', "input_layernorm"),
    ],
)
def test_what_peft_trains_beside_the_matrices_comes_back_with_them(live, sample_dir, tmp_path, peft, named):
    biased = make_tiny_backbone(tmp_path / "tiny-biased", sample_dir, attention_bias=True)
    (run,) = live.lora(
        backbone=str(biased), peft=(peft,), learning_rate=1e-2, epochs=20, evaluations=1, select_by="loss", held_out=0.5
    )
    assert run.selection["step"] > 0
    assert named in " ".join(weights_of(live, run))
    loaded = LiveRun.load(folder_of(live, run), models_dir=live.folder / "models")
    rows = pq.read_table(folder_of(live, run) / "predictions.parquet").to_pylist()
    stored = [row["probabilities"] for row in rows if row["split"] == "validation"]
    texts = read_task(find_tasks(("cola",))[0], live.settings(DataConfig, {}))["validation"].texts
    np.testing.assert_array_equal(loaded.predict_proba("cola", list(texts)), stored)


@pytest.mark.parametrize(("peft", "fused"), [("use_rslora=true", True), ("use_dora=true", False)])
def test_plain_adapters_are_added_in_one_pass_with_the_gradients_of_pefts_own_way(tiny_backbone, peft, fused):
    found = []
    for variant in (True, False):
        config = BackboneConfig(backbone=str(tiny_backbone), quantization="none")
        loaded = load_backbone(BackboneSource("tiny", tiny_backbone), config, device="cpu", compute_dtype="float32")
        options, _ = with_preset(LoraOptions(peft=(peft, "init_lora_weights=false")), TrainingConfig())
        torch.manual_seed(0)
        put_adapters_on(loaded, options, first=0, past=2, base="tiny")
        layer = loaded.model.layers[0].self_attn.q_proj
        if variant:
            assert (layer.lora_variant.get("default") is _AddedInOnePass) == fused
        elif fused:
            layer.lora_variant.clear()
        x = torch.linspace(-1, 1, 3 * 64).view(1, 3, 64).requires_grad_()
        output = layer(x)
        trained = [p for p in layer.parameters() if p.requires_grad]
        found.append((output.detach(), *torch.autograd.grad(output.square().sum(), [x, *trained])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_adapters_sit_only_in_blocks_below_the_highest_view(live):
    (run,) = live.lora(views="L1-mean", epochs=1)
    assert {name.split(".")[3] for name in weights_of(live, run) if "lora" in name} == {"0"}


def test_training_begins_with_the_head_of_a_run_on_cached_features(live):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"))
    (cached,) = live.heads(held_out=0.25)
    (run,) = live.lora(head_from=(cached.run,), epochs=1)
    start = run.selection["evaluations"][0]["held_out"]["cola"]
    assert start["mcc"] == pytest.approx(cached.scores["cola"]["held_out"]["mcc"], abs=1e-9)
    assert start["accuracy"] == pytest.approx(cached.scores["cola"]["held_out"]["accuracy"])
    assert run.statistics["cola"]["held_out"] == cached.statistics["cola"]["held_out"]  # the same rows
    assert run.statistics["cola"]["validation"]["texts"] == cached.statistics["cola"]["validation"]["texts"]


def other_weights(sample_dir, folder):
    """The tiny backbone, with all weights half as large again."""
    other = make_tiny_backbone(folder, sample_dir)
    weights = load_file(other / "model.safetensors")
    save_file({name: w * 1.5 for name, w in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    return other


def test_a_head_that_saw_something_else_is_refused(live, sample_dir, tmp_path):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"))
    (head,) = live.heads(held_out=0.25)
    other = other_weights(sample_dir, tmp_path / "elsewhere" / "tiny-llama")
    for changed, name in (
        ({"prompt": "Say: {}"}, "prompt"),
        ({"special_tokens": False}, "special_tokens"),
        ({"backbone": str(other)}, "weights"),
    ):
        with pytest.raises(ConfigError, match="what another backbone or prompt gave") as caught:
            live.lora(head_from=(head.run,), **changed)
        assert f"\n    {name} " in str(caught.value)


def test_a_head_that_saw_an_adapted_backbone_is_refused(live):
    (adapted,) = live.lora(learning_rate=1e-2, epochs=1)
    with pytest.raises(ConfigError, match="what its own adapters gave"):
        live.lora(head_from=(adapted.run,))
    folder = folder_of(live, adapted) / "adapter"
    written = live.extract(layers=("1", "-1"), poolings=("mean", "last"), adapter=folder)
    (head,) = live.heads(held_out=0.25, adapter=written[0]["name"].partition("-lora-")[2][:8])
    with pytest.raises(ConfigError, match="what another backbone or prompt gave") as caught:
        live.lora(head_from=(head.run,))
    assert "\n    adapter " in str(caught.value)


def test_a_head_that_is_not_of_pytorch_is_refused_with_what_is(live):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"))
    (head,) = live.heads(held_out=0.25, heads=("logreg",))
    with pytest.raises(ConfigError, match="found: logreg") as caught:
        live.lora(head_from=(head.run,))
    assert "do: train one: pipeline heads --tasks cola --heads linear" in str(caught.value)


def test_a_head_of_fewer_classes_than_the_task_has_is_refused(live, monkeypatch):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"))
    (head,) = live.heads(held_out=0.25)
    load = StoredClassifier.load
    monkeypatch.setattr(StoredClassifier, "load", lambda path: replace(load(path), classes=[0]))
    with pytest.raises(ConfigError, match="never seen some of the task's classes"):
        live.lora(head_from=(head.run,))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # of peft's own
@pytest.mark.parametrize("top", [0, 1])
def test_peft_alone_loads_the_adapters_on_transformers_own_model(live, tiny_backbone, top):
    from peft import PeftModel

    if top:
        live.extract(layers=("1",), poolings=("tokens",), quantization="none")
    (run,) = live.lora(quantization="none", learning_rate=1e-2, views="L-1-last", top_layers=top, select_by="loss")
    loaded = LiveRun.load(folder_of(live, run), models_dir=live.folder / "models")
    rows = loaded.rows("cola", ["The cat sat on the mat ."])
    ours = loaded.network.pooled_rows(rows, np.array([0]), (View(2, "last"),))[0]
    ids = torch.tensor(rows.tokens[0][None].astype(np.int64))
    with torch.inference_mode():
        plain = AutoModel.from_pretrained(tiny_backbone, dtype=torch.float32)(ids).last_hidden_state[0, -1].numpy()
        model = AutoModel.from_pretrained(tiny_backbone, dtype=torch.float32)
        peft = PeftModel.from_pretrained(model, folder_of(live, run) / "adapter").eval()
        theirs = peft(ids).last_hidden_state[0, -1].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(theirs - plain).max() > 1e-3


def test_adapters_in_a_pickle_are_not_read(live):
    (run,) = live.lora(epochs=1)
    folder = folder_of(live, run) / "adapter"
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="cannot be put on the backbone") as caught:
        LiveRun.load(folder_of(live, run), models_dir=live.folder / "models")
    assert "adapter_model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"target_modules": ("q_proj", "nonsense")}, AdapterError, ("nonsense", "q_proj", "target_modules")),
        ({"freeze": "sst2"}, ConfigError, ("freeze", "sst2", "cola")),
        ({"freeze": "cola"}, ConfigError, ("--head-from", "freeze cola")),
        ({"peft": ("nonsense=1",)}, AdapterError, ("nonsense", "LoraConfig")),
        ({"peft": ("r=3",)}, AdapterError, ("--rank",)),
        ({"peft": ("bias=nonsense",)}, AdapterError, ("peft does not take", "nonsense")),
        ({"peft": ("rank_pattern=3",)}, AdapterError, ("peft does not take",)),
        ({"peft": ("use_rslora=maybe",)}, AdapterError, ("use_rslora", "true or false")),
        ({"peft": ("init_lora_weights=pissa_niter_4",)}, AdapterError, ("rewrites the backbone", "pissa")),
        ({"target_modules": ("q_proj", "layers.1.self_attn.v_proj"), "views": "L1-mean"}, AdapterError, ("layers.1",)),
        ({"whole_passes": True}, ConfigError, ("whole_passes", "--top-layers")),
        ({"max_rows": 1}, DataError, ("1 rows without", "--max-rows")),
        ({"peft": ("init_lora_weights=false",)}, AdapterError, ("does not begin as the backbone", "init_lora_weights")),
        ({"top_layers": 3}, ConfigError, ("top_layers", "1 to 2")),
        ({"top_layers": 1, "views": "L0-mean+L2-mean"}, ConfigError, ("L0-mean", "top_layers")),
        ({"views": "L1-tokens"}, ConfigError, ("tokens", "one vector a row")),
        ({"peft": ("init_lora_weights=eva",)}, AdapterError, ("from data", "eva")),
        ({"mixing": "equal"}, ConfigError, ("mixing", "--freeze")),
    ],
)
def test_a_wrong_setting_is_one_clear_message(live, changed, error, says):
    with pytest.raises(error) as caught:
        live.lora(**changed)
    assert all(word in str(caught.value) for word in says), str(caught.value)
    assert not list(live.runs_dir.glob("2*"))


def test_a_module_name_is_refused_before_anything_is_loaded(live, monkeypatch):
    monkeypatch.setattr(Session, "load", lambda self: pytest.fail("the backbone was loaded"))
    with pytest.raises(AdapterError, match=r"did you mean q_proj\?"):
        live.lora(target_modules=("qq_proj",))


def test_all_numbers_that_are_wrong_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        LoraOptions(rank=0, alpha=-1.0, dropout=1.0)
    assert all(word in str(caught.value) for word in ("rank", "alpha", "dropout", "found 0"))


# --- the gate ---


def test_the_gate_passes_features_of_the_same_backbone_and_says_how_near_they_are(live, capsys):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"))
    (run,) = live.lora(epochs=1)
    gate = run.adapter["gate"]["cola"]
    assert len(gate["feature_sets"]) == 2
    assert 0 <= gate["relative"] <= 1e-4
    assert "the live path gives the cached features" in capsys.readouterr().err


def test_the_gate_refuses_features_that_the_live_path_does_not_give(live, monkeypatch):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"))
    take = FeatureCache.open

    def shifted(*args, **kwargs):
        found = take(*args, **kwargs)
        own = found.take
        found.take = lambda rows: own(rows) * 1.01
        return found

    monkeypatch.setattr(FeatureCache, "open", shifted)
    with pytest.raises(AdapterError, match="does not see what the cache holds") as caught:
        live.lora(epochs=1)
    assert "0.0099" in str(caught.value)
    assert not live.lora(epochs=1, gate="off")[0].adapter["gate"]["cola"]


def test_the_gate_refuses_a_named_feature_set_of_another_backbone(live, sample_dir, tmp_path):
    (written,) = live.extract(layers=("-1",), poolings=("last",), splits=("train",))
    assert live.lora(epochs=1, gate=written["name"])[0].adapter["gate"]["cola"]["relative"] <= 1e-4
    other = other_weights(sample_dir, tmp_path / "other")
    with pytest.raises(AdapterError, match="not of this backbone") as caught:
        live.lora(epochs=1, gate=written["name"], backbone=str(other))
    assert "weights" in str(caught.value)
    assert "wanted" in str(caught.value)


@pytest.mark.parametrize("changed", [{"max_length": 200}, {"truncation": True}])
def test_features_of_other_limits_are_not_taken_for_what_the_live_path_sees(live, changed, capsys):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"), **changed)
    (run,) = live.lora(epochs=1)
    assert run.adapter["gate"]["cola"] == {}
    assert next(iter(changed)) in capsys.readouterr().err
    assert live.lora(epochs=1, **changed)[0].adapter["gate"]["cola"]["relative"] <= 1e-4


@pytest.mark.parametrize("cached", ["bfloat16", "float32"])
@pytest.mark.parametrize("trained", ["bfloat16", "float32"])
def test_the_gate_takes_features_of_any_dtype(live, cached, trained):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"), compute_dtype=cached)
    (run,) = live.lora(epochs=1, compute_dtype=trained)
    assert 0 < run.adapter["gate"]["cola"]["relative"] <= 1e-1


def test_of_features_in_several_dtypes_the_gate_takes_those_of_the_live_path(live):
    for dtype in ("bfloat16", "float32"):
        live.extract(layers=("1", "-1"), poolings=("mean", "last"), compute_dtype=dtype)
    assert live.lora(epochs=1)[0].adapter["gate"]["cola"]["relative"] <= 1e-4


def test_damaged_features_stop_the_gate(live):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"), splits=("train",))
    for path in live.cache_dir.rglob("shard-00000.h5"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedFeatureSet):
        live.lora(epochs=1)


def test_without_features_that_fit_the_gate_says_so_and_training_goes_on(live, capsys):
    live.extract(layers=("-1",), poolings=("last",), quantization="none")
    (run,) = live.lora(epochs=1)
    assert run.adapter["gate"]["cola"] == {}
    assert "trained without a gate" in capsys.readouterr().err
