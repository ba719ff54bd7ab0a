"""What the copying of feature sets asks of a place: list, read, and put files that appear whole."""

import contextlib
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipeline.cache.remote.names import FEATURE_SET, SPLIT, TASK, SetName
from pipeline.cache.remote.trouble import telling

SMALL_BYTES = 1 << 20
"""The most that a manifest or a seal may take; real ones take some thousand bytes."""
BLOCK_BYTES = 1 << 22
Advance = Callable[[int], None]


class Place(ABC):
    """A folder of feature sets, here or elsewhere. File names are `<task>/<split>/<feature-set>/<file>`.

    All methods raise TransferError where the place does not answer as it should.

    Args:
        shown: how messages call it; never with a password.
    """

    shown: str

    @abstractmethod
    def folders(self, path: str) -> list[str]:
        """The names of the folders in `path` (`""` is the place itself); links do not count.

        Raises:
            TransferError: `path` is `""` and there is no such place.
        """

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Names and bytes of the regular files in `folder`; none where there is no such folder."""

    @abstractmethod
    def read(self, name: str, most_bytes: int) -> Iterator[bytes]:
        """A file's bytes in blocks; a file longer than `most_bytes` may be cut after that, or be longer by a block."""

    @abstractmethod
    def put(self, files: Sequence[tuple[Path, str]], advance: Advance) -> None:
        """Copy local files here under the given names, in this order; each appears whole or not at all.

        Args:
            advance: is told how many bytes more are copied.
        """

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Remove files, in this order."""

    def fetch(self, name: str, path: Path, size_bytes: int, advance: Advance) -> str:
        """Copy a file from here to a local `path`.

        Returns:
            the SHA-256 of what was written, 64 hex digits.
        """
        digest = hashlib.sha256()
        with path.open("xb") as file:
            for block in self.read(name, size_bytes):
                file.write(block)
                digest.update(block)
                advance(len(block))
        return digest.hexdigest()

    @contextlib.contextmanager
    def bringing(self, files: Sequence[tuple[str, int]], beside: Path, advance: Advance) -> Iterator[None]:
        """Say which files, of how many bytes, `fetch` will be asked for, for those who bring many at once.

        Args:
            beside: the folder that they will stand in; what is brought may lie in it until then, under hidden names.
        """
        yield

    def holds(self, name: str, path: Path, sha256: str) -> bool:
        """Whether the bytes here under `name` are those of the local file `path`, whose SHA-256 is known."""
        digest = hashlib.sha256()
        for block in self.read(name, path.stat().st_size):
            digest.update(block)
        return digest.hexdigest() == sha256

    def read_small(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read seals and manifests; one that is longer than any can be is given cut, and so fails to parse."""
        with ThreadPoolExecutor(8) as several:
            return dict(zip(names, several.map(self._read_one, names), strict=True))

    def _read_one(self, name: str) -> bytes:
        return b"".join(self.read(name, SMALL_BYTES))[:SMALL_BYTES]

    def _blocks(self, file: BinaryIO, name: str, most_bytes: int) -> Iterator[bytes]:
        """An open file's bytes for `read`: one that never ends is not read for ever."""
        while most_bytes >= 0:
            with telling(self.shown, f"reading {name}"):
                block = file.read(BLOCK_BYTES)
            if not block:
                return
            most_bytes -= len(block)
            yield block

    def close(self) -> None:
        """Give back connections."""
        return


def find_sets(place: Place, task: str | None = None) -> list[SetName]:
    """Every folder of a place that is called like a feature set, sorted; of one task, if it is named.

    Whatever else lies there is passed over.
    """
    found = []
    for each in _matching(place.folders("") if task is None else [task], TASK):
        for split in _matching(place.folders(each), SPLIT):
            found += [SetName(each, split, name) for name in _matching(place.folders(f"{each}/{split}"), FEATURE_SET)]
    return found


def _matching(names: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    return sorted({name for name in names if pattern.fullmatch(name)})
