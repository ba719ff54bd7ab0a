"""What a backbone's files are, as digests: content of local files, the commit of the Hub's."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.digests import sha256_of_file, sha256_of_record
from pipeline.file_memory import Facts, FileMemory
from pipeline.progress import say

MEMORY = "digests.json"
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


def digest_of_weights(folder: Path, memory_dir: Path, commit: str | None = None, *, learns: bool = True) -> str:
    """The digest of a folder's safetensors files: `commit:…` where the Hub's commit vouches for them, else `sha256:…`.

    The local Hub cache keeps a file of a commit as a link to a blob that is named by its SHA-256. Only where every file
    is such a link, and its content has the SHA-256 of its name, does the commit stand for the weights: a file that was
    edited, cut short or put there by hand is known by its content.

    Args:
        folder: the model's folder.
        memory_dir: where the digests of files that were hashed before are kept.
        commit: the commit whose snapshot the folder is, or None.
        learns: whether what is hashed is noted there.
    """
    files = sorted(folder.glob("*.safetensors"))
    digests = DigestMemory(memory_dir / MEMORY, learns=learns).digests(files)
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
    """Remembers the SHA-256 of files, as `FileMemory` does, so that weights are hashed once.

    Args:
        path: the JSON file that it is kept in.
        learns: whether what is hashed is noted there.
    """

    def __init__(self, path: Path, *, learns: bool = True) -> None:
        self._learns = learns
        self._memory = FileMemory(path, lambda facts: SHA256.fullmatch(facts["sha256"]) is not None, learns=learns)

    def digests(self, files: Iterable[Path]) -> dict[Path, str]:
        """The SHA-256 of each file, 64 hex digits; those that are not known are hashed, and remembered."""
        return {path: str(facts["sha256"]) for path, facts in self._memory.facts(files, self._hash).items()}

    def _hash(self, path: Path) -> Facts:
        size_bytes = path.stat().st_size
        if size_bytes >= LARGE_BYTES:
            once = ": once, as long as it does not change" if self._learns else ""
            say(f"hashing {path.name}, {size_bytes / 1e9:.1f} GB{once}")
        return {"sha256": sha256_of_file(path)}
