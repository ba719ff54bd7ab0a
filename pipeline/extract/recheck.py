"""Canaries of features that are there already, computed again with the backbone they came from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbone.known import KnownBackbone
from pipeline.backbone.load import Backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import load_tokenizer
from pipeline.cache import FeatureSet
from pipeline.cache.canary_rows import tolerance_for
from pipeline.cache.identity import difference_table, differences, flatten
from pipeline.cache.manifest import MANIFEST, Manifest
from pipeline.cache.verify import Damage, Report, verify_feature_set
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError, DamagedFeatureSet
from pipeline.extract.canaries import Recomputed
from pipeline.extract.part import tokenize_as
from pipeline.extract.shard_pass import shared_prefix
from pipeline.kernels import exact_float32
from pipeline.progress import say
from pipeline.views import View, check_pooling


def recheck(folders: list[Path], config: BackboneConfig) -> list[Report]:
    """Compute the canaries of feature sets again and compare them with what is stored.

    Sets of another backbone are named and left out.

    Returns:
        a report for each set that came from this backbone.

    Raises:
        BackboneError: none of them did.
    """
    known = KnownBackbone.find(config)
    here = flatten(known.facts.of_identity)
    own = []
    for folder in folders:
        there = flatten(Manifest.read(folder).identity.to_dict())
        if differ := differences(here, there):
            foreign = BackboneError(
                f"{folder.name} did not come from this backbone, which differs in\n" + difference_table(differ),
                remedy="name its own with --backbone, --adapter, --quantization and --compute-dtype",
            )
            if len(folders) == 1:
                raise foreign
            say(f"left out: {foreign}")
        else:
            own.append(folder)
    if folders and not own:
        raise BackboneError(
            "no feature set that is to be looked at came from this backbone",
            remedy="name theirs with --backbone, --adapter, --quantization and --compute-dtype",
        )
    if not own:
        return []
    tokenizer = load_tokenizer(known.source.folder)
    with exact_float32(known.device):
        backbone = known.load()
        return [_recheck(folder, backbone, tokenizer) for folder in own]


def _recheck(folder: Path, backbone: Backbone, tokenizer: Any) -> Report:
    try:
        feature_set = FeatureSet(folder)
        damages = tuple(_drifting(feature_set, backbone, tokenizer))
    except DamagedFeatureSet as error:
        report = verify_feature_set(folder, deep=True)
        return report if report.damages else Report(folder, True, 0, (Damage(None, MANIFEST, error.what),))
    say(f"{folder.name}: {feature_set.manifest.passport['canaries']} canaries computed again")
    return Report(folder, True, feature_set.manifest.shards, damages)


def _drifting(feature_set: FeatureSet, backbone: Backbone, tokenizer: Any) -> Iterator[Damage]:
    identity = feature_set.manifest.identity
    tokens = tokenize_as(identity, tokenizer, feature_set.texts, str(feature_set.folder))
    engine = PrefillEngine(backbone, [identity.layer])
    view = View(identity.layer, check_pooling(identity.pooling))
    for number, (data, rows) in enumerate(zip(feature_set.shards, feature_set.rows_of_shards, strict=True)):
        of_shard = tokens.take(rows)
        prefix = shared_prefix(engine, of_shard, np.arange(len(rows)))
        again = Recomputed(engine, of_shard, rows, len(tokens), identity, prefix, [view])
        drift = again.drift(view, data, tolerance_for(identity))
        if not drift.is_tolerable:
            worst = max(drift.alone_relative, drift.shuffled_relative)
            problem = f"rows computed again differ by {worst:.3g}, more than {drift.tolerance:g}"
            yield Damage(number, f"shard-{number:05d}.h5", problem)
