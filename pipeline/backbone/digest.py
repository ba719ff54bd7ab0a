"""What a backbone's files are, as digests: content of local files, the commit of Hub ones."""

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from pipeline.digests import sha256_of_file, sha256_of_record

MEMORY = "digests.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)


def digest_of_files(paths: Iterable[Path]) -> str:
    """One digest for several files: of their names and contents, whatever their order."""
    return "sha256:" + sha256_of_record({path.name: sha256_of_file(path) for path in paths})


def digest_of_weights(folder: Path, memory_dir: Path) -> str:
    """The digest of a folder's safetensors files, remembered by path, size and time of change.

    Args:
        folder: the model's folder.
        memory_dir: where the digests of files that were hashed before are kept.
    """
    files = sorted(folder.glob("*.safetensors"))
    memory = memory_dir / MEMORY
    known = _read(memory)
    digests = {}
    for path in files:
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in known:
            known[key] = sha256_of_file(path)
            _write(memory, known)
        digests[path.name] = known[key]
    return "sha256:" + sha256_of_record(digests)


def digest_of_tokenizer(folder: Path) -> str:
    """The digest of the files that a tokenizer is made of."""
    return digest_of_files(path for name in TOKENIZER_FILES if (path := folder / name).is_file())


def _read(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # a memory only saves time: without it files are hashed again
    return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}


def _write(memory: Path, known: dict[str, str]) -> None:
    partial = memory.with_name(f".{memory.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(known, indent=1, sort_keys=True), "utf-8")
        partial.replace(memory)
    except OSError:
        partial.unlink(missing_ok=True)  # a read-only folder costs hashing again, nothing else
