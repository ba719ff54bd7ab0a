"""The CPU: its matrix kernels, whether the fast ones are exact, cores, threads and memory."""

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.doctor.finding import Finding
from pipeline.doctor.limits import available_bytes, memory_bytes, read_limits
from pipeline.housekeeping.tables import readable_size
from pipeline.kernels import EXACT
from pipeline.progress import counted
from pipeline.threads import usable_cores

ROWS, IN, OUT = 512, 576, 1536
"""Of the products that are timed: an up-projection of the embedded backbone over half of a usual batch."""
PROBE_SECONDS = 0.12
STAGE_ONE_BYTES = 4 * 10**9
"""What stage one takes at most with the embedded backbone in NF4, rounded up (3.6 GB measured)."""
SHOWN = {
    "avx2": "AVX2",
    "avx512_f": "AVX-512",
    "avx512_bf16": "AVX512_BF16",
    "avx512_fp16": "AVX512_FP16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX_BF16",
    "neon": "NEON",
    "sve": "SVE",
    "arm_bf16": "BF16",
    "bf16": "BF16",
}


def check_kernels() -> Iterator[Finding]:
    """What the CPU can, and each kernel of its products: error and speed."""
    import torch

    can = dict(torch.cpu.get_capabilities())
    has = [shown for name, shown in SHOWN.items() if can.get(name)]
    yield Finding(
        "instructions",
        "ok",
        f"{_processor(can)}: {', '.join(has) or 'none of the vector instructions that are looked for'}",
        means=f"torch's own kernels use {torch.backends.cpu.get_cpu_capability()}",
        facts={"instructions": has},
    )
    before = torch.get_float32_matmul_precision()
    try:
        yield _float32(torch)
    finally:
        torch.set_float32_matmul_precision(before)
    yield _bfloat16(torch)


def _processor(can: dict[str, Any]) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return str(can.get("cpu_name") or can.get("architecture") or "a CPU")


def _float32(torch: Any) -> Finding:
    from pipeline.backbone.packed import PackedLinear, can_pack
    from pipeline.kernels import exact_float32, relative_error

    layer = torch.nn.Linear(IN, OUT, bias=False).requires_grad_(False)
    inputs = torch.randn(ROWS, IN)
    errors = {}
    for setting in ("highest", "medium"):
        torch.set_float32_matmul_precision(setting)
        errors[setting] = relative_error()
    with exact_float32("cpu") as chosen:
        pass

    def product(of: Any, setting: str) -> Callable[[], object]:
        def compute() -> object:
            torch.set_float32_matmul_precision(setting)
            return of(inputs)

        return compute

    products = {setting: product(layer, setting) for setting in errors}
    if can_pack(torch.device("cpu"), torch.float32):
        torch.set_float32_matmul_precision(chosen)
        products["packed"] = product(PackedLinear(layer), chosen)
    speeds = gflops(products)
    return judge_float32(errors, speeds, chosen)


def judge_float32(errors: dict[str, float], speeds: dict[str, float], chosen: str) -> Finding:
    """What the measured kernels mean.

    Args:
        errors: largest relative error against float64, of `highest` and `medium`.
        speeds: GFLOP/s of these, and of `packed` where weights can be packed.
        chosen: the setting that stages one and two take.
    """
    name = "float32 products"
    found = "; ".join(
        f"{words} kernel ({setting}): relative error {errors[setting]:.1e}, {speeds[setting]:,.0f} GFLOP/s"
        for setting, words in (("highest", "plain"), ("medium", "oneDNN"))
    )
    exact = errors["medium"] <= EXACT
    means = f"the one of oneDNN is {'exact' if exact else 'not exact (at most ' + format(EXACT, '.0e') + ' is)'}: "
    means += f"{'it' if chosen == 'medium' else 'the plain one'} is taken"
    if "packed" in speeds:
        means += f"; stage one packs its weights for it: {speeds['packed']:,.0f} GFLOP/s"
    else:
        means += "; this torch cannot pack weights for oneDNN, so stage one takes the same kernel"
    facts = {"relative_error": errors, "gflops": speeds, "chosen": chosen, "exact_at_most": EXACT}
    if errors[chosen] > EXACT:
        return Finding(
            name,
            "problem",
            found,
            means="neither kernel computes in float32: features would not be transformers' own",
            remedy="install the torch of .constraints.txt (make setup); if that changes nothing, do not trust this CPU",
            facts=facts,
        )
    return Finding(name, "ok", found, means=means, facts=facts)


def _bfloat16(torch: Any) -> Finding:
    from pipeline.backbone.facts import cpu_has_bfloat16

    native = cpu_has_bfloat16()
    rows = ROWS if native else ROWS // 16
    layer = torch.nn.Linear(IN, OUT, bias=False).requires_grad_(False).to(torch.bfloat16)
    inputs = torch.randn(rows, IN).to(torch.bfloat16)
    speed = gflops({"bfloat16": lambda: layer(inputs)}, rows)["bfloat16"]
    return Finding(
        "bfloat16 products",
        "ok",
        f"{'native' if native else 'emulated'}: {speed:,.0f} GFLOP/s",
        means="--compute-dtype auto is float32 on the CPU all the same: bfloat16 features depend on the batch"
        if native
        else "--compute-dtype auto is float32 on the CPU; --compute-dtype bfloat16 would be far slower",
        facts={"native": native, "gflops": speed},
    )


def gflops(products: Mapping[str, Callable[[], object]], rows: int = ROWS) -> dict[str, float]:
    """The best speed of each product in a part of a second, after one to warm up; they take turns.

    Args:
        rows: of the products.
    """
    for product in products.values():
        product()
    best = dict.fromkeys(products, math.inf)
    until = time.perf_counter() + PROBE_SECONDS * len(products)
    while time.perf_counter() < until:  # by turns, so that what else the machine does slows all of them
        for name, product in products.items():
            began = time.perf_counter()
            product()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: 2 * rows * IN * OUT / seconds / 1e9 for name, seconds in best.items()}


def check_cores() -> Iterator[Finding]:
    """How many there are, how many may be used, and how many threads torch takes."""
    import torch

    yield judge_threads(
        threads=torch.get_num_threads(),
        usable=usable_cores(),
        quota=read_limits().cores,
        said=os.environ.get("OMP_NUM_THREADS"),
        there=f"{os.cpu_count()} logical" + (f", {count} physical" if (count := physical_cores()) else ""),
    )


def physical_cores(table: Path = Path("/proc/cpuinfo")) -> int | None:
    """Cores without their second threads; None where the system does not say."""
    try:
        blocks = table.read_text("utf-8", "replace").split("\n\n")
    except OSError:
        return None
    placed = re.compile(r"^(?:physical id|core id)\s*:\s*(\d+)$", re.M)
    cores = {place for block in blocks if len(place := tuple(placed.findall(block))) == 2}
    return len(cores) or None


def judge_threads(*, threads: int, usable: int, quota: float | None, said: str | None, there: str) -> Finding:
    """Whether torch takes as many threads as there are cores for this process.

    Args:
        threads: that torch takes.
        usable: cores that this process may run on.
        quota: cores' worth of time that its control group gives it, or None.
        said: OMP_NUM_THREADS, or None.
        there: the machine's cores, in words.
    """
    cores = usable if quota is None else max(1, min(usable, math.floor(quota + 0.5)))
    found = f"{there}; {usable} of them for this process" + (f", for {quota:g} cores' time" if quota else "")
    means = f"torch takes {counted(threads, 'thread')}" + (f" (OMP_NUM_THREADS={said})" if said else "")
    facts = {"threads": threads, "usable": usable, "quota": quota}
    if threads > cores:
        return Finding(
            "cores",
            "note",
            found,
            means=f"{means}, which wait for each other",
            remedy=f"export OMP_NUM_THREADS={cores}",
            facts=facts,
        )
    if threads < cores:
        return Finding(
            "cores",
            "note",
            found,
            means=f"{means}: {cores - threads} of {cores} cores stay idle",
            remedy="unset OMP_NUM_THREADS" if said else f"export OMP_NUM_THREADS={cores}",
            facts=facts,
        )
    return Finding("cores", "ok", found, means=means, facts=facts)


def check_memory() -> Iterator[Finding]:
    """Memory of the machine and of the control group, against what stage one takes."""
    machine, limits, free = memory_bytes(), read_limits(), available_bytes()
    if machine is None or free is None:
        yield Finding("memory", "note", "this system does not say how much there is")
        return
    found = f"{readable_size(free)} available of {readable_size(machine[0])}"
    if limits.memory_bytes is not None:
        found += f"; this process is limited to {readable_size(limits.memory_bytes)}"
    facts = {"available_bytes": free, "total_bytes": machine[0], "limit_bytes": limits.memory_bytes}
    if free < STAGE_ONE_BYTES:
        yield Finding(
            "memory",
            "note",
            found,
            means=f"stage one with the embedded backbone takes up to {readable_size(STAGE_ONE_BYTES)}",
            remedy="end other programs, or --compute-dtype bfloat16, which takes less",
            facts=facts,
        )
        return
    yield Finding("memory", "ok", found, facts=facts)
