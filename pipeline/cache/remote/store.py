"""A place behind any fsspec URL: sftp, s3, and whatever else has an fsspec file system."""

import contextlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cache.remote.place import Advance, Place
from pipeline.cache.remote.trouble import shown_url, telling
from pipeline.errors import MissingPackage, TransferError
from pipeline.partials import is_abandoned, partial_path

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PACKAGES = {"sftp": "sshfs", "ssh": "sshfs", "s3": "s3fs", "s3a": "s3fs", "hf": "huggingface_hub"}
APPEARS_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2", "hf"}
"""Protocols whose objects appear when all their bytes are there; elsewhere a partial name is written and renamed."""
SAFE: dict[str, dict[str, Any]] = {
    # Without this, sshfs takes any host's key; an empty tuple is asyncssh's word for ~/.ssh/known_hosts.
    "sftp": {"known_hosts": (), "connect_timeout": 30},
    "ssh": {"known_hosts": (), "connect_timeout": 30},
}


def open_file_system(url: str) -> tuple["AbstractFileSystem", str]:
    """The file system of a URL, and the path in it.

    Raises:
        MissingPackage: the protocol's package is not installed.
        TransferError: nobody knows the protocol, or the place cannot be reached.
    """
    import fsspec

    protocol = url.partition("://")[0]
    package = PACKAGES.get(protocol)
    if package is not None and find_spec(package) is None:
        raise MissingPackage(package, "remote")
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise TransferError(
            "nobody knows this protocol",
            where=shown_url(url),
            expected="a folder, user@host:folder, or a URL such as sftp://, s3://, hf://, rsync://, file://",
            found=protocol,
        ) from error
    except ImportError as error:
        raise TransferError(
            f"the protocol {protocol} needs a package that is not installed",
            where=shown_url(url),
            found=error,
            remedy="install that package into this environment with pip",
        ) from error
    with telling(shown_url(url), "connecting"):
        file_system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **SAFE.get(protocol, {}))
    return file_system, path


class Store(Place):
    """A folder of feature sets behind an fsspec URL.

    Args:
        url: such as `sftp://user@host/folder` or `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown_url(url)
        self.file_system, path = open_file_system(url)
        self.root = str(path).rstrip("/")
        self.appears_whole = url.partition("://")[0] in APPEARS_WHOLE

    def folders(self, path: str) -> list[str]:
        try:
            return [name for name, entry in self._entries(path).items() if entry["type"] == "directory"]
        except TransferError as error:
            if path and isinstance(error.__cause__, FileNotFoundError):
                return []
            raise

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            entries = self._entries(folder)
        except TransferError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return {}
            raise
        sizes = {name: entry.get("size") for name, entry in entries.items() if entry["type"] == "file"}
        return {name: size for name, size in sizes.items() if isinstance(size, int)}

    def _entries(self, path: str) -> dict[str, dict[str, Any]]:
        with telling(self.shown, f"listing {path or 'it'}"):
            self.file_system.invalidate_cache()
            entries = self.file_system.ls(self._at(path), detail=True)
        # Only the last part of a name is taken, so that no listing can lead elsewhere.
        return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in entries}

    def read(self, name: str, most_bytes: int) -> Iterator[bytes]:
        with contextlib.ExitStack() as stack:
            with telling(self.shown, f"reading {name}"):
                file = stack.enter_context(self.file_system.open(self._at(name), "rb"))
            yield from self._blocks(file, name, most_bytes)

    def put(self, files: Sequence[tuple[Path, str]], advance: Advance) -> None:
        for folder in sorted({name.rpartition("/")[0] for _, name in files}):
            self._clear(folder)
        for path, name in files:
            with telling(self.shown, f"writing {name}"):
                self._put_one(path, name, advance)

    def _put_one(self, path: Path, name: str, advance: Advance) -> None:
        target = self._at(name)
        partial = target if self.appears_whole else partial_path(Path(target)).as_posix()
        told, size_bytes = _Told(advance), path.stat().st_size
        if not self.appears_whole:
            self.file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            self.file_system.put_file(str(path), partial, callback=told.callback())
            self.file_system.invalidate_cache()
            found = self.file_system.info(partial)["size"]
            if found != size_bytes:
                raise TransferError(
                    "a file is not as long there as it is here",
                    where=f"{self.shown}, {name}",
                    expected=f"{size_bytes} bytes",
                    found=f"{found} bytes",
                    remedy="run the same command again",
                )
            if partial != target:
                self.file_system.mv(partial, target)
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what counts
                self.file_system.rm_file(partial)
            raise
        advance(size_bytes - told.bytes)

    def _clear(self, folder: str) -> None:
        """Remove the partial files that dead processes of this host left there."""
        for name in self.sizes(folder):
            if is_abandoned(Path(name)):
                self.remove([f"{folder}/{name}"])

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with telling(self.shown, f"removing {name}"), contextlib.suppress(FileNotFoundError):
                self.file_system.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return "/".join(filter(None, (self.root, name))) or "/"


class _Told:
    """Passes on how many bytes a package says it has copied."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.bytes = advance, 0

    def callback(self) -> Any:
        import fsspec.callbacks

        told = self

        class Callback(fsspec.callbacks.Callback):  # type: ignore[misc]
            def call(self, *_: Any, **__: Any) -> None:
                told.advance(self.value - told.bytes)
                told.bytes = self.value

        return Callback()
