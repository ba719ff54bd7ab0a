"""LoRA on a backbone's layers: peft's own, in place; each setting that would do nothing is refused.

A layer's weight W acts as W + (alpha / rank)·B·A, with A `[rank, in]` random and B `[out, rank]` zero at first, so that
the adapted backbone begins as the backbone (Hu et al., 2021, arXiv:2106.09685).
"""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.backbone.adapter import REWRITES_THE_BACKBONE
from pipeline.backbone.blocks import blocks_of
from pipeline.backbone.load import Backbone
from pipeline.backbone.quiet import quiet_loading
from pipeline.config import parse_settings
from pipeline.errors import AdapterError, MissingPackage, did_you_mean
from pipeline.live_config import LoraOptions

OF_OWN_FLAGS = {
    "r": "--rank", "lora_alpha": "--alpha", "lora_dropout": "--dropout", "target_modules": "--target-modules",
    "layers_to_transform": "--top-layers", "layers_pattern": None, "task_type": None, "peft_type": None,
    "inference_mode": None, "base_model_name_or_path": "--backbone", "revision": "--revision",
}  # fmt: skip


def peft_settings(options: LoraOptions) -> dict[str, Any]:
    """The further fields of peft's LoraConfig, by name.

    Raises:
        AdapterError: peft has no such field, it has an option of its own here, or it would rewrite the backbone.
        MissingPackage: peft is not installed.
    """
    peft = import_peft()
    further = dict(parse_settings(options.peft))
    begun = str(further.get("init_lora_weights", "")).lower()
    if begun.startswith((*REWRITES_THE_BACKBONE, "eva")):
        raise AdapterError(
            "this beginning of the adapters rewrites the backbone's own weights, which are frozen"
            if begun != "eva"
            else "this beginning of the adapters is computed from data in a pass of its own, which is not made here",
            where="peft: init_lora_weights",
            expected="true | gaussian | orthogonal | false",
            found=further["init_lora_weights"],
        )
    known = {field.name for field in fields(peft.LoraConfig)}
    if wrong := sorted(name for name in further if name not in known or name in OF_OWN_FLAGS):
        own = [f"{name}: {OF_OWN_FLAGS[name]}" for name in wrong if OF_OWN_FLAGS.get(name)]
        raise AdapterError(
            "these are no further fields of peft's LoraConfig",
            where="peft",
            found=", ".join(wrong),
            remedy=f"they have settings of their own ({', '.join(own)})" if own else "see peft's LoraConfig",
        )
    _check_values(further, {field.name: field.default for field in fields(peft.LoraConfig)})
    return further


def put_adapters_on(backbone: Backbone, options: LoraOptions, *, first: int, past: int, base: str) -> Any:
    """Put LoRA adapters on the linear layers of some blocks, in place; they alone are left to train.

    Args:
        options: with its preset.
        first, past: adapters sit in blocks `first` to `past - 1`, counted from 0.
        base: what the adapter's config names as its backbone.

    Returns:
        peft's model around the backbone's.

    Raises:
        AdapterError: a name matches no linear layer, or peft does not take a setting.
        MissingPackage: peft is not installed.
    """
    peft, further = import_peft(), peft_settings(options)
    check_targets(backbone.model, backbone.num_hidden_layers, options.target_modules, range(first, past))
    try:
        config = peft.LoraConfig(
            **{
                "task_type": "FEATURE_EXTRACTION",
                "r": options.rank,
                "lora_alpha": options.alpha,
                "lora_dropout": options.dropout,
                "bias": "none",
                "target_modules": _targets(backbone, options.target_modules, first, past),
                **further,
            }
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is to go
            adapted = peft.get_peft_model(backbone.model, config)
    except (ValueError, TypeError, ImportError, NotImplementedError, AttributeError, KeyError, re.error) as error:
        raise AdapterError(
            "peft does not take these settings",
            where="peft",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        ) from error
    above = tuple(
        f"{_name_of_blocks(backbone.model, backbone.num_hidden_layers)}.{number}."
        for number in range(past, backbone.num_hidden_layers)
    )
    for name, parameter in backbone.model.named_parameters():
        if name.startswith(above):
            parameter.requires_grad_(False)  # no view looks so high: bias=all would train what gets no gradient
    if first and (outside := _trained_outside(backbone, range(first, past))):
        raise AdapterError(
            "these would train outside the blocks that get adapters, and live passes begin at the first of them",
            where="peft",
            expected=f"nothing but parts of blocks {first} to {past - 1}",
            found=", ".join(outside),
            remedy="leave out what trains them (--peft bias, modules_to_save, …), or --top-layers",
        )
    for one in adapted.peft_config.values():
        one.base_model_name_or_path = base
    _add_in_one_pass(adapted)
    return adapted


class _AddedInOnePass:
    """Plain LoRA as peft computes it, scaled and added within the product: a variant in peft's sense."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """`[…, out]`: the base layer's result and the adapter's."""
        low = nn.functional.linear(x, module.lora_A[active_adapter].weight)
        up, scale = module.lora_B[active_adapter].weight, module.scaling[active_adapter]
        summed: torch.Tensor
        if result.dtype == up.dtype:
            summed = torch.addmm(result.flatten(0, -2), low.flatten(0, -2), up.t(), alpha=scale).view(result.shape)
        else:
            summed = result + nn.functional.linear(low, up) * scale
        return summed


def _add_in_one_pass(adapted: Any) -> None:
    """Let the plain adapters of a model be added by `_AddedInOnePass`: peft's own takes two more passes over memory."""
    plain = import_peft().tuners.lora.Linear
    for module in adapted.modules():
        if type(module) is plain and not module.lora_variant:
            for name in module.lora_A:
                if isinstance(module.lora_dropout[name], nn.Identity) and module.lora_B[name].bias is None:
                    module.lora_variant[name] = _AddedInOnePass


def _trained_outside(backbone: Backbone, blocks: range) -> list[str]:
    inside = tuple(f"{_name_of_blocks(backbone.model, backbone.num_hidden_layers)}.{number}." for number in blocks)
    names = (name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad)
    return sorted(name for name in names if not name.startswith(inside))


def _name_of_blocks(model: Any, num_hidden_layers: int) -> str:
    blocks = blocks_of(model, num_hidden_layers)
    return next(str(name) for name, module in model.named_modules() if module is blocks)


def import_peft() -> Any:
    """peft, without what its import has to say.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        with quiet_loading():  # it imports bitsandbytes
            import peft
    except ImportError as error:
        raise MissingPackage("peft", "adapters") from error
    return peft


def _check_values(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse what peft would take for something else than it says."""
    for name, value in settings.items():
        if isinstance(defaults[name], bool) and not isinstance(value, bool) and name != "init_lora_weights":
            raise AdapterError("expected true or false", where=f"peft: {name}", found=value)


def check_targets(model: Any, num_hidden_layers: int, names: Sequence[str], blocks: range) -> None:
    """Refuse names that match no linear layer of these blocks.

    Args:
        model: a backbone's, with or without its weights.
        num_hidden_layers: its blocks.
        blocks: those that get adapters, counted from 0.

    Raises:
        AdapterError: a name matches none, or there is no block.
    """
    of_blocks, prefix = blocks_of(model, num_hidden_layers), _name_of_blocks(model, num_hidden_layers)
    linear = [
        f"{prefix}.{number}.{name}"
        for number in blocks
        for name, module in of_blocks[number].named_modules()
        if isinstance(module, nn.Linear) or _is_conv1d(module)
    ]
    ends = sorted({name.rsplit(".", 1)[-1] for name in linear})
    for target in names:
        there = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not there:
            raise AdapterError(
                "a module name matches no linear layer of the blocks that get adapters",
                where="target_modules",
                expected=" | ".join(ends),
                found=target,
                remedy=did_you_mean(target, ends),
            )
    if not blocks:
        raise AdapterError("no block is left for adapters", where="top_layers", expected="at least one")


def _targets(backbone: Backbone, names: Sequence[str], first: int, past: int) -> list[str] | str:
    """What peft is to match: the names, or where not every block gets adapters, a pattern of theirs in those blocks.

    peft's own `layers_to_transform` does not see the blocks of a model without LM head.
    """
    if (first, past) == (0, backbone.num_hidden_layers):
        return list(names)
    within = _name_of_blocks(backbone.model, backbone.num_hidden_layers)
    numbers, ends = "|".join(map(str, range(first, past))), "|".join(map(re.escape, names))
    return rf"(.*\.)?{re.escape(within)}\.({numbers})\.(.*\.)?({ends})"


def _is_conv1d(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def save_adapters(adapted: Any, folder: Path) -> None:
    """Write the adapters as `PeftModel.from_pretrained` reads them: config and safetensors, nothing else."""
    adapted.save_pretrained(folder, save_embedding_layers=False)  # else it would ask the Hub about the backbone
    (folder / "README.md").unlink(missing_ok=True)


def read_adapters(model: Any, folder: Path) -> Any:
    """Put the adapters of a folder on a backbone's model, in place; peft's model around it.

    Raises:
        AdapterError: they are not of this backbone, or damaged.
    """
    peft = import_peft()
    try:
        json.loads((folder / "adapter_config.json").read_text("utf-8"))
        load_file(folder / "adapter_model.safetensors")  # peft would go on to a pickle, or to the Hub, without it
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", FutureWarning)
            adapted = peft.PeftModel.from_pretrained(model, folder, is_trainable=False)
            _add_in_one_pass(adapted)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise AdapterError(
            "the adapters of a run cannot be put on the backbone",
            where=folder,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        ) from error
    return adapted
