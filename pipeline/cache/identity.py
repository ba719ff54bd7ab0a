"""A feature's identity: every fact that can change its value, as a record with a fingerprint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.digests import sha256_of_record
from pipeline.errors import CacheError
from pipeline.views import POOLINGS

Record = Mapping[str, Any]
LAYER_NORMS = ("final", "none")


@dataclass(frozen=True)
class Identity:
    """What decides a feature's value, and nothing else: labels, versions, devices and hosts are not in it.

    Args:
        weights: digest of the backbone's weights.
        architecture: model type, blocks, hidden size, digest of its config.
        adapter: digest of an adapter's weights, or None.
        quantization: type, compute dtype and what else decides the numbers.
        tokenizer: digest of the tokenizer's files.
        prompt: the text around each sentence.
        special_tokens: whether the tokenizer added its own.
        max_length: the most tokens a prompted sentence may have.
        truncation: whether longer ones were cut.
        layer: as transformers' `hidden_states` counts, non-negative.
        layer_norm: `final` where the last layer is taken after the final norm, else `none`.
        pooling: last, mean, first or tokens.
        storage_dtype: the numbers in the shards.
        texts: digest of the sentences in order.
    """

    weights: str
    architecture: dict[str, Any]
    adapter: str | None
    quantization: dict[str, Any]
    tokenizer: str
    prompt: str
    special_tokens: bool
    max_length: int
    truncation: bool
    layer: int
    layer_norm: str
    pooling: str
    storage_dtype: str
    texts: str

    def to_dict(self) -> dict[str, Any]:
        """The identity as a JSON object."""
        return asdict(self)

    def without_texts(self) -> dict[str, Any]:
        """All that decides the features of any other sentences, as a JSON object."""
        return {name: value for name, value in self.to_dict().items() if name != "texts"}

    @classmethod
    def from_dict(cls, record: Any) -> "Identity":
        """Read an identity out of a manifest.

        Raises:
            CacheError: a field is missing, unknown or of the wrong type, or means no view of the backbone.
        """
        expected = {field.name for field in fields(cls)}
        if not isinstance(record, dict) or set(record) != expected:
            raise CacheError(
                "an identity has the wrong fields",
                expected=", ".join(sorted(expected)),
                found=", ".join(sorted(map(str, record))) if isinstance(record, dict) else repr(record),
            )
        kinds = {"architecture": dict, "quantization": dict, "special_tokens": bool, "truncation": bool}
        kinds |= {"max_length": int, "layer": int}
        for name, value in record.items():
            kind = kinds.get(name, str)
            if name == "adapter" and value is None:
                continue
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise CacheError("an identity's field is wrong", where=name, expected=kind.__name__, found=repr(value))
        identity = cls(**record)
        identity._check_view()
        return identity

    def _check_view(self) -> None:
        blocks = self.architecture.get("num_hidden_layers")
        last = blocks if isinstance(blocks, int) and not isinstance(blocks, bool) else 0
        for field, holds, expected, found in (
            ("architecture.num_hidden_layers", last >= 1, "a whole number from 1", blocks),
            ("layer", 0 <= self.layer <= last, f"0 to {last}", self.layer),
            ("layer_norm", self.layer_norm in LAYER_NORMS, " | ".join(LAYER_NORMS), self.layer_norm),
            ("pooling", self.pooling in POOLINGS, " | ".join(POOLINGS), self.pooling),
        ):
            if not holds:
                raise CacheError("an identity's field is wrong", where=field, expected=expected, found=repr(found))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON (sorted keys, no white space, UTF-8), 64 hex digits."""
        return sha256_of_record(self.to_dict())


def flatten(record: Record, prefix: str = "") -> dict[str, Any]:
    """A nested record as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One field in which two records differ."""

    field: str
    wanted: Any
    found: Any


def differences(wanted: Record, found: Record) -> list[Difference]:
    """The fields of `wanted` that `found` has otherwise, both flat, in `wanted`'s order."""
    return [
        Difference(field, value, found.get(field, ABSENT))
        for field, value in wanted.items()
        if not _is_same(found.get(field, ABSENT), value)
    ]


def _is_same(one: Any, other: Any) -> bool:
    """Equal in JSON too, where 1, 1.0 and true are three things."""
    kinds = [(isinstance(value, bool), isinstance(value, float)) for value in (one, other)]
    return bool(one == other) and kinds[0] == kinds[1]


def difference_table(rows: Sequence[Difference], names: tuple[str, str] = ("wanted", "found")) -> str:
    """Differences as aligned text: field, wanted, found (or by other names)."""
    cells = [("field", *names), *((row.field, *shown_values(row.wanted, row.found)) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    return "\n".join(
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def shown_values(wanted: Any, found: Any) -> tuple[str, str]:
    """Two values on one line each; long ones from shortly before the place where they part."""
    texts = [
        value.encode("unicode_escape").decode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in (wanted, found)
    ]
    first = 0
    if max(map(len, texts)) > WIDTH:
        shared = next((n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
        first = max(0, shared - WIDTH // 4)
    shown = [("…" if first else "") + text[first : first + WIDTH] for text in texts]
    cut = [text + "…" if len(whole) > first + WIDTH else text for text, whole in zip(shown, texts, strict=True)]
    return cut[0], cut[1]


WIDTH = 56
