"""Canaries of features that are there already, computed again with the backbone they came from."""

from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.facts import read_facts, resolve_device, resolve_dtype
from pipeline.backbone.kernels import exact_float32
from pipeline.backbone.load import load_backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import load_tokenizer, tokenize
from pipeline.cache import FeatureSet
from pipeline.cache.identity import difference_table, differences, flatten
from pipeline.cache.verify import Damage, Report
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError
from pipeline.extract.canaries import Recomputed, tolerance_for
from pipeline.extract.shard_pass import shared_prefix
from pipeline.progress import say
from pipeline.views import View, check_pooling

OF_THE_BACKBONE = ("weights", "architecture", "quantization", "tokenizer")


def recheck(feature_sets: list[FeatureSet], config: BackboneConfig) -> list[Report]:
    """Compute the canaries of feature sets again and compare them with what is stored.

    Raises:
        BackboneError: the backbone is not the one that a feature set came from.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.compute_dtype, device)
    source = find_backbone(config)
    facts = read_facts(source, config, dtype)
    here = flatten({name: getattr(facts, name) for name in OF_THE_BACKBONE})
    for feature_set in feature_sets:
        there = flatten(feature_set.manifest.identity.to_dict())
        if differ := differences(here, there):
            raise BackboneError(
                f"{feature_set.manifest.name} did not come from this backbone, which differs in\n"
                + difference_table(differ),
                remedy="name its own with --backbone, --quantization and --compute-dtype, or name the feature sets to "
                "look at",
            )
    tokenizer = load_tokenizer(source.folder)
    with exact_float32(device):
        backbone = load_backbone(source, config, device=device, compute_dtype=dtype)
        reports = []
        for feature_set in feature_sets:
            identity = feature_set.manifest.identity
            tokens = tokenize(
                tokenizer,
                feature_set.texts,
                identity.prompt,
                max_length=identity.max_length,
                truncation=identity.truncation,
                special_tokens=identity.special_tokens,
                origin=str(feature_set.folder),
            )
            engine = PrefillEngine(backbone, [identity.layer])
            view = View(identity.layer, check_pooling(identity.pooling))
            damages = []
            for number, data in enumerate(feature_set.shards):
                first = number * feature_set.manifest.shard_rows
                rows = range(first, first + data.rows)
                again = Recomputed(engine, tokens, rows, identity, shared_prefix(engine, tokens, rows))
                drift = again.drift(view, data, first, tolerance_for(identity))
                if not drift.is_tolerable:
                    worst = max(drift.alone_relative, drift.shuffled_relative)
                    problem = f"rows computed again differ by {worst:.3g}, more than {drift.tolerance:g}"
                    damages.append(Damage(number, f"shard-{number:05d}.h5", problem))
            say(f"{feature_set.manifest.name}: {feature_set.manifest.passport['canaries']} canaries computed again")
            reports.append(Report(feature_set.folder, True, feature_set.manifest.shards, tuple(damages)))
    return reports
