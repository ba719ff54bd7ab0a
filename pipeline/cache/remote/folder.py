"""A place that is a folder of this machine: the cache itself, a disk, a network drive."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cache.files import whole_file
from pipeline.cache.remote.place import BLOCK_BYTES, Advance, Place
from pipeline.cache.remote.trouble import telling
from pipeline.errors import TransferError


class Folder(Place):
    """A local folder of feature sets; below it, links are neither followed nor written through.

    Args:
        path: the folder; it is made when the first file is put there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(path)

    def at(self, name: str) -> Path:
        """Where a file or folder of this place lies.

        Raises:
            TransferError: something on the way to it is a link.
        """
        place = self.path
        for part in filter(None, name.split("/")):
            place = place / part
            if place.is_symlink():
                raise TransferError(
                    "a part of the cache is a link",
                    where=place,
                    expected="files and folders of the cache itself",
                    remedy="remove the link, or name the folder that it leads to",
                )
        return place

    def folders(self, path: str) -> list[str]:
        if not path and not self.path.is_dir():
            raise TransferError(
                "there is no such place", where=self.path, expected="a folder of feature sets", remedy="check the path"
            )
        return [name for name, kind, _ in self._entries(path) if stat.S_ISDIR(kind)]

    def sizes(self, folder: str) -> dict[str, int]:
        return {name: size for name, kind, size in self._entries(folder) if stat.S_ISREG(kind)}

    def _entries(self, path: str) -> list[tuple[str, int, int]]:
        try:
            with telling(self.shown, f"listing {path or 'it'}"), os.scandir(self.at(path)) as entries:
                facts = ((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
                return [(name, fact.st_mode, fact.st_size) for name, fact in facts]
        except TransferError as error:
            if path and isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return []
            raise

    def read(self, name: str, most_bytes: int) -> Iterator[bytes]:
        with telling(self.shown, f"reading {name}"):
            descriptor = os.open(self.at(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not hang us
        with os.fdopen(descriptor, "rb") as file:
            yield from self._blocks(file, name, most_bytes)

    def put(self, files: Sequence[tuple[Path, str]], advance: Advance) -> None:
        for path, name in files:
            target = self.at(name)
            with telling(self.shown, f"making {target.parent}"):
                target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as partial, path.open("rb") as source, partial.open("xb") as copy:
                while block := source.read(BLOCK_BYTES):
                    copy.write(block)
                    advance(len(block))

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with telling(self.shown, f"removing {name}"):
                self.at(name).unlink(missing_ok=True)
