"""The CPU's matrix products: the faster float32 kernel is taken where it is exact, and only there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

EXACT = 1e-5
"""Largest relative error that still counts as float32; products in bfloat16 are near 1e-3."""


@contextmanager
def exact_float32(device: str) -> Iterator[str]:
    """Within, float32 products run on the fastest kernel that stays exact; gives the name of its precision setting.

    On CUDA only `highest` is exact. On the CPU torch's setting `medium` moves float32 products to oneDNN: on most CPUs
    that is true float32 and faster; on one with AMX it computes in bfloat16. One product, held against float64, tells
    which.
    """
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if device == "cpu" else "highest")
        if device == "cpu" and relative_error() > EXACT:
            torch.set_float32_matmul_precision("highest")
        yield torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)


def relative_error() -> float:
    """Of one float32 product on the CPU with the kernel that is set now: its largest error, held against float64."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 576, generator=generator)
    b = torch.randn(1536, 576, generator=generator)
    exact = a.double() @ b.double().T
    return float((torch.nn.functional.linear(a, b).double() - exact).abs().max() / exact.abs().max())
