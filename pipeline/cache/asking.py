"""What was asked for against what is there: in what they differ, and how to say which of several is meant."""

import contextlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from pipeline.cache.identity import ABSENT, Difference, differences, flatten
from pipeline.cache.inventory import LEAST_DIGITS
from pipeline.cache.manifest import Manifest
from pipeline.errors import ConfigError
from pipeline.views import View, check_pooling, parse_layer, resolve_layer


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {"backbone": manifest.backbone, "source": manifest.source, **flatten(manifest.identity.to_dict())}


def as_layer(value: Any) -> int | float | str:
    """A layer as it is written: NumPy's numbers are numbers too, and a number may be text."""
    if isinstance(value, str):
        return parse_layer(value)
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def differences_of(wanted: Mapping[str, Any], manifest: Manifest, *, is_full: bool = False) -> list[Difference]:
    """In what a feature set differs from what is wanted; a full identity also where it lacks what the set has."""
    resolved = dict(wanted)
    if "layer" in resolved:
        with contextlib.suppress(ConfigError):  # a backbone without such a layer is just not the one that is wanted
            resolved["layer"] = resolve_layer(resolved["layer"], manifest.identity.architecture["num_hidden_layers"])
    facts = _facts(manifest)
    if resolved.get("source") in manifest.sources:
        facts["source"] = resolved["source"]
    if _begins(resolved.get("adapter"), facts["adapter"]):
        resolved["adapter"] = facts["adapter"]
    left_out = flatten(manifest.identity.to_dict()).keys() - resolved.keys() if is_full else ()
    resolved |= dict.fromkeys(sorted(left_out), ABSENT)
    return differences(resolved, facts)


def layers_apart(differ: Sequence[Difference]) -> int:
    """How far a layer is from the wanted one: of two sets that differ in as many fields, the nearer is the nearest."""
    layers = [(d.wanted, d.found) for d in differ if d.field == "layer"]
    return sum(abs(wanted - found) for wanted, found in layers if isinstance(wanted, int) and isinstance(found, int))


def _begins(wanted: Any, digest: str | None) -> bool:
    """Whether `wanted` is the beginning of a digest that tells it from others."""
    if not isinstance(wanted, str) or digest is None:
        return False
    shown = wanted.removeprefix("sha256:")
    return len(shown) >= LEAST_DIGITS and digest.removeprefix("sha256:").startswith(shown)


OPTIONS = {
    "backbone": "--backbone",
    "source": "--data",
    "quantization.type": "--quantization",
    "adapter": "--adapter",
    "prompt": "--prompt",
}
"""Fields that the command line has options for; any other is a `--where`."""


def asking_for(differ: Iterable[Difference]) -> str:
    """The options that ask for what was found, as the end of a sentence; nothing where none has an option."""
    options = [f"{OPTIONS[each.field]}{_value(each)}" for each in differ if each.field in OPTIONS]
    return f" with {', '.join(options)}" if options else ""


def _value(difference: Difference) -> str:
    """A value that an option takes as it stands in an identity, behind a space; nothing where it takes another."""
    if difference.field in ("adapter", "prompt", "backbone"):
        return ""
    values = [value for value in str(difference.found).split("+") if value != "files"]  # sources that agree are joined
    return f" {shlex.quote(values[0])}" if values else ""


def choosing(manifest: Manifest, split: str, fields: Sequence[str]) -> str:
    """The options that ask for this feature set and not for one that differs in any of `fields`."""
    facts = _facts(manifest)
    view = View(manifest.identity.layer, check_pooling(manifest.identity.pooling))
    options = {name: f"{option} {shlex.quote(str(facts[name]))}" for name, option in OPTIONS.items()}
    options |= dict.fromkeys(("layer", "pooling"), f"--views {view}")
    options |= {
        name: f"--where {shlex.quote(f'{split}.{name}={json.dumps(facts.get(name), ensure_ascii=False)}')}"
        for name in fields
        if name not in options
    }
    return " ".join(dict.fromkeys(options[name] for name in fields))


def in_python(manifest: Manifest, fields: Sequence[str]) -> str:
    """How a program asks for this feature set and not for one that differs in any of `fields`."""
    own = flatten(manifest.identity.to_dict())
    wanted = {name: own[name] for name in fields if name in own}
    return f" (in Python: identity={wanted!r})" if wanted else ""


def telling_apart(manifests: list[Manifest]) -> list[str]:
    """The fields in which feature sets differ, sorted."""
    facts = [_facts(manifest) for manifest in manifests]
    names = sorted(set().union(*facts))
    return [name for name in names if len({repr(fact.get(name)) for fact in facts}) > 1]
