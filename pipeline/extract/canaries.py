"""Canaries: a few rows are computed again, alone and in another batch, and compared with what is about to be stored."""

from collections.abc import Sequence

import numpy as np

from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import TokenRows
from pipeline.backbone.tree import NO_PREFIX, Prefix
from pipeline.cache.canary_rows import draw_canaries, draw_rows
from pipeline.cache.identity import Identity
from pipeline.cache.passport import Drift
from pipeline.cache.shard import ShardData, to_float32
from pipeline.extract.shard_pass import Pooled, compute_rows, plan_rows
from pipeline.views import View

COMPANIONS = 8
"""Rows that another batch has at least: canaries alone would have no neighbours to depend on."""
SHUFFLED_TOKENS = 512


class Recomputed:
    """The canaries among some rows of a split, computed again in both ways.

    Alone, a row goes through the backbone whole and by itself, as transformers does it: neither a prefix nor a tree
    takes part.

    Args:
        rows: a shard's rows of the split, `[k]` int64, ascending.
        tokens: of these rows.
        of: how many rows the split has.
        prefix: what the shard's rows share.
        views: what is compared.
    """

    def __init__(
        self,
        engine: PrefillEngine,
        tokens: TokenRows,
        rows: np.ndarray,
        of: int,
        identity: Identity,
        prefix: Prefix,
        views: Sequence[View],
    ) -> None:
        drawn = draw_canaries(identity, of)
        self.rows = drawn[np.isin(drawn, rows)]
        self._places = np.searchsorted(rows, self.rows)
        self._alone = [
            compute_rows(engine, tokens, place, NO_PREFIX, views, plan_rows(engine, tokens, place, 0, 1))
            for place in self._places[:, None]
        ]
        self._together: Pooled = {}
        if len(self.rows):
            companions = np.searchsorted(rows, draw_rows(identity, rows, COMPANIONS))
            batch = np.concatenate((self._places, companions[~np.isin(companions, self._places)]))
            batches = plan_rows(engine, tokens, batch, len(prefix), SHUFFLED_TOKENS)
            self._together = compute_rows(engine, tokens, batch, prefix, views, batches)

    def drift(self, view: View, data: ShardData, tolerance: float) -> Drift:
        """How far a shard's stored rows are from the recomputed ones.

        Args:
            data: the shard under `view`, as stored.
        """
        if not len(self.rows):
            return Drift(tolerance=tolerance)
        stored = [_row(data, int(place)) for place in self._places]
        alone = [pooled[view][0].numpy() for pooled in self._alone]
        together = [vector.numpy() for vector in self._together[view][: len(self.rows)]]
        return Drift(len(self.rows), *_compare(stored, alone), *_compare(stored, together), tolerance=tolerance)


def _row(data: ShardData, place: int) -> np.ndarray:
    part = slice(place, place + 1) if data.offsets is None else slice(data.offsets[place], data.offsets[place + 1])
    return to_float32(data.hidden_states[part], data.dtype)


def _compare(stored: Sequence[np.ndarray], again: Sequence[np.ndarray]) -> tuple[float, float]:
    """The largest relative difference and the smallest cosine, to three digits."""
    relative, cosine = 0.0, 1.0
    for one, other in zip(stored, again, strict=True):
        a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        if not np.isfinite(b).all():
            return float("inf"), -1.0
        if not a.size:
            continue
        length, other_length = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        relative = max(relative, float(np.linalg.norm(a - b)) / max(other_length, 1e-30))
        cosine = min(cosine, float(a @ b) / max(length * other_length, 1e-30))
    return float(f"{relative:.3g}"), float(f"{min(cosine, 1.0):.9g}")
