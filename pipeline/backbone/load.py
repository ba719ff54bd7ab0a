"""A backbone in memory: quantised by bitsandbytes, frozen, without LM head."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.backbone.adapter import read_adapter
from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.facts import BackboneFacts, check_unchanged
from pipeline.backbone.quantize import bitsandbytes_config, dequantize_once
from pipeline.backbone.quiet import quiet_loading
from pipeline.backbone.stored import StoredWeights
from pipeline.config import BackboneConfig, Dtype
from pipeline.errors import BackboneError, MissingPackage


@dataclass(frozen=True)
class Backbone:
    """A frozen LLM without its LM head, ready to compute.

    Args:
        name: what people call it.
        model: transformers' base model, in evaluation mode, without gradients.
        device: where it is.
        dtype: what it computes in.
        num_hidden_layers: blocks.
        hidden_size: numbers a hidden state.
        note: how its weights are held, for people.
        weights_bytes: that its weights take in memory as they are held; 0 where nobody counted.
    """

    name: str
    model: Any
    device: torch.device
    dtype: torch.dtype
    num_hidden_layers: int
    hidden_size: int
    note: str
    weights_bytes: int = 0


def load_backbone(
    source: BackboneSource,
    config: BackboneConfig,
    *,
    device: str,
    compute_dtype: Dtype,
    facts: BackboneFacts | None = None,
) -> Backbone:
    """Load a backbone's weights, quantise them, merge the adapter if there is one, and freeze them.

    On the CPU, quantised weights are dequantised once, straight to the compute dtype: the numbers are those of
    dequantising in every forward pass, and bitsandbytes' CPU kernels, which round activations, stay out of it. On CUDA
    the same is done where the free memory holds the dequantised weights twice over. Quantised weights are stored under
    `models_dir`, and read from there the next time.

    Args:
        device: the resolved device, never `auto`.
        compute_dtype: the resolved dtype, never `auto`.
        facts: of this backbone; without them quantised weights are neither stored nor looked for.

    Raises:
        BackboneError: the files do not hold such a model, or the adapter is not of it.
        MissingPackage: transformers, bitsandbytes or (with an adapter) peft is not installed.
    """
    try:
        from safetensors import SafetensorError
        from transformers import AutoModel

        from pipeline.backbone import tree_attention
    except ImportError as error:
        raise MissingPackage("transformers", "extract") from error
    dtype: torch.dtype = getattr(torch, compute_dtype)
    with quiet_loading():
        quantization = bitsandbytes_config(config.quantization, dtype)
        stored = StoredWeights(source.name, facts, config.models_dir) if facts and quantization else None
        is_stored = stored is not None and stored.are_sound()
        folder = stored.folder if stored and is_stored else source.folder
        try:
            model, report = AutoModel.from_pretrained(
                folder,
                output_loading_info=True,
                dtype=dtype,
                **({} if is_stored else {"quantization_config": quantization}),
                use_safetensors=True,
                trust_remote_code=False,
                device_map={"": device},
                attn_implementation=tree_attention.NAME,
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
            raise BackboneError(
                "the backbone cannot be loaded",
                where=folder,
                found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                remedy="check that the folder is whole (compare its files with the model's page)",
            ) from error
    if absent := sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}):
        raise BackboneError(
            "the weights are not those of this architecture: transformers would make up what is missing",
            where=source.folder,
            expected="every tensor of the network, in its shape",
            found=f"{len(absent)} missing or of another shape: {', '.join(absent[:4])}",
            remedy="fetch or save the model again, whole",
        )
    model.eval().requires_grad_(False)
    note = f"{config.quantization}, {compute_dtype}" + (", as stored" if is_stored else "")
    if facts is not None and stored is not None and not is_stored:
        check_unchanged(facts, source, config, compute_dtype)  # what is stored under a digest is of these weights
        with quiet_loading():
            stored.write(model)
    if quantization is not None:
        if _fits_dequantized(model, dtype, device):
            dequantize_once(model, dtype)
            note += ", dequantised once"
        elif device == "cpu" or config.quantization == "int8":
            # bitsandbytes' own int8 pass rounds activations by what is in the batch; on CPUs its NF4 pass is bfloat16's
            raise BackboneError(
                f"too little free memory for {config.quantization} weights dequantised once",
                where=device,
                remedy="use a larger device"
                + (", or --compute-dtype bfloat16, which takes half" if dtype == torch.float32 else "")
                + (", or --quantization nf4, which can be dequantised in every pass" if device != "cpu" else ""),
            )
        else:
            note += ", dequantised in every pass (too little free memory to do it once)"
    if config.adapter is not None:
        from pipeline.backbone.merge import merge_adapter

        with quiet_loading():
            merge_adapter(model, read_adapter(config.adapter))
        note += f", with the adapter in {config.adapter} merged"
    text_config = model.config.get_text_config(decoder=True)
    return Backbone(
        name=source.name,
        model=model,
        device=torch.device(device),
        dtype=dtype,
        num_hidden_layers=int(text_config.num_hidden_layers),
        hidden_size=int(text_config.hidden_size),
        note=note,
        weights_bytes=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
    )


def without_weights(source: BackboneSource) -> Any | None:
    """A backbone's network as its config describes it, on torch's meta device, or None where it is not built so."""
    try:
        from transformers import AutoConfig, AutoModel

        with quiet_loading(), torch.device("meta"):
            config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
            return AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, NotImplementedError):
        return None  # loading it says what is wrong


def _fits_dequantized(model: nn.Module, dtype: torch.dtype, device: str) -> bool:
    free_bytes = _free_bytes(device)
    needed_bytes = sum(
        module.in_features * module.out_features * dtype.itemsize
        for module in model.modules()
        if isinstance(module, nn.Linear)
    )
    return free_bytes is None or needed_bytes * MARGIN[device.split(":")[0]] < free_bytes


MARGIN = {"cuda": 2.0, "cpu": 1.25}
"""What must be free, as a multiple of the dequantised weights: on a GPU batches take as much again."""


def _free_bytes(device: str) -> int | None:
    """What a device has left; None where the system does not say."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    except (OSError, StopIteration, ValueError, IndexError):
        return None
