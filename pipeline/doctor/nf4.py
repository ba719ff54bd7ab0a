"""transformers and bitsandbytes: whether they load, and whether NF4 is what it should be on the device in use."""

import importlib.metadata
import logging
from collections.abc import Iterator
from typing import Any

from pipeline.doctor.finding import Finding, first_line

NF4_ERROR = 0.092
"""Of normally distributed numbers in blocks of 64: root of the summed squares of what is lost, over that of all.

It is a property of the format (QLoRA, arXiv:2305.14314): each number goes to the nearest of 16 levels of its block.
"""
NF4_TOLERANCE = 0.003
"""Over 100,000 numbers the error scatters by 0.0002; blocks of 128 numbers miss it by 0.004, 4-bit floats by 0.03."""


GET_STAGE_ONE = "make setup (or: pip install 'feature-cache-pipeline[extract]')"


def check_transformers() -> Iterator[Finding]:
    """Load what stage one takes of it: it refuses versions of other packages by itself, when it is loaded."""
    try:
        from transformers import AutoModel, BitsAndBytesConfig  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "transformers":
            yield _not_installed("transformers", "stage one and the live path need it; stage two does not")
        else:
            yield _does_not_load("transformers", error, GET_STAGE_ONE)
    except Exception as error:  # of whatever it loads on its way
        yield _does_not_load("transformers", error, GET_STAGE_ONE)
    else:
        version = importlib.metadata.version("transformers")
        yield Finding("transformers", "ok", f"{version}, loads", facts={"version": version})


def check_bitsandbytes(device: str) -> Iterator[Finding]:
    """Load it and send one matrix through it.

    Args:
        device: the resolved one.
    """
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it tells of a kernel that it did not find on the Hub
    try:
        import bitsandbytes.functional as functional
    except ModuleNotFoundError as error:
        if error.name == "bitsandbytes":
            yield _not_installed(
                "bitsandbytes", "--quantization nf4 (the default) and int8 need it; stage two does not"
            )
        else:
            yield _does_not_load("bitsandbytes", error, AGAIN)
        return
    except Exception as error:  # a shared library that is missing or of another CUDA
        yield _does_not_load("bitsandbytes", error, AGAIN)
        return
    finally:
        log.setLevel(level)
    version = importlib.metadata.version("bitsandbytes")
    yield Finding("bitsandbytes", "ok", f"{version}, loads", facts={"version": version})
    yield round_trip(functional, device)


def round_trip(functional: Any, device: str) -> Finding:
    """Whether NF4 loses of a matrix what NF4 must lose, and no more or less.

    Args:
        functional: bitsandbytes' module of that name.
        device: the resolved one.
    """
    import torch

    from pipeline.backbone.facts import NF4_BLOCK_SIZE

    matrix = torch.randn(256, 512, generator=torch.Generator().manual_seed(0)).to(device)
    packed, state = functional.quantize_4bit(
        matrix, blocksize=NF4_BLOCK_SIZE, compress_statistics=True, quant_type="nf4"
    )
    back = functional.dequantize_4bit(packed, state).float()
    error = float((back - matrix).norm() / matrix.norm())
    found = f"a matrix to NF4 and back on {device}: relative error {error:.4f}, expected {NF4_ERROR} ± {NF4_TOLERANCE}"
    facts = {"device": device, "relative_error": error, "expected": NF4_ERROR, "tolerance": NF4_TOLERANCE}
    if not abs(error - NF4_ERROR) <= NF4_TOLERANCE:  # a NaN is no error that is expected
        return Finding(
            "NF4",
            "problem",
            found,
            means="the quantised weights would be wrong, and every feature with them",
            remedy="install the version of .constraints.txt (make setup); until then --quantization checkpoint or none",
            facts=facts,
        )
    return Finding("NF4", "ok", found, facts=facts)


AGAIN = "install it again for this torch and CUDA (make setup); until then --quantization checkpoint or none"


def _not_installed(package: str, means: str) -> Finding:
    return Finding(package, "note", "not installed", means=means, remedy=GET_STAGE_ONE)


def _does_not_load(package: str, error: Exception, remedy: str) -> Finding:
    means = "what needs it will fail; stage two does not"
    return Finding(package, "problem", f"installed, and cannot be loaded: {first_line(error)}", means, remedy)
