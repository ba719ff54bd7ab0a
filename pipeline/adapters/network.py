"""Heads on a live backbone: what cached heads see, computed anew in every pass, with gradients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.adapters.rows import LiveRows
from pipeline.adapters.top_layers import LowerStates
from pipeline.backbone.batch import Batch
from pipeline.backbone.plan import plan_live
from pipeline.backbone.pooling import places_read, pool
from pipeline.backbone.prefill import PrefillEngine
from pipeline.classifier import Classifier
from pipeline.views import View


@dataclass(frozen=True)
class TaskHead:
    """A task's head, and what it looks at.

    Args:
        views: with non-negative layers; side by side where there are several.
        classifier: on their concatenation, float32.
        classes: `[c]` class numbers, in the order of its logits.
    """

    views: tuple[View, ...]
    classifier: Classifier
    classes: np.ndarray


class HeadedNetwork(nn.Module):
    """A backbone with adapters, and a head for each task on its pooled hidden states.

    Args:
        engine: of the backbone; adapters are in its modules. It must compute every layer of the views.
        heads: by task.
        lower: by task and split, the cached states where passes begin; empty where they begin at the token ids.
        token_budget: tokens a live pass.
    """

    def __init__(
        self,
        engine: PrefillEngine,
        heads: Mapping[str, TaskHead],
        *,
        token_budget: int,
        lower: Mapping[tuple[str, str], LowerStates] | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.backbone = engine.backbone.model
        self.heads = dict(heads)
        self.classifiers = nn.ModuleList(head.classifier for head in heads.values())
        self.token_budget = token_budget
        self.lower = dict(lower or {})

    def batches(self, rows: LiveRows, numbers: np.ndarray) -> list[Batch]:
        """Live passes for some rows of a split `[m]`; a batch's `rows` are places in `numbers`."""
        most_shared = int(rows.tokens.start[numbers].min())
        ids = [rows.tokens[number] for number in numbers]
        return plan_live(ids, most_shared, self.token_budget, share=self.engine.shares)

    def pooled(self, rows: LiveRows, numbers: np.ndarray, batch: Batch, views: Sequence[View]) -> torch.Tensor:
        """What views give for a batch's rows, side by side: `[r, d + …]` float32, in the order of `batch.rows`."""
        of_batch = numbers[batch.rows]
        start, stop = (ends[of_batch] - len(batch.trunk) for ends in (rows.tokens.start, rows.tokens.stop))
        found: dict[View, torch.Tensor] = {}
        reads = {
            layer: np.concatenate([places_read(batch, v.pooling, start, stop) for v in views if v.layer == layer])
            for layer in {int(view.layer) for view in views}
        }

        def take(layer: int, states: torch.Tensor) -> None:
            for view in views:
                if view.layer == layer:
                    found[view] = pool(states, batch, view.pooling, start, stop)

        lower = self.lower.get((rows.task.name, rows.examples.split))
        begin = None if lower is None else torch.from_numpy(lower.of(batch, numbers))
        backbone = self.engine.backbone
        self.engine.run_live(batch, take, reads, None if begin is None else begin.to(backbone.device, backbone.dtype))
        return torch.cat([found[view] for view in views], dim=1)

    def pooled_rows(self, rows: LiveRows, numbers: np.ndarray, views: Sequence[View]) -> np.ndarray:
        """What views give for some rows of a split, side by side: `[m, d + …]` float32; no gradient flows."""
        width = len(views) * self.engine.backbone.hidden_size
        found = np.empty((len(numbers), width), dtype=np.float32)
        with torch.inference_mode():
            for batch in self.batches(rows, numbers):
                found[batch.rows] = self.pooled(rows, numbers, batch, views).cpu().numpy()
        return found

    def logits(self, rows: LiveRows, numbers: np.ndarray, batch: Batch) -> torch.Tensor:
        """Logits `[r, c]` of a batch's rows, in the order of `batch.rows`."""
        head = self.heads[rows.task.name]
        found: torch.Tensor = head.classifier(self.pooled(rows, numbers, batch, head.views))
        return found

    def loss(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The cross-entropy, summed over rows."""
        return nn.functional.cross_entropy(logits, wanted, reduction="sum")

    def classes_of(self, task: str) -> np.ndarray:
        """`[c]` class numbers, in the order of a task's logits."""
        return self.heads[task].classes

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What trains, by name: the adapters' matrices, and the heads that are not frozen."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def modules_in_training(self) -> Iterator[nn.Module]:
        """The modules whose dropout is at work while training: the backbone's own is not."""
        yield from self.classifiers
        yield from (module for name, module in self.backbone.named_modules() if name.endswith("lora_dropout"))
