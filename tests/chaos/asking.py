"""Everything that a feature set can be asked, and what came of it: a digest of the answer, a refusal, or neither."""

import hashlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.errors import PipelineError

REFUSED = "refused: "
FAILED = "failed: "


def _batches(feature_set: FeatureSet) -> Iterator[Any]:
    for X, y, rows in feature_set.batches(7, shuffle=True, seed=3, block_rows=9):
        yield from X
        yield y
        yield rows


def _torch(feature_set: FeatureSet) -> np.ndarray:
    import torch

    return feature_set.to_torch().view(torch.uint8).numpy()


OF_ANY: dict[str, Callable[[FeatureSet], Any]] = {
    "y": lambda feature_set: feature_set.y,
    "texts": lambda feature_set: feature_set.texts,
    "sample_ids": lambda feature_set: feature_set.sample_ids,
    "index": lambda feature_set: feature_set.index,
    "batches": _batches,
    "shards": lambda feature_set: [
        part for shard in feature_set.shards for part in (shard.hidden_states, shard.offsets)
    ],
    "tables": lambda feature_set: list(feature_set.tables()),
}
OF_POOLED = {
    "X": lambda feature_set: feature_set.X,
    "take": lambda feature_set: feature_set.take(range(0, len(feature_set), 3)),
    "to_torch": _torch,
}
OF_TOKENS = {"tokens": lambda feature_set: [feature_set.tokens(row) for row in range(len(feature_set))]}


def ask_everything(folder: Path) -> dict[str, str]:
    """Ask the feature set in `folder` for everything, by its place and through its cache.

    Each question is asked of a set that was opened for it alone, as another process would.

    Returns:
        by question a digest of the answer, `refused: …` where that was a `PipelineError`, `failed: …` for all else.
    """
    cache = FeatureCache(folder.parents[2])
    pooling = folder.name.split("-")[-2]
    found = {
        "by name": _answer(lambda: cache.open_folder(folder.name).X if pooling != "tokens" else None),
        "by identity": _answer(
            lambda: cache.open(folder.parent.parent.name, folder.parent.name, pooling=pooling, layer=_layer(folder)).y
        ),
        "verified": _answer(lambda: FeatureSet(folder, verify=True).y),
    }
    for name, question in {**OF_ANY, **(OF_TOKENS if pooling == "tokens" else OF_POOLED)}.items():
        found[name] = _answer(lambda question=question: question(FeatureSet(folder)))
    return found


def _layer(folder: Path) -> int:
    return int(folder.name.split("-")[-3].removeprefix("L"))


def _answer(question: Callable[[], Any]) -> str:
    digest = hashlib.sha256()
    try:
        for part in _parts(question()):
            digest.update(part)
    except PipelineError as error:
        return f"{REFUSED}{type(error).__name__}: {error}"
    except Exception:
        return FAILED + traceback.format_exc(limit=-3)
    return digest.hexdigest()


def _parts(answer: Any) -> Iterator[bytes]:
    if isinstance(answer, np.ndarray):
        yield f"{answer.dtype} {answer.shape}".encode()
        yield answer.tobytes()
    elif isinstance(answer, pa.Table):
        yield repr(answer.to_pydict()).encode()
    elif answer is None or isinstance(answer, (str, int)):
        yield repr(answer).encode()
    else:
        for part in answer:
            yield from _parts(part)
