"""The GPU: which are there, whether torch can use them, and whether their products are exact."""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.doctor.finding import Finding
from pipeline.housekeeping.tables import readable_size
from pipeline.kernels import EXACT

DRIVER = Path("/proc/driver/nvidia")
NVIDIA_SMI_SECONDS = 5.0
GET_TORCH = "its page of installation gives the pip line for a CUDA build: https://pytorch.org/get-started/locally"


def check_gpu() -> Iterator[Finding]:
    """Each CUDA device and one product on it; or, where torch has none, whether there is a card all the same."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        reasons = "; ".join(str(each.message).strip().splitlines()[0] for each in said)
        yield without_cuda(nvidia_cards(), torch.version.cuda, reasons)
        return
    for number in range(torch.cuda.device_count()):
        yield _card(torch, number)
    yield _products(torch)


def nvidia_cards(driver: Path = DRIVER) -> list[str]:
    """The names of the NVIDIA cards that this machine has, whether torch can use them or not."""
    names = []
    for file in sorted(driver.glob("gpus/*/information")):
        model = re.search(r"^Model:\s*(.+)$", file.read_text("utf-8", "replace"), re.M)
        names.append(model[1].strip() if model else "an NVIDIA card")
    if names or (program := shutil.which("nvidia-smi")) is None:
        return names
    try:
        asked = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: (.+?) \(UUID", asked.stdout, re.M)


def driver_version(driver: Path = DRIVER) -> str:
    """The NVIDIA driver's version, or `unknown`."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", (driver / "version").read_text("utf-8", "replace"))
    except OSError:
        return "unknown"
    return found[0] if found else "unknown"


def without_cuda(cards: list[str], cuda: str | None, reasons: str) -> Finding:
    """What it means that torch has no CUDA device.

    Args:
        cards: the NVIDIA cards that are here all the same.
        cuda: the CUDA version that torch was built for, or None.
        reasons: what torch said when it was asked.
    """
    name, there = "NVIDIA GPU", f"{', '.join(cards)} (driver {driver_version()})"
    facts = {"cards": cards, "torch_cuda": cuda}
    if not cards:
        return Finding(name, "ok", "none", means="stage one and the live path run on the CPU", facts=facts)
    if cuda is None:
        return Finding(
            name,
            "problem",
            f"{there}, but this torch was built without CUDA",
            means="the card would stand idle",
            remedy=f"install torch with CUDA; {GET_TORCH}",
            facts=facts,
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return Finding(
            name,
            "note",
            f"{there}, hidden by CUDA_VISIBLE_DEVICES={hidden!r}",
            means="the CPU is used",
            remedy="unset CUDA_VISIBLE_DEVICES to use the card",
            facts=facts,
        )
    return Finding(
        name,
        "problem",
        f"{there}, but torch (CUDA {cuda}) cannot use it" + (f": {reasons}" if reasons else ""),
        means="the card would stand idle",
        remedy=f"a driver that is too old for CUDA {cuda} is the common cause: update it, or install a torch for an "
        f"older CUDA; {GET_TORCH}",
        facts=facts,
    )


def _card(torch: Any, number: int) -> Finding:
    name = torch.cuda.get_device_name(number)
    major, minor = torch.cuda.get_device_capability(number)
    free, total = torch.cuda.mem_get_info(number)
    bfloat16 = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    facts = {
        "name": name,
        "total_bytes": total,
        "free_bytes": free,
        "capability": f"{major}.{minor}",
        "bfloat16": bfloat16,
        "driver": driver_version(),
        "torch_cuda": torch.version.cuda,
    }
    found = (
        f"{name}: {readable_size(free)} of {readable_size(total)} free, compute capability {major}.{minor}, "
        f"driver {driver_version()}, CUDA {torch.version.cuda}"
    )
    title = f"cuda:{number}"
    built_for = torch.cuda.get_arch_list()
    if built_for and not _serves(built_for, major, minor):
        return Finding(
            title,
            "problem",
            found,
            means=f"this torch has no kernels for it, only for {', '.join(built_for)}",
            remedy=f"install a torch that was built for this card; {GET_TORCH}",
            facts=facts,
        )
    if not bfloat16:
        return Finding(
            title,
            "note",
            found,
            means="it has no bfloat16 arithmetic, which --compute-dtype auto takes on CUDA: it is emulated, slowly",
            remedy="--compute-dtype float32, or float16 where the passport shows that the values fit",
            facts=facts,
        )
    return Finding(title, "ok", found, means="bfloat16 arithmetic", facts=facts)


def _serves(built_for: list[str], major: int, minor: int) -> bool:
    """Whether one of torch's architectures runs here: code of this major version, or what the driver compiles."""
    for each in built_for:
        if match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", each):
            kind, wanted = match[1], (int(match[2]), int(match[3]))
            if wanted <= (major, minor) and (kind == "compute" or wanted[0] == major):
                return True
    return False


def _products(torch: Any) -> Finding:
    """One float32 product on the first device, as stage one sets it, held against float64 on the CPU."""
    from pipeline.kernels import exact_float32

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(256, 576, generator=generator), torch.randn(1536, 576, generator=generator)
    exact = a.double() @ b.double().T
    with exact_float32("cuda"):
        product = torch.nn.functional.linear(a.cuda(), b.cuda()).double().cpu()
    error = float((product - exact).abs().max() / exact.abs().max())
    found = f"largest relative error {error:.1e}, at most {EXACT:.0e} is exact"
    if error > EXACT:
        return Finding(
            "CUDA products in float32",
            "problem",
            found,
            means="features in float32 would not be transformers' own",
            remedy="unset NVIDIA_TF32_OVERRIDE; if it is not set, the card or its driver computes wrongly",
            facts={"relative_error": error},
        )
    return Finding("CUDA products in float32", "ok", found, facts={"relative_error": error})
