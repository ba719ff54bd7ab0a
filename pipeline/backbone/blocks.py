"""A backbone's blocks while it computes: hidden states of chosen layers, and the last block's where they are read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
def only_where_read(block: nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Within, a block computes what it computes place by place, its MLP above all, for some places of a pass alone.

    What it gives elsewhere has no meaning: for the last block of a pass, where nothing looks at the other places any
    more. Keys and values are those of all places.

    Args:
        places: `[m]` int64, sorted, of a pass `[1, n]`.
    """
    attention = getattr(block, "self_attn", None)
    parts = (getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), getattr(block, "mlp", None))
    found = [part for part in parts if isinstance(part, nn.Module)]
    before = [vars(part).get("forward") for part in found]
    for part in found:
        part.forward = partial(_at_places, part.forward, places)
    try:
        yield
    finally:
        for part, forward in zip(found, before, strict=True):
            del part.forward
            if forward is not None:
                part.forward = forward


def _at_places(forward: Callable[..., Any], places: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if len(args) != 1 or kwargs:
        return forward(*args, **kwargs)  # it is given more than one vector a place
    given: torch.Tensor = args[0]
    output = forward(given.index_select(1, places))
    if not isinstance(output, torch.Tensor):
        return forward(given)
    return output.new_zeros(*given.shape[:-1], output.shape[-1]).index_copy(1, places, output)


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
