"""AdamW over a stack, and the settings of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.heads.stacked.stack import Stack


@dataclass(frozen=True)
class Schedule:
    """How a stack is trained.

    Args:
        learning_rate: AdamW's; None is the stack's own.
        weight_decay: AdamW's; one for all heads, or `K` of them.
        batch_size: rows a step, whichever heads fit on them.
        max_epochs: at most.
        patience: epochs without a lower held-out loss before a head stops.
        seed: of the batches and of dropout.
    """

    learning_rate: float | None = None
    weight_decay: float | Sequence[float] = 0.01
    batch_size: int = 128
    max_epochs: int = 200
    patience: int = 10
    seed: int = 0


class AdamW:
    """AdamW over a stack, each head with a weight decay of its own.

    Args:
        stack: whose tensors it trains in place.
        schedule: learning rate and weight decay.
    """

    def __init__(self, stack: Stack, schedule: Schedule) -> None:
        rate = schedule.learning_rate or stack.default_learning_rate
        decay = torch.as_tensor(schedule.weight_decay, dtype=torch.float32).expand(len(stack))
        self._begin(stack, rate, decay)

    def _begin(self, stack: Stack, rate: float, decay: torch.Tensor) -> None:
        self.rate, self.decay, self.stack = rate, decay, stack
        # One decay for all is the optimizer's own, in the same pass over the numbers as its step.
        self.is_shared = len(torch.unique(decay)) <= 1
        shared = float(decay[0]) if self.is_shared and len(decay) else 0.0
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [tensor.requires_grad_()],
                    "lr": rate * stack.rates.get(name, 1.0),
                    "weight_decay": 0.0 if name in stack.undecayed else shared,
                }
                for name, tensor in stack.tensors.items()
                if stack.rates.get(name, 1.0)
            ],
            fused=True,
        )

    def step(self, logits: torch.Tensor, gradient: torch.Tensor) -> None:
        """One step down the heads' losses, whose gradient by the logits is given."""
        self.optimizer.zero_grad()
        logits.backward(gradient)  # type: ignore[no-untyped-call]
        if not self.is_shared:
            with torch.no_grad():
                for name, tensor in self.stack.tensors.items():
                    if name not in self.stack.undecayed:
                        kept = 1 - self.rate * self.stack.rates.get(name, 1.0) * self.decay
                        tensor.mul_(kept.view(-1, *[1] * (tensor.ndim - 1)))
        self.optimizer.step()

    def take(self, which: torch.Tensor, stack: Stack) -> "AdamW":
        """The same for some of the heads, whose stack is given; what it remembers of them goes along."""
        taken = object.__new__(AdamW)
        taken._begin(stack, self.rate, self.decay[which])
        for name, tensor in self.stack.tensors.items():
            if state := self.optimizer.state.get(tensor):
                taken.optimizer.state[stack.tensors[name]] = {
                    key: value.clone() if key == "step" else value[which] for key, value in state.items()
                }
        return taken
