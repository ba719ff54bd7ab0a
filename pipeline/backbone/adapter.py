"""A LoRA adapter's folder, as peft writes it: what it is, checked before the backbone is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.digests import sha256_of_file, sha256_of_record
from pipeline.errors import BackboneError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DECIDE: Mapping[str, Any] = {
    "r": 8,
    "lora_alpha": 8,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "target_modules": None,
    "exclude_modules": None,
    "layers_to_transform": None,
    "layers_pattern": None,
}
"""The fields of a LoRA config that decide numbers beside the weights, with peft's defaults."""
SAY_NOTHING = {
    "base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping", "peft_type", "peft_version",
    "lora_dropout", "init_lora_weights", "megatron_core", "runtime_config", "qalora_group_size", "bias",
}  # fmt: skip
"""Fields that say where the adapter comes from or how it was trained, or that another check covers."""
REWRITES_THE_BACKBONE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the backbone's own weights: the adapter means nothing without that change."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that can be merged into a backbone's weights.

    Args:
        folder: holds its config and its weights.
        settings: the fields of its config that decide numbers.
        digest: `sha256:…` of these fields and of the weights' bytes.
        base: what its config says it was trained on, for people.
    """

    folder: Path
    settings: Mapping[str, Any] = field(repr=False)
    digest: str
    base: str | None

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS


def read_adapter(folder: Path) -> Adapter:
    """Read what an adapter is, without peft and without its numbers.

    Raises:
        BackboneError: the folder holds no LoRA adapter, a pickled one, or one that merging cannot do justice to.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        there = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else None
        pickled = there is not None and "adapter_model.bin" in there
        raise BackboneError(
            "this folder holds no adapter" + (" but a pickled one, which is never read" if pickled else ""),
            where=folder,
            expected=f"{CONFIG} and {WEIGHTS}, as peft's save_pretrained writes them",
            found="no such folder" if there is None else ", ".join(there) or "an empty folder",
            remedy="check the path"
            if there is None
            else "save the adapter again with save_pretrained: it writes safetensors",
        )
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError("an adapter's config cannot be read", where=folder / CONFIG, found=error) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise BackboneError(
            "this adapter is not of a kind that can be merged into weights",
            where=folder / CONFIG,
            expected="peft_type LORA",
            found=kind,
            remedy="features are made with LoRA adapters; soft prompts and prefixes are not weights of the backbone",
        )
    _check_config(config, folder / CONFIG)
    settings = {name: config.get(name, default) for name, default in DECIDE.items()}
    if isinstance(settings["target_modules"], list):
        settings["target_modules"] = sorted(settings["target_modules"])  # peft writes a set, in any order
    return Adapter(
        folder,
        settings,
        "sha256:" + sha256_of_record({"config": settings, "weights": sha256_of_file(folder / WEIGHTS)}),
        config.get("base_model_name_or_path") or None,
    )


def _check_config(config: Mapping[str, Any], where: Path) -> None:
    """Refuse every setting that would not be honoured.

    Raises:
        BackboneError: there is one.
    """
    begun = str(config.get("init_lora_weights", True)).lower()
    begun_by_rewriting = begun.startswith(REWRITES_THE_BACKBONE)
    problems = [f"init_lora_weights={begun}"] if begun_by_rewriting else []
    if config.get("bias", "none") != "none":
        problems.append(f"bias={config['bias']}")
    problems += [
        f"{name}={json.dumps(value)[:80]}"
        for name, value in config.items()
        if name not in DECIDE and name not in SAY_NOTHING and value not in (None, False, [], {})
    ]
    if problems:
        raise BackboneError(
            "this adapter is more than low-rank matrices on the backbone's layers",
            where=where,
            expected="a LoRA adapter (rslora and DoRA too) without heads, biases, token rows or parts of other methods",
            found=", ".join(problems),
            remedy="convert it to plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)"
            if begun_by_rewriting
            else "train it without them; or merge it into the backbone yourself and name the merged folder",
        )
    for name, default in DECIDE.items():
        value = config.get(name, default)
        if not _is_of_its_kind(name, value):
            raise BackboneError(
                "a setting of an adapter's config is wrong", where=f"{where}, {name}", found=repr(value)
            )


def _is_of_its_kind(name: str, value: Any) -> bool:
    if name in ("r", "lora_alpha"):
        return _is_above_zero(value)
    if name in ("rank_pattern", "alpha_pattern"):
        return isinstance(value, dict) and all(map(_is_above_zero, value.values()))
    if name in ("use_rslora", "use_dora", "fan_in_fan_out"):
        return isinstance(value, bool)
    kinds = int if name == "layers_to_transform" else str
    return value is None or isinstance(value, kinds) or _is_list_of(value, kinds)


def _is_above_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
