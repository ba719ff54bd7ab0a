"""From a backbone's name to a folder with its files: the embedded one, a Hub id with a revision, a local folder."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.backbone.embedded import EMBEDDED, embedded_folder
from pipeline.config import CATALOGUE, BackboneConfig, backbone_slug
from pipeline.errors import BackboneError, MissingPackage, did_you_mean

HUB_IDS: Mapping[str, str] = {"deepseek-r1-distill-llama-8b": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"}
FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
"""What is fetched from the Hub: never a pickle, never code."""
NOT = ("*/*", "consolidated*")
"""The same weights once more, in other layouts."""
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class BackboneSource:
    """A backbone's files.

    Args:
        name: what people call it, fit for a folder's name.
        folder: holds config.json, safetensors weights and the tokenizer's files.
        commit: the Hub commit that the files belong to, or None for local ones.
    """

    name: str
    folder: Path
    commit: str | None = None


def find_backbone(config: BackboneConfig, *, with_weights: bool = True) -> BackboneSource:
    """Find a backbone's files: convert the embedded one once, fetch from the Hub, or take a local folder.

    Args:
        with_weights: otherwise none are fetched, and a folder may be without.

    Raises:
        BackboneError: the name is unknown, the folder is no model, or the Hub refuses or cannot be reached.
    """
    name = config.backbone
    folder = Path(name).expanduser()
    check_revision(config)
    if name == EMBEDDED:
        return BackboneSource(name, embedded_folder(config.models_dir))
    if folder.is_dir():
        return BackboneSource(backbone_slug(name), _checked(folder, with_weights))
    if name in HUB_IDS or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        hub_id = HUB_IDS.get(name, name)
        snapshot = _fetch(hub_id, config.revision, with_weights)
        return BackboneSource(backbone_slug(hub_id), _checked(snapshot, with_weights), commit=snapshot.name)
    raise BackboneError(
        "no such backbone",
        expected=f"{EMBEDDED} | {' | '.join(HUB_IDS)} | a Hub id such as org/name | a local folder",
        found=repr(name),
        remedy=did_you_mean(name.lower(), CATALOGUE) or "a folder must be there, and a Hub id has a slash",
    )


def check_revision(config: BackboneConfig) -> None:
    """Refuse a revision of what has none.

    Raises:
        BackboneError: the backbone is not one of the Hub.
    """
    if config.revision is not None and (config.backbone == EMBEDDED or Path(config.backbone).expanduser().is_dir()):
        raise BackboneError(
            "only a model of the Hub has revisions",
            where=config.backbone,
            found=f"--revision {config.revision}",
            remedy="leave it out",
        )


def _checked(folder: Path, with_weights: bool) -> Path:
    """The folder itself, if it looks like a transformers model, with safetensors weights where these are wanted."""
    if not (folder / "config.json").is_file():
        raise BackboneError(
            "this folder is no model",
            where=folder,
            expected="config.json, *.safetensors and tokenizer.json, as save_pretrained writes them",
            found=_listing(folder) or "an empty folder",
        )
    if with_weights and not any(folder.glob(WEIGHTS)):
        raise BackboneError(
            "this folder holds no safetensors weights (pickled ones are never read)",
            where=folder,
            expected="*.safetensors",
            found=_listing(folder),
            remedy="save the model again with save_pretrained, which writes safetensors",
        )
    if (folder / "adapter_config.json").exists():
        raise BackboneError(
            "this folder holds an adapter beside the model, which would be loaded or not as peft is installed or not",
            where=folder,
            remedy="name the backbone's own folder, and the adapter's with --adapter",
        )
    if any(folder.glob(WEIGHTS)):
        _check_weights_are_beside(folder)
    return folder


def _check_weights_are_beside(folder: Path) -> None:
    """Refuse a folder whose files send the loader elsewhere for weights: a digest is of the files in the folder."""
    there = {path.name for path in folder.glob("*.safetensors")}
    for path in (folder / "config.json", *sorted(folder.glob("*.safetensors.index.json"))):
        try:
            record = json.loads(path.read_text("utf-8"))
            explicit = record.get("transformers_weights")
            named = {*record.get("weight_map", {}).values(), *([] if explicit is None else [explicit])}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise BackboneError("a file of the model cannot be read", where=path, found=error) from error
        if elsewhere := sorted(str(name) for name in named if name not in there | {"model.safetensors.index.json"}):
            raise BackboneError(
                "the model names weights that do not lie beside it",
                where=path,
                expected=", ".join(sorted(there)),
                found=", ".join(elsewhere[:4]),
                remedy="fetch or save the model again, whole, into one folder",
            )


def _listing(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:8])


def _fetch(hub_id: str, revision: str | None, with_weights: bool) -> Path:
    try:
        import httpx2
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingPackage("huggingface_hub", "extract") from error
    where = f"{hub_id}, revision {revision or 'main'}"
    try:
        folder = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=list(FILES),
            ignore_patterns=list(NOT if with_weights else (*NOT, WEIGHTS)),
        )
        return Path(folder)
    except errors.GatedRepoError as error:
        raise BackboneError(
            "this model is gated: the Hub gives it only to accounts that were granted access",
            where=where,
            remedy=f"ask for access on the page of {hub_id}, then set HF_TOKEN (or run: hf auth login)",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BackboneError("the Hub's model has no such revision", where=where) from error
    except errors.RepositoryNotFoundError as error:
        raise BackboneError(
            "the Hub has no such model, or it is private", where=where, remedy="check the id; set HF_TOKEN if private"
        ) from error
    except (OSError, httpx2.HTTPError, errors.HfHubHTTPError) as error:
        raise BackboneError(
            "the Hub cannot be reached, and this model is not in the local Hub cache",
            where=where,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="check the network and HF_HUB_OFFLINE; or copy the model's folder here and name it instead",
        ) from error
    except errors.HFValidationError as error:
        raise BackboneError("this is no Hub id", where=where, found=error) from error
