"""Places that feature sets are copied to and from: folders, fsspec URLs, the Hub, targets of rsync."""

from pathlib import Path
from urllib.parse import unquote

from pipeline.cache.remote.folder import Folder
from pipeline.cache.remote.place import Place, find_sets
from pipeline.cache.remote.trouble import telling
from pipeline.errors import ConfigError, TransferError

__all__ = ["Folder", "Place", "find_sets", "open_place"]


def open_place(remote: str) -> Place:
    """The place that a text names: a folder, an fsspec URL, or a target of rsync.

    Raises:
        ConfigError: it names nothing.
        MissingPackage, TransferError: the place cannot be used, or is a file.
    """
    if not remote:
        raise ConfigError(
            "no place is named", expected="a folder, user@host:folder, or a URL such as s3://bucket/prefix"
        )
    if remote.startswith("file://"):
        return _folder(Path(unquote(remote.removeprefix("file://").removeprefix("localhost"))))
    from pipeline.cache.remote.rsync import Rsync, is_rsync

    if is_rsync(remote):
        return Rsync(remote)
    if "://" not in remote:
        return _folder(Path(remote).expanduser())
    from pipeline.cache.remote.hub import Hub
    from pipeline.cache.remote.store import Store

    return (Hub if remote.startswith("hf://") else Store)(remote)


def _folder(path: Path) -> Folder:
    """A folder, which need not be there yet.

    Raises:
        TransferError: it, or what it would lie in, is a file, or nobody here may look.
    """
    with telling(str(path), "looking for it"):
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        is_folder = there.is_dir()
    if not is_folder:
        raise TransferError(
            "this is a file, not a folder",
            where=there,
            expected="a folder that feature sets are copied to or from",
            remedy="name a folder; push makes it",
        )
    return Folder(path)
