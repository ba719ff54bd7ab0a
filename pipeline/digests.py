"""Digests: of records in canonical JSON, of texts in order, of files."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash


def canonical_json(record: Any) -> bytes:
    """The one way to write a record: sorted keys, no white space, UTF-8, finite numbers only."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of_record(record: Any) -> str:
    """The SHA-256 of a record's canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(record)).hexdigest()


def with_digest(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the SHA-256 of itself in its field `digest`, so that a later change shows."""
    return {**record, "digest": sha256_of_record(record)}


def has_its_digest(record: Mapping[str, Any]) -> bool:
    """Whether a record that `with_digest` made is as it was made."""
    try:
        return bool(record["digest"] == sha256_of_record({k: v for k, v in record.items() if k != "digest"}))
    except (KeyError, ValueError):  # numbers that are not finite have no digest
        return False


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def xxh3_of_file(path: Path) -> str:
    """The 128-bit XXH3 of a file's bytes, 32 hex digits: against damage, not against malice."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_texts(texts: Iterable[str]) -> str:
    """One digest of texts in order; no two different sequences share their byte stream."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def sha256_of_labels(labels: Iterable[int] | None) -> str | None:
    """One digest of class numbers in order; None of a split without labels."""
    return None if labels is None else sha256_of_texts(str(int(label)) for label in labels)
