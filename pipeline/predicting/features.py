"""What heads read of new sentences: hidden states by stage one's own machinery, in memory, in the same numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.facts import check_unchanged, read_facts, resolve_device
from pipeline.backbone.load import load_backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import OF_A_RUN, TokenRows, load_tokenizer, tokenize
from pipeline.backbone.tree import NO_PREFIX, Prefix
from pipeline.cache.identity import Identity, difference_table, differences, flatten
from pipeline.cache.shard import ShardData, to_float32
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError, RunError
from pipeline.extract.probe import CANDIDATES, find_token_budget
from pipeline.extract.shard_pass import compute_rows, plan_shard, to_shard_data
from pipeline.kernels import exact_float32
from pipeline.predict_config import PredictConfig
from pipeline.predicting.sentences import Sentences
from pipeline.progress import say
from pipeline.views import View, check_pooling

COMMIT = "commit:"
"""With which the digest of weights from the Hub begins; the rest is the revision."""
OF_TOKENS = ("prompt", "max_length", "truncation", "special_tokens")
"""Fields of an identity that decide a sentence's tokens."""


def _backbone_of(identity: Identity) -> dict[str, Any]:
    """The fields that a backbone's facts have too."""
    names = ("weights", "architecture", "adapter", "quantization", "tokenizer")
    return flatten({name: getattr(identity, name) for name in names})


@dataclass
class TextFeatures:
    """Computes views of sentences with the backbone that a run's features came from.

    Args:
        tokenizer: the backbone's.
        engine: with all layers that are wanted.
        device: where it computes.
        truncation: cut sentences beyond the features' limit, also where stage one refused them.
    """

    tokenizer: Any
    engine: PrefillEngine
    device: str
    truncation: bool = False
    _prefix: Prefix = field(default=NO_PREFIX, repr=False)

    @classmethod
    def open(cls, where: Path, backbone: str, views: Sequence[Identity], asked: PredictConfig) -> "TextFeatures":
        """Find and load the backbone of some views, and check that it is that one.

        Args:
            where: the run, for errors.
            backbone: what the run calls it.
            views: all that will be wanted.

        Raises:
            RunError: the views are of several backbones.
            BackboneError: the backbone or its adapter is not here, or it is another one.
        """
        wanted = _backbone_of(views[0])
        if any(_backbone_of(view) != wanted for view in views):
            raise RunError(
                "the run's tasks read different backbones", where=where, remedy="name one of its tasks with --task"
            )
        config = _config(where, backbone, views[0], asked)
        device, dtype = resolve_device(config.device), config.compute_dtype
        try:
            source = find_backbone(config)
        except BackboneError as error:
            if asked.backbone is not None or error.expected is None:
                raise
            raise BackboneError(
                error.what,
                where=error.where,
                expected=error.expected,
                found=error.found,
                remedy="name the run's backbone, a folder or a Hub id, with --backbone",
            ) from error
        facts = read_facts(source, config, dtype)
        if differ := differences(wanted, flatten(facts.of_identity)):
            raise BackboneError(
                "the backbone is not the one that the run's features came from, and differs in\n"
                + difference_table(differ, ("run", "here")),
                where=f"{where}; {source.folder}",
                remedy="name the run's own backbone with --backbone"
                + (", and the adapter that was merged into it with --adapter" if wanted["adapter"] else ""),
            )
        tokenizer = load_tokenizer(source.folder)
        with exact_float32(device):
            loaded = load_backbone(source, config, device=device, compute_dtype=dtype, facts=facts)
            check_unchanged(facts, source, config, dtype)
            say(f"{source.name}: {loaded.note}, on {device}")
            return cls(
                tokenizer, PrefillEngine(loaded, sorted({view.layer for view in views})), device, asked.truncation
            )

    def read(self, views: Sequence[Identity], sentences: Sentences, advance: Callable[[int], None]) -> list[Any]:
        """Compute views of sentences as stage one computes a shard of them.

        Args:
            advance: told of sentences as they are done.

        Returns:
            in the order of the views, `[n, d]` float32 each, or of a tokens view `n` arrays `[t, d]`.

        Raises:
            SentenceError: a sentence has no token, or too many.
            CacheError: a value does not fit into the features' storage dtype.
            BackboneError: a value is not finite.
        """
        found: dict[str, Any] = {}
        alike: dict[tuple[Any, ...], list[Identity]] = {}
        for view in views:
            alike.setdefault(tuple(getattr(view, name) for name in OF_TOKENS), []).append(view)
        with exact_float32(self.device):
            for of_tokens in alike.values():
                computed = self._compute(of_tokens, sentences, advance)
                found |= {view.fingerprint: values for view, values in zip(of_tokens, computed, strict=True)}
                advance = _nobody  # each sentence counts once
        return [found[view.fingerprint] for view in views]

    def _compute(self, views: Sequence[Identity], sentences: Sentences, advance: Callable[[int], None]) -> list[Any]:
        first = views[0]
        tokens = tokenize(
            self.tokenizer,
            sentences.texts,
            first.prompt,
            max_length=first.max_length,
            truncation=first.truncation or self.truncation,
            special_tokens=first.special_tokens,
            origin=sentences.origin,
            lines=sentences.lines,
            remedy=OF_A_RUN,
        )
        tokens.say_if_cut(sentences.origin, first.max_length)
        rows = np.arange(len(tokens))
        shared, batches = plan_shard(tokens, rows, self._token_budget(tokens), share=self.engine.shares)
        asked = [View(view.layer, check_pooling(view.pooling)) for view in views]
        pooled = compute_rows(
            self.engine,
            tokens,
            rows,
            self._behind(shared),
            tuple(dict.fromkeys(asked)),
            batches,
            lambda rows, tokens: advance(rows),
        )
        return [_as_stored(pooled[view], identity, sentences) for view, identity in zip(asked, views, strict=True)]

    def _token_budget(self, tokens: TokenRows) -> int:
        """As stage one has it, except that nothing is probed for what is one batch whatever the budget."""
        least = min(CANDIDATES[self.engine.backbone.device.type])
        return least if tokens.lengths.sum() <= least // 2 else find_token_budget(self.engine)

    def _behind(self, ids: np.ndarray) -> Prefix:
        """What all sentences begin with, computed anew only where it is not what the last ones began with."""
        if not np.array_equal(self._prefix.ids, ids):
            self._prefix = self.engine.prefix(ids)
        return self._prefix


def _config(where: Path, backbone: str, view: Identity, asked: PredictConfig) -> BackboneConfig:
    if (view.adapter is None) != (asked.adapter is None):
        raise BackboneError(
            "the run's features are of a backbone with an adapter merged into it"
            if view.adapter
            else "the run's features are of the plain backbone",
            where=where,
            expected=f"--adapter with the folder of {view.adapter}" if view.adapter else "no --adapter",
            found=asked.adapter or "no --adapter",
        )
    name = asked.backbone or backbone
    is_of_hub = view.weights.startswith(COMMIT) and not Path(name).expanduser().is_dir()
    return BackboneConfig(
        backbone=name,
        revision=view.weights.removeprefix(COMMIT) if is_of_hub else None,
        adapter=asked.adapter,
        quantization=view.quantization["type"],
        compute_dtype=view.quantization["compute_dtype"],
        device=asked.device,
        models_dir=asked.models_dir,
    )


def _as_stored(
    pooled: torch.Tensor | list[torch.Tensor], identity: Identity, sentences: Sentences
) -> np.ndarray | list[np.ndarray]:
    """A view as it would come out of the cache: rounded to the storage dtype, and every value finite."""
    data: ShardData = to_shard_data(
        pooled, check_pooling(identity.pooling), identity.storage_dtype, where=sentences.origin
    )
    values = np.asarray(to_float32(data.hidden_states, data.dtype), dtype=np.float32)
    offsets = np.arange(len(values) + 1) if data.offsets is None else data.offsets
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        row = int(np.searchsorted(offsets, place, side="right")) - 1
        raise BackboneError(
            "a hidden state is not finite",
            where=f"{sentences.origin}, row {sentences.lines[row]}",
            found=repr(sentences.texts[row])[:120],
        )
    return values if data.offsets is None else np.split(values, offsets[1:-1])


def _nobody(sentences: int) -> None:
    pass
