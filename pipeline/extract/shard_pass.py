"""One shard through the backbone: batches of its own rows alone, pooled at once into every wanted view."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from pipeline.backbone.batch import Batch, common_prefix_length
from pipeline.backbone.plan import plan_batches
from pipeline.backbone.pooling import pool
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import TokenRows
from pipeline.backbone.tree import Prefix
from pipeline.cache.index import SCHEMA
from pipeline.cache.shard import RAW, ShardData
from pipeline.errors import CacheError
from pipeline.extract.job import label_columns
from pipeline.extract.part import Part
from pipeline.views import Pooling, View


def shared_ids(tokens: TokenRows, rows: np.ndarray) -> np.ndarray:
    """The longest run of ids `[p]` with which all of some rows begin; it never reaches into a sentence."""
    ids = [tokens[row] for row in rows]
    return ids[0][: common_prefix_length(ids, int(tokens.start[rows].min()))]


def shared_prefix(engine: PrefillEngine, tokens: TokenRows, rows: np.ndarray) -> Prefix:
    """Compute what all of a shard's rows begin with."""
    return engine.prefix(shared_ids(tokens, rows))


Pooled = dict[View, torch.Tensor | list[torch.Tensor]]
"""By view, float32 on the CPU: `[n, d]`, or for the tokens view a `[t, d]` for each row."""


def plan_rows(
    engine: PrefillEngine, tokens: TokenRows, rows: np.ndarray, prefix_length: int, token_budget: int
) -> list[Batch]:
    """The batches of some rows behind what all of them begin with; nothing is computed."""
    return plan_batches(_behind(tokens, rows, prefix_length), token_budget, share=engine.shares)


def plan_shard(
    tokens: TokenRows, rows: np.ndarray, token_budget: int, *, share: bool
) -> tuple[np.ndarray, list[Batch]]:
    """What all of some rows begin with, and their batches behind it; nothing is computed.

    Args:
        share: whether the backbone can share what rows begin with (`PrefillEngine.shares`).
    """
    shared = shared_ids(tokens, rows)[: None if share else 0]
    return shared, plan_batches(_behind(tokens, rows, len(shared)), token_budget, share=share)


def count_computed(shared: np.ndarray, batches: Sequence[Batch]) -> int:
    """The tokens that a plan of `plan_shard` computes, padding included."""
    return len(shared) + sum(batch.ids.size for batch in batches)


def _behind(tokens: TokenRows, rows: np.ndarray, prefix_length: int) -> list[np.ndarray]:
    return [tokens[row][prefix_length:] for row in rows]


def compute_rows(
    engine: PrefillEngine,
    tokens: TokenRows,
    rows: np.ndarray,
    prefix: Prefix,
    views: Sequence[View],
    batches: Iterable[Batch],
    advance: Callable[[int, int], None] = lambda rows, tokens: None,
) -> Pooled:
    """Compute all views of some rows.

    Args:
        rows: `[n]` int64, numbers of rows in the split; a shard's, or others.
        prefix: what all of them begin with.
        views: with layers that the engine computes.
        batches: of `plan_rows`, behind this prefix.
        advance: told of rows, and of their tokens from the sentence on, as they are done.

    Returns:
        the views' vectors, in the order of `rows`.
    """
    start, stop = tokens.start[rows] - len(prefix), tokens.stop[rows] - len(prefix)
    own_lengths = tokens.own_lengths[rows]
    hidden_size = engine.backbone.hidden_size
    pooled: Pooled = {
        view: [torch.empty(0)] * len(rows) if view.pooling == "tokens" else torch.empty(len(rows), hidden_size)
        for view in views
    }

    def keep(batch: Batch, vectors: Mapping[View, torch.Tensor]) -> None:
        for view, values in vectors.items():
            store = pooled[view]
            if isinstance(store, torch.Tensor):
                store[torch.from_numpy(batch.rows)] = values
            else:
                for row, states in zip(batch.rows, torch.split(values, own_lengths[batch.rows].tolist()), strict=True):
                    store[row] = states
        advance(len(batch.rows), int(own_lengths[batch.rows].sum()))

    arriving: tuple[Batch, OnTheWay] | None = None
    for batch in batches:
        vectors: dict[View, torch.Tensor] = {}

        def take(
            layer: int, states: torch.Tensor, batch: Batch = batch, vectors: dict[View, torch.Tensor] = vectors
        ) -> None:
            for view in views:
                if view.layer == layer:
                    vectors[view] = pool(states, batch, view.pooling, start[batch.rows], stop[batch.rows])

        engine.run(prefix, batch, take)
        leaving = batch, OnTheWay(vectors)
        if arriving is not None:
            keep(arriving[0], arriving[1].arrived())
        arriving = leaving
    if arriving is not None:
        keep(arriving[0], arriving[1].arrived())
    return pooled


class OnTheWay:
    """Tensors on their way to the CPU, while the GPU goes on; those that are there stay there.

    Args:
        tensors: by view, all of one device.
    """

    def __init__(self, tensors: Mapping[View, torch.Tensor]) -> None:
        self._there = {view: self._sent(tensor) for view, tensor in tensors.items()}
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        self._sent_all = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        if self._sent_all is not None:
            self._sent_all.record()

    @staticmethod
    def _sent(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_cuda:
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)

    def arrived(self) -> dict[View, torch.Tensor]:
        """The tensors on the CPU, as soon as all of them are there."""
        if self._sent_all is not None:
            self._sent_all.synchronize()
        return self._there


def to_shard_data(
    pooled: torch.Tensor | Sequence[torch.Tensor], pooling: Pooling, storage_dtype: str, *, where: str
) -> ShardData:
    """Stack a shard's rows in the storage dtype.

    Raises:
        CacheError: a finite value does not fit into float16.
    """
    offsets = None
    if pooling == "tokens":
        offsets = np.zeros(len(pooled) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in pooled], out=offsets[1:])
    states = pooled if isinstance(pooled, torch.Tensor) else torch.cat(list(pooled))
    stored = states.to(getattr(torch, storage_dtype))
    if storage_dtype == "float16" and bool((stored.isinf() & states.isfinite()).any()):
        raise CacheError(
            "float16 cannot hold these hidden states",
            where=where,
            expected="values up to 65504",
            found=f"{float(states.abs().max()):.6g}",
            remedy="use --storage-dtype float32 or bfloat16",
        )
    bits = stored.view(torch.int16) if storage_dtype == "bfloat16" else stored
    return ShardData(bits.numpy().view(RAW[storage_dtype]), offsets, storage_dtype)


def index_of(part: Part, pooling: Pooling) -> pa.Table:
    """The index of a shard under one pooling."""
    tokens = part.tokens
    start, stop, length = tokens.start, tokens.stop, tokens.lengths
    position, n_pooled = {
        "last": (length - 1, np.ones_like(length)),
        "first": (start, np.ones_like(length)),
        "mean": (start, stop - start),
        "tokens": (start, length - start),
    }[pooling]
    columns = {
        **label_columns(part.examples),
        "row": part.rows,
        "text": pa.array(part.examples.texts, pa.string()),
        "n_tokens": length.astype(np.int32),
        "position": position.astype(np.int32),
        "n_pooled": n_pooled.astype(np.int32),
        "token_id": tokens.ids[tokens.offsets[:-1] + position],
    }
    return pa.table({name: columns[name] for name in SCHEMA.names})
