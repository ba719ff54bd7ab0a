"""Putting a LoRA adapter on a backbone: merged into its plain weights once, before the first pass.

A layer's weight W becomes W + s·B·A (Hu et al., 2021, arXiv:2106.09685), with A `[r, in]`, B `[out, r]` and s = alpha/r
(alpha/√r for rslora); DoRA scales the rows of the sum besides. peft does the arithmetic, in the weights' own dtype.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pipeline.backbone.adapter import CONFIG, Adapter
from pipeline.errors import BackboneError, MissingPackage

TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.weight)?")


def merge_adapter(model: Any, adapter: Adapter) -> None:
    """Merge an adapter into a backbone's weights.

    Args:
        model: transformers' base model with plain (dequantised) weights; changed in place.

    Raises:
        BackboneError: the adapter is not of this backbone, its files disagree, or the weights are still quantised.
        MissingPackage: peft is not installed.
    """
    try:
        from peft import LoraConfig, PeftModel, set_peft_model_state_dict
        from peft.tuners.tuners_utils import check_target_module_exists
        from peft.utils.other import get_pattern_key
    except ImportError as error:
        raise MissingPackage("peft", "adapters") from error
    tensors = _read_tensors(adapter)
    settings = dict(adapter.settings)
    try:
        written = LoraConfig(**settings)
    except (ValueError, TypeError) as error:
        raise _wrong(adapter, "peft does not take the adapter's config", error) from error
    state: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for module, parts in tensors.items():
        if not check_target_module_exists(written, module):
            raise _wrong(adapter, "the config does not name a layer that the weights have", module)
        name = _find_layer(model, module, parts, adapter)
        state |= {f"base_model.model.{name}.{part}": tensor for part, tensor in _saved_names(parts).items()}
        ranks[name] = settings["rank_pattern"].get(get_pattern_key(settings["rank_pattern"], module), settings["r"])
        alphas[name] = settings["alpha_pattern"].get(
            get_pattern_key(settings["alpha_pattern"], module), settings["lora_alpha"]
        )
        if ranks[name] != len(parts["lora_A"]):
            raise _wrong(adapter, "the config and the weights disagree on a rank", module)
    # The layers are named one by one, as this model (without LM head) calls them: no pattern is matched a second time.
    exact = LoraConfig(
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        target_modules=list(ranks),
        rank_pattern={f"^{re.escape(name)}": r for name, r in ranks.items() if r != settings["r"]},
        alpha_pattern={f"^{re.escape(name)}": a for name, a in alphas.items() if a != settings["lora_alpha"]},
        use_rslora=settings["use_rslora"],
        use_dora=settings["use_dora"],
        fan_in_fan_out=settings["fan_in_fan_out"],
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # drawn at first, and then replaced
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is to go
            adapted = PeftModel(model, exact)
        left = set_peft_model_state_dict(adapted, state).unexpected_keys
        if left:
            raise _wrong(adapter, "peft puts these weights nowhere", ", ".join(left[:4]))
        adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise _wrong(adapter, "peft cannot put this adapter on the backbone", str(error).splitlines()[0]) from error
    model.eval().requires_grad_(False)


def _read_tensors(adapter: Adapter) -> dict[str, dict[str, torch.Tensor]]:
    """The adapter's tensors by module and part (`lora_A`, `lora_B`, `lora_magnitude_vector`)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter.weights)
    except (OSError, SafetensorError) as error:
        raise _wrong(adapter, "an adapter's weights cannot be read", error) from error
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = TENSOR.fullmatch(name)
        if match is None:
            raise _wrong(adapter, "the adapter holds more than LoRA's matrices", name)
        if not tensor.isfinite().all():
            raise _wrong(adapter, "the adapter holds a value that is not finite", name)
        modules.setdefault(match["module"], {})[match["part"]] = tensor
    parts = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if adapter.settings["use_dora"] else set())
    for module, found in modules.items():
        if set(found) != parts or found["lora_A"].ndim != 2 or found["lora_B"].ndim != 2:
            raise _wrong(adapter, "a layer's matrices are not all there", f"{module}: {', '.join(sorted(found))}")
    if not modules:
        raise _wrong(adapter, "the adapter holds no matrices", "an empty file")
    return modules


def _find_layer(model: Any, module: str, parts: Mapping[str, torch.Tensor], adapter: Adapter) -> str:
    """What the backbone calls the layer that the adapter calls `module`, if it is there, plain, and of its size."""
    from transformers.pytorch_utils import Conv1D

    layers = dict(model.named_modules())
    name = next((n for n in (module, module.removeprefix(f"{model.base_model_prefix}.")) if n in layers), None)
    if name is None:
        raise _wrong(
            adapter,
            "the adapter is on a layer that the backbone has not",
            module,
            expected=f"layers of {type(model).__name__}, without LM head",
        )
    layer = layers[name]
    if type(layer) not in (nn.Linear, Conv1D):
        raise _wrong(
            adapter,
            "an adapter can be merged into plain linear weights only",
            f"{module}: {type(layer).__name__}",
            expected="weights that are not quantised, or were dequantised once",
            remedy="use --quantization nf4, int8 or none on a device with room for the dequantised weights",
        )
    plain = isinstance(layer, nn.Linear)
    out_features, in_features = layer.weight.shape if plain else layer.weight.shape[::-1]
    found = (len(parts["lora_B"]), parts["lora_A"].shape[1])
    if found != (out_features, in_features) or parts["lora_B"].shape[1] != len(parts["lora_A"]):
        raise _wrong(
            adapter,
            "the adapter was trained on a backbone of another size",
            f"{module}: {found[1]} to {found[0]}",
            expected=f"{in_features} to {out_features}",
        )
    return name


def _saved_names(parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parts by the names that peft reads back: DoRA's vector stands without `.weight`."""
    return {part if part.endswith("vector") else f"{part}.weight": tensor for part, tensor in parts.items()}


def _wrong(adapter: Adapter, what: str, found: object, **more: Any) -> BackboneError:
    where = adapter.folder / CONFIG if "config" in what else adapter.weights
    said = f" (its config says it was trained on {adapter.base})" if adapter.base else ""
    return BackboneError(what + said, where=where, found=found, **more)
