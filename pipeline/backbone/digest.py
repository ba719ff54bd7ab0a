"""What a backbone's files are, as digests: content of local files, the commit of the Hub's."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.digests import sha256_of_file, sha256_of_record
from pipeline.partials import partial_path
from pipeline.progress import say

MEMORY = "digests.json"
SETTLED_SECONDS = 2.0
"""A file that changed later than this before it was hashed is not remembered: it may change again in the same tick."""
LARGE_BYTES = 1_000_000_000
"""Files from this size on take so long to hash that it is said."""
SHA256 = re.compile(r"[0-9a-f]{64}")
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
    "*.model",
    "*.bpe",
    "*.tiktoken",
    "tekken.json",
    "added_tokens.json",
    "special_tokens_map.json",
)


def digest_of_files(paths: Iterable[Path]) -> str:
    """One digest for several files: of their names and contents, whatever their order."""
    return "sha256:" + sha256_of_record({path.name: sha256_of_file(path) for path in paths})


def digest_of_weights(folder: Path, memory_dir: Path, commit: str | None = None) -> str:
    """The digest of a folder's safetensors files: `commit:…` where the Hub's commit vouches for them, else `sha256:…`.

    The local Hub cache keeps a file of a commit as a link to a blob that is named by its SHA-256. Only where every file
    is such a link, and its content has the SHA-256 of its name, does the commit stand for the weights: a file that was
    edited, cut short or put there by hand is known by its content.

    Args:
        folder: the model's folder.
        memory_dir: where the digests of files that were hashed before are kept.
        commit: the commit whose snapshot the folder is, or None.
    """
    files = sorted(folder.glob("*.safetensors"))
    digests = DigestMemory(memory_dir / MEMORY).digests(files)
    if commit is not None and files and all(_is_blob(path, digests[path], commit) for path in files):
        return f"commit:{commit}"
    return "sha256:" + sha256_of_record({path.name: digests[path] for path in files})


def _is_blob(path: Path, digest: str, commit: str) -> bool:
    """Whether a file is a link out of `snapshots/<commit>/` to the blob of its content beside that folder."""
    snapshot = path.parent
    blob = snapshot.parent.parent / "blobs" / digest
    laid_out = snapshot.name == commit and snapshot.parent.name == "snapshots"
    return laid_out and path.is_symlink() and path.resolve() == blob.resolve() and not blob.is_symlink()


def digest_of_tokenizer(folder: Path) -> str:
    """The digest of the files that a tokenizer is made of."""
    return digest_of_files({path for name in TOKENIZER_FILES for path in folder.glob(name) if path.is_file()})


class DigestMemory:
    """Remembers the SHA-256 of files, so that weights are hashed once.

    An entry holds for as long as its file has the same path, size, times of change (of the content, and of the file's
    record, which nobody can set back) and inode. The memory only saves time: where it is damaged, belongs to another
    user or cannot be written, files are hashed again.

    Args:
        path: the JSON file that it is kept in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def digests(self, files: Iterable[Path]) -> dict[Path, str]:
        """The SHA-256 of each file, 64 hex digits; those that are not known are hashed, and remembered."""
        known, found = self._read(), {}
        for path in files:
            place, state = str(path.resolve()), _state(path)
            entry = known.get(place)
            if entry is None or entry["state"] != state:
                if path.stat().st_size >= LARGE_BYTES:
                    say(f"hashing {path.name}, {path.stat().st_size / 1e9:.1f} GB: once, as long as it does not change")
                entry = {"state": state, "sha256": sha256_of_file(path)}
                if _is_settled(state):
                    known = {**self._read(), place: entry}  # another process may have learnt something meanwhile
                    self._write(known)
            found[path] = entry["sha256"]
        return found

    def _read(self) -> dict[str, Any]:
        try:
            if self.path.is_symlink() or self.path.stat().st_uid != os.getuid():
                return {}
            record = json.loads(self.path.read_text("utf-8"))
            files = record["files"]
            if record["check"] != sha256_of_record(files):  # a flipped bit
                return {}
            if all(SHA256.fullmatch(entry["sha256"]) and isinstance(entry["state"], list) for entry in files.values()):
                return dict(files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        return {}

    def _write(self, known: dict[str, Any]) -> None:
        there = {place: entry for place, entry in known.items() if Path(place).exists()}
        record = {"files": there, "check": sha256_of_record(there)}
        partial = partial_path(self.path)
        with contextlib.suppress(OSError):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(json.dumps(record, indent=1, sort_keys=True), "utf-8")
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)


def _state(path: Path) -> list[int]:
    """What tells whether a file may have changed: device, inode, bytes, times of change in nanoseconds."""
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _is_settled(state: list[int]) -> bool:
    return time.time_ns() - max(state[3:]) > SETTLED_SECONDS * 1e9
