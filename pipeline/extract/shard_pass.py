"""One shard through the backbone: batches of its own rows alone, pooled at once into every wanted view."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch

from pipeline.backbone.pooling import pool
from pipeline.backbone.prefill import PrefillEngine, common_prefix_length
from pipeline.backbone.shared_prefix import Prefix
from pipeline.backbone.tokens import TokenRows
from pipeline.cache.index import SCHEMA
from pipeline.cache.shard import RAW, ShardData
from pipeline.errors import CacheError
from pipeline.extract.job import label_columns
from pipeline.extract.plan import plan_batches
from pipeline.tasks.examples import Examples
from pipeline.views import Pooling, View


def shared_prefix(engine: PrefillEngine, tokens: TokenRows, rows: range) -> Prefix:
    """Compute the longest run of ids with which all of a shard's rows begin; it never reaches into a sentence."""
    ids = [tokens[row] for row in rows]
    return engine.prefix(ids[0][: common_prefix_length(ids, int(tokens.start[rows.start : rows.stop].min()))])


def compute_shard(
    engine: PrefillEngine,
    tokens: TokenRows,
    rows: range,
    prefix: Prefix,
    views: Sequence[View],
    *,
    token_budget: int,
    advance: Callable[[int, int], None],
) -> dict[View, list[torch.Tensor]]:
    """Compute all views of a shard's rows.

    Args:
        rows: the shard's rows, in the split's order; they are batched by length.
        prefix: what all of them begin with.
        views: with layers that the engine computes.
        advance: told of rows, and of their tokens from the sentence on, as they are done.

    Returns:
        by view, one float32 tensor a row, `[d]` or `[t, d]`, in the order of `rows`.
    """
    ids = [tokens[row] for row in rows]
    span = slice(rows.start, rows.stop)
    start, stop, length = tokens.start[span], tokens.stop[span], tokens.lengths[span]
    start, stop, length = start - len(prefix), stop - len(prefix), length - len(prefix)
    device = engine.backbone.device
    pooled: dict[View, list[torch.Tensor]] = {view: [torch.empty(0)] * len(ids) for view in views}
    for batch in plan_batches(length, token_budget):
        states = engine.hidden_states(prefix, [ids[row] for row in batch])
        place = [torch.from_numpy(values[batch]).to(device) for values in (start, stop, length)]
        for view in views:
            for row, vector in zip(batch, pool(states[int(view.layer)], view.pooling, *place), strict=True):
                pooled[view][row] = vector
        advance(len(batch), int((length - start)[batch].sum()))
    return pooled


def to_shard_data(pooled: Sequence[torch.Tensor], pooling: Pooling, storage_dtype: str, *, where: str) -> ShardData:
    """Stack a shard's rows in the storage dtype.

    Raises:
        CacheError: a finite value does not fit into float16.
    """
    offsets = None
    if pooling == "tokens":
        offsets = np.zeros(len(pooled) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in pooled], out=offsets[1:])
    states = torch.cat(list(pooled)) if pooling == "tokens" else torch.stack(list(pooled))
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


def index_of(examples: Examples, tokens: TokenRows, rows: range, pooling: Pooling) -> pa.Table:
    """The index of a shard under one pooling."""
    span = slice(rows.start, rows.stop)
    start, stop, length = tokens.start[span], tokens.stop[span], tokens.lengths[span]
    position, n_pooled = {
        "last": (length - 1, np.ones_like(length)),
        "first": (start, np.ones_like(length)),
        "mean": (start, stop - start),
        "tokens": (start, length - start),
    }[pooling]
    columns = {
        **{name: values[span] for name, values in label_columns(examples).items()},
        "row": np.arange(rows.start, rows.stop, dtype=np.int64),
        "text": pa.array(examples.texts[span], pa.string()),
        "n_tokens": length.astype(np.int32),
        "position": position.astype(np.int32),
        "n_pooled": n_pooled.astype(np.int32),
        "token_id": tokens.ids[tokens.offsets[span] + position],
    }
    return pa.table({name: columns[name] for name in SCHEMA.names})
