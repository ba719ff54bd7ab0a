"""A LoRA adapter is merged into the backbone as peft would apply it; what cannot be merged is refused."""

import json
import shutil
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pipeline.backbone.adapter import CONFIG, DECIDE, WEIGHTS, read_adapter
from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.facts import read_facts
from pipeline.backbone.load import load_backbone
from pipeline.backbone.merge import merge_adapter
from pipeline.backbone.quantize import bitsandbytes_config
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError

IDS = torch.arange(3, 40, 4)[None]


@torch.inference_mode()
def last_states(model):
    return model(input_ids=IDS, output_hidden_states=True).hidden_states[-1]


def of_peft(backbone, adapter):
    """peft's own forward pass: the adapter beside the weights, not merged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return last_states(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(backbone), adapter).eval())


def relative_difference(found, expected):
    return float((found - expected).norm() / expected.norm())


def merged(backbone, adapter):
    model = AutoModel.from_pretrained(backbone).eval()
    merge_adapter(model, read_adapter(adapter))
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "r": 2},
        {"target_modules": r".*\.1\.self_attn\.(q|o)_proj"},
        {"layers_to_transform": [1]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"model.layers.0.self_attn.v_proj": 64}},
    ],
    ids=str,
)
def test_merged_weights_compute_what_peft_does(tiny_backbone, make_adapter, settings):
    adapter = make_adapter(**settings)
    state = torch.random.get_rng_state()
    model = merged(tiny_backbone, adapter)
    assert torch.equal(torch.random.get_rng_state(), state)
    expected = of_peft(tiny_backbone, adapter)
    assert relative_difference(last_states(model), expected) < 1e-5
    assert relative_difference(last_states(AutoModel.from_pretrained(tiny_backbone)), expected) > 1e-2
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_layers_that_are_stored_the_other_way_round_are_merged_too(tmp_path, make_adapter):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=80, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
        )
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    adapter = make_adapter(backbone=tmp_path / "gpt2", target_modules=["c_attn"], fan_in_fan_out=True)
    expected = of_peft(tmp_path / "gpt2", adapter)
    assert relative_difference(last_states(merged(tmp_path / "gpt2", adapter)), expected) < 1e-5


def edit(adapter, **fields):
    path = adapter / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(adapter, change):
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)


OTHER = {
    "r": 5, "lora_alpha": 9, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True,
    "use_dora": True, "fan_in_fan_out": True, "target_modules": ["q_proj"], "exclude_modules": ["k_proj"],
    "layers_to_transform": [0], "layers_pattern": "layers",
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDE)
def test_every_setting_that_decides_numbers_decides_the_digest(make_adapter, name):
    adapter = make_adapter()
    first = read_adapter(adapter).digest
    edit(adapter, **{name: OTHER[name]})
    assert read_adapter(adapter).digest != first


def test_one_bit_of_the_weights_decides_the_digest_and_where_it_was_trained_does_not(make_adapter):
    adapter = make_adapter()
    first = read_adapter(adapter).digest
    edit(adapter, base_model_name_or_path="elsewhere", inference_mode=False, lora_dropout=0.5, peft_version="0")
    edit(adapter, target_modules=["v_proj", "q_proj"])
    assert read_adapter(adapter).digest == first
    data = bytearray((adapter / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (adapter / WEIGHTS).write_bytes(data)
    assert read_adapter(adapter).digest != first


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "IA3", "LOHA", None])
def test_an_adapter_of_another_kind_is_refused(make_adapter, kind):
    adapter = make_adapter()
    edit(adapter, peft_type=kind)
    with pytest.raises(BackboneError, match=r"not of a kind that can be merged(.|\n)*LORA"):
        read_adapter(adapter)


@pytest.mark.parametrize(
    "fields",
    [
        {"modules_to_save": ["score"]}, {"bias": "all"}, {"lora_bias": True}, {"trainable_token_indices": [1]},
        {"layer_replication": [[0, 2]]}, {"target_parameters": ["x"]}, {"alora_invocation_tokens": [1]},
        {"init_lora_weights": "pissa"}, {"init_lora_weights": "pissa_niter_4"}, {"init_lora_weights": "olora"},
        {"a_setting_of_next_year": 3},
    ],
    ids=str,
)  # fmt: skip
def test_an_adapter_that_is_more_than_matrices_is_refused_and_says_what(make_adapter, fields):
    adapter = make_adapter()
    edit(adapter, **fields)
    with pytest.raises(BackboneError, match="more than low-rank matrices") as caught:
        read_adapter(adapter)
    assert next(iter(fields)) in caught.value.found


def test_a_pickled_adapter_and_no_adapter_are_refused(make_adapter, tmp_path):
    adapter = make_adapter()
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(BackboneError, match="pickled one, which is never read"):
        read_adapter(adapter)
    with pytest.raises(BackboneError, match=r"holds no adapter(.|\n)*no such folder"):
        read_adapter(tmp_path / "nothing")
    (adapter / WEIGHTS).write_bytes(b"")
    for text in ("{", "[]", "\xff"):
        (adapter / CONFIG).write_text(text)
        with pytest.raises(BackboneError):
            read_adapter(adapter)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 0), ("r", None), ("r", True), ("lora_alpha", "16"), ("rank_pattern", 3),
        ("rank_pattern", {"q_proj": "2"}), ("alpha_pattern", None), ("use_dora", 1),
        ("target_modules", [3]), ("layers_to_transform", "1"),
    ],
)  # fmt: skip
def test_a_setting_of_the_wrong_kind_is_refused_by_name(make_adapter, name, value):
    adapter = make_adapter()
    edit(adapter, **{name: value})
    with pytest.raises(BackboneError, match="setting of an adapter's config is wrong") as caught:
        read_adapter(adapter)
    assert caught.value.where == f"{adapter / CONFIG}, {name}"
    assert caught.value.found == repr(value)


def rename_layers(tensors):
    for name in list(tensors):
        tensors[name.replace("self_attn", "attention")] = tensors.pop(name)


def narrow(tensors):
    for name in [name for name in tensors if "lora_A" in name]:
        tensors[name] = tensors[name][:, :32].contiguous()


def lose_one(tensors):
    del tensors[next(name for name in tensors if "lora_B" in name)]


def add_a_head(tensors):
    tensors["base_model.model.score.weight"] = torch.zeros(2, 64)


def spoil(tensors):
    next(iter(tensors.values()))[0, 0] = float("nan")


def empty(tensors):
    tensors.clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_layers, "a layer that the backbone has not"), (narrow, "backbone of another size"),
        (lose_one, "matrices are not all there"), (add_a_head, "more than LoRA's matrices"), (spoil, "not finite"),
        (empty, "no matrices"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_and_change_nothing(tiny_backbone, make_adapter, change, message):
    adapter = make_adapter(target_modules=r".*\.(q|v)_proj")
    edit_weights(adapter, change)
    model = AutoModel.from_pretrained(tiny_backbone).eval()
    before = last_states(model)
    with pytest.raises(BackboneError, match=message):
        merge_adapter(model, read_adapter(adapter))
    assert torch.equal(last_states(model), before)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": ["q_proj"]}, "does not name a layer that the weights have"),
        ({"exclude_modules": ["v_proj"]}, "does not name a layer that the weights have"),
        ({"r": 8}, "disagree on a rank"), ({"use_dora": True}, "matrices are not all there"),
        ({"rank_pattern": {"q_proj": 2}}, "disagree on a rank"),
        ({"target_modules": ["nothing_such"]}, "does not name a layer"),
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_contradicts_the_weights_is_refused(tiny_backbone, make_adapter, fields, message):
    adapter = make_adapter()
    edit(adapter, **fields)
    with pytest.raises(BackboneError, match=message):
        merged(tiny_backbone, adapter)


def test_an_adapter_on_a_larger_backbone_is_refused(tiny_backbone, tmp_path, make_adapter):
    from transformers import LlamaConfig, LlamaForCausalLM

    record = LlamaConfig.from_pretrained(tiny_backbone).to_dict() | {"hidden_size": 96, "head_dim": 24}
    LlamaForCausalLM(LlamaConfig.from_dict(record)).save_pretrained(tmp_path / "wide")
    adapter = make_adapter(backbone=tmp_path / "wide")
    with pytest.raises(BackboneError, match=r"backbone of another size(.|\n)*64 to(.|\n)*96 to"):
        merged(tiny_backbone, adapter)


def settings(backbone, adapter, tmp_path, **changed):
    return BackboneConfig(backbone=str(backbone), adapter=adapter, models_dir=tmp_path / "models", **changed)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8", "checkpoint"])
def test_a_loaded_backbone_has_the_adapter_in_its_dequantised_weights(
    tiny_backbone, make_adapter, tmp_path, quantization
):
    config = settings(tiny_backbone, make_adapter(), tmp_path, quantization=quantization)
    plain = settings(tiny_backbone, None, tmp_path, quantization=quantization)
    models = [load_backbone(find_backbone(c), c, device="cpu", compute_dtype="float32").model for c in (config, plain)]
    tensors = load_file(config.adapter / WEIGHTS)
    for name in ("q_proj", "v_proj"):
        first, second = (model.layers[1].self_attn.get_submodule(name).weight for model in models)
        stem = f"base_model.model.model.layers.1.self_attn.{name}"
        update = 2.0 * tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
        assert torch.allclose(first, second + update, atol=1e-6)
        assert update.abs().max() > 0.1
    assert torch.equal(models[0].layers[1].self_attn.k_proj.weight, models[1].layers[1].self_attn.k_proj.weight)


def test_weights_that_stay_quantised_are_refused(tiny_backbone, make_adapter, tmp_path):
    adapter = read_adapter(make_adapter())
    packed = bitsandbytes_config("nf4", torch.float32)
    model = AutoModel.from_pretrained(tiny_backbone, dtype=torch.float32, quantization_config=packed)
    with pytest.raises(BackboneError, match=r"plain linear weights only(.|\n)*Linear4bit"):
        merge_adapter(model, adapter)
    folder = tmp_path / "packed"
    shutil.copytree(tiny_backbone, folder)
    record = json.loads((folder / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(record | {"quantization_config": quantised}))
    config = settings(folder, adapter.folder, tmp_path, quantization="checkpoint")
    with pytest.raises(BackboneError, match="weights that stay quantised"):
        read_facts(find_backbone(config), config, "float32")
