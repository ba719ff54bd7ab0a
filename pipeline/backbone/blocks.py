"""Watching a backbone's blocks while it computes: the hidden states of chosen layers, each as soon as it is there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.errors import BackboneError

Take = Callable[[int, torch.Tensor], None]
"""Is given a layer's number and its hidden states `[b, t, d]`, which are not kept afterwards."""


class Enough(Exception):
    """All wanted layers are there: what lies above them need not be computed."""


def blocks_of(model: nn.Module, num_hidden_layers: int) -> nn.ModuleList:
    """The model's blocks in order: its first list of that many modules.

    Raises:
        BackboneError: there is none.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_hidden_layers:
            return module
    raise BackboneError(
        "this model's blocks cannot be found",
        where=type(model).__name__,
        expected=f"a list of {num_hidden_layers} modules",
    )


@contextmanager
def watching(blocks: nn.ModuleList, layers: Sequence[int], take: Take) -> Iterator[None]:
    """Within, `take` is given the hidden states of the wanted layers below the last one, in order.

    Layer 0 is what the first block is given; layer k is what block k gives. The last layer is after the final norm and
    is no block's. When no higher layer is wanted, the pass ends with `Enough`.

    Args:
        layers: non-negative, sorted.
    """
    wanted = set(layers)

    def after(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            _take(number, output[0] if isinstance(output, tuple) else output)

        return hook

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        _take(0, args[0] if args else kwargs["hidden_states"])

    def _take(number: int, states: torch.Tensor) -> None:
        take(number, states)
        if number == layers[-1]:
            raise Enough

    handles = [
        block.register_forward_hook(after(number)) for number, block in enumerate(blocks[:-1], 1) if number in wanted
    ]
    if 0 in wanted:
        handles.append(blocks[0].register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    except Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
