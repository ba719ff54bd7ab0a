"""The rows of a backbone's LM head, for the one path that needs them: the rest of the backbone goes without."""

import json
from typing import Any

import torch

from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.load import Backbone
from pipeline.errors import BackboneError

NAMES = ("lm_head.weight", "embed_out.weight", "output.weight")


def lm_head_weight(source: BackboneSource, backbone: Backbone) -> torch.Tensor:
    """`[V, d]` in the compute dtype: logits of the next token are hidden states times its transpose.

    Where the backbone ties them, these are its input embeddings; else they are read from the checkpoint's files, as
    they are there: an LM head is not quantised.

    Raises:
        BackboneError: the files hold no LM head, or it has a bias.
    """
    config = backbone.model.config.get_text_config(decoder=True)
    if config.tie_word_embeddings:
        weight: torch.Tensor = backbone.model.get_input_embeddings().weight
        return weight
    tensors = _read(source)
    name = next((name for name in NAMES if name in tensors), None)
    if name is None or f"{name.removesuffix('weight')}bias" in tensors:
        raise BackboneError(
            "the checkpoint's LM head cannot be used",
            where=source.folder,
            expected=f"a tensor {' or '.join(NAMES)}, without a bias",
            found="none" if name is None else f"{name} with a bias",
            remedy="save the model with its LM head (AutoModelForCausalLM)",
        )
    return tensors[name].to(backbone.device, backbone.dtype)


def _read(source: BackboneSource) -> dict[str, torch.Tensor]:
    """The tensors of an LM head among the checkpoint's files."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, torch.Tensor] = {}
    index: dict[str, Any] = {}
    try:
        for path in source.folder.glob("*.safetensors.index.json"):
            index |= json.loads(path.read_text("utf-8"))["weight_map"]
        for path in sorted(source.folder.glob("*.safetensors")):
            if index and path.name not in {file for name, file in index.items() if name.startswith(_STARTS)}:
                continue
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name) for name in file.keys() if name.startswith(_STARTS)}  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BackboneError("the checkpoint's LM head cannot be read", where=source.folder, found=error) from error
    return found


_STARTS = tuple(name.removesuffix("weight") for name in NAMES)
