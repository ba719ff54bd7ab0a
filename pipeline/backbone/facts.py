"""What can be known of a backbone from its files alone, without loading its weights."""

import json
from dataclasses import dataclass, fields
from typing import Any

from pipeline.backbone.adapter import read_adapter
from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.digest import digest_of_tokenizer, digest_of_weights
from pipeline.config import BackboneConfig, Dtype
from pipeline.digests import sha256_of_record
from pipeline.errors import BackboneError
from pipeline.progress import say

NF4_BLOCK_SIZE = 64
VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
"""Fields of config.json that say where and by what it was written, not what the network computes."""


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone's part of a feature's identity, and its measures.

    Args:
        num_hidden_layers: blocks.
        hidden_size: numbers a hidden state.
        max_positions: the most tokens it was made for, or None where its config does not say.
        windowed: whether some block sees only the tokens of a window, so that what rows share is not computed once.
        weights: digest of the weights: `commit:…` or `sha256:…`.
        architecture: model type, blocks, hidden size, and a digest of everything else in its config.
        quantization: type, compute dtype, and what else decides the numbers.
        tokenizer: digest of the tokenizer's files.
        adapter: digest of the adapter that is merged into the weights, or None.
    """

    num_hidden_layers: int
    hidden_size: int
    max_positions: int | None
    windowed: bool
    weights: str
    architecture: dict[str, Any]
    quantization: dict[str, Any]
    tokenizer: str
    adapter: str | None

    @property
    def of_identity(self) -> dict[str, Any]:
        """The fields that stand in a feature's identity."""
        names = ("weights", "architecture", "adapter", "quantization", "tokenizer")
        return {name: getattr(self, name) for name in names}


def read_facts(
    source: BackboneSource, config: BackboneConfig, compute_dtype: Dtype, *, weights: str | None = None
) -> BackboneFacts:
    """Read a backbone's facts from its files.

    Args:
        compute_dtype: the resolved one, never `auto`.
        weights: their digest, where it is known; by default they are hashed.

    Raises:
        BackboneError: config.json cannot be read, or is of a kind that transformers does not know; the adapter is none
            that can be merged.
    """
    from transformers import AutoConfig

    path = source.folder / "config.json"
    try:
        record = json.loads(path.read_text("utf-8"))
        text_config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False).get_text_config(decoder=True)
        num_hidden_layers, hidden_size = int(text_config.num_hidden_layers), int(text_config.hidden_size)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BackboneError(
            "this folder is no model that transformers can load",
            where=path,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="name a folder that save_pretrained wrote; models with code of their own are not run",
        ) from error
    shipped = record.get("quantization_config")
    if shipped is not None and config.quantization != "checkpoint":
        raise BackboneError(
            "this checkpoint is quantised already",
            where=path,
            expected="--quantization checkpoint",
            found=f"--quantization {config.quantization}; the files: {shipped.get('quant_method', 'quantised')}",
        )
    if shipped is not None and config.adapter is not None:
        raise BackboneError(
            "an adapter cannot be merged into weights that stay quantised",
            where=path,
            expected="weights that are not quantised",
            found=f"{shipped.get('quant_method', 'quantised')} weights, and --adapter {config.adapter}",
            remedy="name the same model's unquantised checkpoint with --backbone",
        )
    return BackboneFacts(
        num_hidden_layers=num_hidden_layers,
        hidden_size=hidden_size,
        max_positions=getattr(text_config, "max_position_embeddings", None),
        windowed=has_window(text_config),
        weights=weights or digest_of_weights(source.folder, config.models_dir, source.commit),
        architecture={
            "model_type": record.get("model_type"),
            "num_hidden_layers": num_hidden_layers,
            "hidden_size": hidden_size,
            "config": "sha256:" + sha256_of_record({k: v for k, v in record.items() if k not in VOLATILE}),
        },
        quantization=_quantization(config, compute_dtype),
        tokenizer=digest_of_tokenizer(source.folder),
        adapter=None if config.adapter is None else read_adapter(config.adapter).digest,
    )


def check_unchanged(facts: BackboneFacts, source: BackboneSource, config: BackboneConfig, compute_dtype: Dtype) -> None:
    """Check, once weights and tokenizer are loaded, that the files still are what `facts` were read from.

    Raises:
        BackboneError: they are not: what was loaded may be neither the one nor the other.
    """
    now = read_facts(source, config, compute_dtype)
    changed = [field.name for field in fields(facts) if getattr(facts, field.name) != getattr(now, field.name)]
    if changed:
        raise BackboneError(
            "the backbone's files changed while they were loaded",
            where=source.folder if changed != ["adapter"] else config.adapter,
            found=f"another {', '.join(changed)}",
            remedy="run the same command again when nothing writes there any more",
        )


def has_window(text_config: Any) -> bool:
    """Whether some block sees only the tokens of a window, so that what a prefix means depends on the distance.

    Args:
        text_config: transformers' config of the decoder.
    """
    kinds = getattr(text_config, "layer_types", None) or ()
    return any(kind != "full_attention" for kind in kinds) or (
        not kinds and getattr(text_config, "sliding_window", None) is not None
    )


def _quantization(config: BackboneConfig, compute_dtype: Dtype) -> dict[str, Any]:
    record: dict[str, Any] = {"type": config.quantization, "compute_dtype": compute_dtype}
    if config.quantization == "nf4":
        record |= {"double": True, "block_size": NF4_BLOCK_SIZE}
    return record


def resolve_device(device: str) -> str:
    """`cuda` or `cpu` for `auto`; any other name as it is, if this machine has it.

    Raises:
        BackboneError: the device is not here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
        if torch.device(device).type == "cpu":
            return "cpu"
    except (RuntimeError, AssertionError) as error:
        here = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        here += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise BackboneError(
            "this machine has no such device",
            where="device",
            expected=" | ".join(here),
            found=device,
            remedy="pipeline doctor says what this machine has, and why a GPU of it cannot be used",
        ) from error
    return device


def named_device(device: str) -> str:
    """As `resolve_device`, of a device that may be on another machine.

    Raises:
        BackboneError: there is no such kind of device.
    """
    import torch

    if device == "auto":
        return resolve_device(device)
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = None
    if kind not in ("cpu", "cuda"):
        raise BackboneError("this is no device", where="device", expected="auto | cpu | cuda | cuda:1", found=device)
    return "cpu" if kind == "cpu" else device


def resolve_dtype(dtype: Dtype, device: str) -> Dtype:
    """bfloat16 on CUDA and float32 elsewhere for `auto`; any other dtype as it is.

    A CPU without bfloat16 arithmetic computes it all the same, slowly: that is said.
    """
    if dtype != "auto":
        if dtype == "bfloat16" and device == "cpu" and not cpu_has_bfloat16():
            say("this CPU has no bfloat16 arithmetic: it is emulated, and far slower than --compute-dtype float32")
        return dtype
    return "bfloat16" if device.startswith("cuda") else "float32"


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers by itself, as far as torch knows this kind of CPU."""
    import torch

    can = dict(torch.cpu.get_capabilities())
    return bool(any(value for name, value in can.items() if "bf16" in name)) or can.get("architecture") != "x86_64"
