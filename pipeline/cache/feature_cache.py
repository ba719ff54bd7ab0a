"""The cache: a folder of feature sets, found by identity and never by likeness."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.cache.asking import (
    as_layer,
    asking_for,
    choosing,
    differences_of,
    in_python,
    layers_apart,
    telling_apart,
)
from pipeline.cache.feature_set import FeatureSet
from pipeline.cache.identity import Identity, difference_table, flatten
from pipeline.cache.inventory import find_whole
from pipeline.cache.manifest import MANIFEST, Manifest
from pipeline.config import CacheConfig
from pipeline.errors import CacheError, DamagedFeatureSet, FeatureSetNotFound
from pipeline.sizes import parse_size
from pipeline.store_config import StoreConfig
from pipeline.views import Layer, check_pooling

VERIFY = "pipeline cache verify says what is damaged, and the same pipeline extract writes that again"


class FeatureCache:
    """A folder of feature sets: `<task>/<split>/<feature-set>/`, or the local copy of a store of them.

    Args:
        path: the folder; it may be read-only, where there is no store.
        store: the place that holds the feature sets, as `pipeline cache pull` takes it; what is read comes into `path`.
        local_limit: how much of the store's hidden states may stay there, such as `20GB`; by default all.

    Raises:
        ConfigError: the store's name or the limit is none.
        MissingPackage: the store's protocol needs a package that is not installed.
    """

    def __init__(self, path: Path | str, *, store: str | None = None, local_limit: str | int | None = None) -> None:
        self.cache_dir, self.store, self._copy = Path(path), store, None
        if store is not None:
            from pipeline.cache.local_copy import LocalCopy

            limit_bytes = None if local_limit is None else parse_size(local_limit)
            self._copy = LocalCopy(store, self.cache_dir, limit_bytes)
        self.path = self.cache_dir if self._copy is None else self._copy.folder

    @classmethod
    def of(cls, config: CacheConfig) -> "FeatureCache":
        """The cache that settings name."""
        if isinstance(config, StoreConfig):
            return cls(config.cache_dir, store=config.store, local_limit=config.local_limit)
        return cls(config.cache_dir)

    @property
    def shown(self) -> Path | str:
        """How messages call it."""
        return self.path if self._copy is None else self._copy.shown

    def _bring_manifests(self, task: str | None, split: str | None) -> None:
        if self._copy is not None:
            self._copy.bring_manifests(task, split)

    def _opened(self, folder: Path, verify: bool) -> FeatureSet:
        if self._copy is not None:
            self._copy.bring_set(folder)
        return FeatureSet(folder, verify=verify, copy=self._copy)

    def manifests(self, task: str | None = None, split: str | None = None) -> list[Manifest]:
        """The manifests of all whole feature sets, of one task or split if named, sorted by task, split and name.

        Raises:
            DamagedFeatureSet: a manifest cannot be read, or a link is on the way to it.
        """
        self._bring_manifests(task, split)
        return [_read(folder) for folder in _candidates(self.path, task, split, None)]

    def folder(self, manifest: Manifest) -> Path:
        """Where a feature set lies."""
        return self.path / manifest.task / manifest.split / manifest.name

    def open(
        self,
        task: str,
        split: str,
        *,
        layer: Layer | None = None,
        pooling: str | None = None,
        backbone: str | None = None,
        source: str | None = None,
        adapter: str | None = None,
        identity: Mapping[str, Any] | None = None,
        verify: bool = False,
    ) -> FeatureSet:
        """Open the one feature set that is what was asked for.

        Args:
            layer: as transformers counts (-1 is the last), or a share of the depth.
            pooling: last, mean, first or tokens.
            backbone: the backbone's name.
            source: where the sentences came from: glue, hub, sample or files.
            adapter: the digest of the adapter that was merged into the backbone, or its beginning (six hex digits or
                more); without it, features of the plain backbone alone.
            identity: any fields of the identity, by dotted name, such as `{"quantization.type": "nf4"}`, or nested as
                the identity itself is.
            verify: check the SHA-256 of every file before anything is served.

        Raises:
            FeatureSetNotFound: there is none; the error names the nearest and what differs.
            DamagedFeatureSet: what matches is damaged, or all that is there is; damage elsewhere bars no way.
            CacheError: several match; the error names what tells them apart.
        """
        asked = identity.to_dict() if isinstance(identity, Identity) else dict(identity or {})
        wanted: dict[str, Any] = {"adapter": adapter, **flatten(asked)}
        for field, value in (("backbone", backbone), ("source", source), ("layer", layer)):
            if value is not None:
                wanted[field] = as_layer(value) if field == "layer" else value
        if pooling is not None:
            wanted["pooling"] = check_pooling(pooling)
        candidates, damaged = self._readable(task, split)
        unfinished = _unfinished(self.path / task / split)
        if damaged and not candidates:
            raise DamagedFeatureSet(
                f"every feature set of {task}/{split} is damaged:\n{_named(damaged)}",
                where=damaged[0].where,
                found=f"{len(damaged)} damaged",
                remedy=VERIFY,
            ) from damaged[0]
        if not candidates:
            there = sorted({f"{m.task}/{m.split}" for m in self._readable(None, None)[0]})
            raise FeatureSetNotFound(
                f"the cache holds no features of {task}/{split}",
                where=self.shown,
                found=", ".join(there) or "an empty cache" if not unfinished else "none that is whole" + unfinished,
                remedy="make features (pipeline extract), or copy the cache's folder from the machine that made it",
            )
        is_full = all(field.name in asked for field in dataclasses.fields(Identity))
        scored = [(differences_of(wanted, manifest, is_full=is_full), manifest) for manifest in candidates]
        matching = [manifest for differ, manifest in scored if not differ]
        if not matching:
            differ, nearest = min(scored, key=lambda pair: (len(pair[0]), layers_apart(pair[0]), pair[1].name))
            raise FeatureSetNotFound(
                f"the cache holds no such features of {task}/{split}; the nearest is {nearest.name}, and differs in\n"
                + difference_table(differ)
                + (f"\nwhat is damaged may be the one:\n{_named(damaged)}" if damaged else "")
                + unfinished,
                where=self.shown,
                remedy=(f"{VERIFY}; or " if damaged else "")
                + "run pipeline extract with the wanted settings, or ask for what is there"
                + asking_for(differ),
            )
        if len(matching) > 1:
            apart = telling_apart(matching)
            raise CacheError(
                f"{len(matching)} feature sets of {task}/{split} match, which differ in {', '.join(apart)}:\n"
                + "\n".join(f"    {m.name}: {m.rows} rows, {choosing(m, split, apart)}" for m in matching),
                where=self.shown,
                expected="one",
                remedy=f"say which as written beside it{in_python(matching[0], apart)}, "
                "or remove the folder of the one that is not wanted",
            )
        set_aside = [
            DamagedFeatureSet("damaged and set aside", where=path)
            for path in _without_manifest(self.path / task / split)
            if any(path.glob("*.damaged"))
        ]
        alike = [] if asked else [error for error in damaged + set_aside if _is_of_view(error, matching[0])]
        if alike:
            raise DamagedFeatureSet(
                f"{matching[0].name} matches, but so may what is damaged:\n{_named(alike)}",
                where=alike[0].where,
                found=f"{len(alike)} damaged",
                remedy=f"{VERIFY}; or ask for {matching[0].name} by its name (open_folder)",
            ) from alike[0]
        return self._opened(self.folder(matching[0]), verify)

    def matching(
        self, task: str, split: str, *, backbone: str, source: str, identity: Mapping[str, Any]
    ) -> list[Manifest]:
        """The manifests of all whole feature sets that are what was asked for, by layer and pooling.

        Args:
            backbone, source, identity: as in `open`.

        Raises:
            DamagedFeatureSet: a manifest of the split cannot be read: then nobody knows what it would have been.
        """
        wanted = {"adapter": None, **flatten(dict(identity)), "backbone": backbone, "source": source}
        found = [manifest for manifest in self.manifests(task, split) if not differences_of(wanted, manifest)]
        return sorted(found, key=lambda manifest: (manifest.identity.layer, manifest.identity.pooling, manifest.name))

    def _readable(self, task: str | None, split: str | None) -> tuple[list[Manifest], list[DamagedFeatureSet]]:
        """The manifests that can be read, and what is wrong with the others."""
        self._bring_manifests(task, split)
        manifests, damaged = [], []
        for folder in _candidates(self.path, task, split, None):
            try:
                manifests.append(_read(folder))
            except DamagedFeatureSet as error:
                damaged.append(error)
        return manifests, damaged

    def open_folder(self, name: str, *, verify: bool = False) -> FeatureSet:
        """Open a feature set by its folder's name, the beginning of its fingerprint, or `<task>/<split>/<name>`.

        Raises:
            FeatureSetNotFound: there is none.
            CacheError: several begin so, or it is not finished.
            DamagedFeatureSet: it is damaged.
        """
        self._bring_manifests(None, None)
        return self._opened(find_whole(self.path, name)[0].absolute(), verify)


def _candidates(folder: Path, *names: str | None) -> Iterator[Path]:
    """What may be whole feature sets, sorted: folders with a manifest, as deep as there are names (None is any).

    A link to a folder, at any depth, stands for all that it would lead to.
    """
    if not folder.is_dir():
        return
    for path in sorted(path for path in folder.iterdir() if names[0] in (None, path.name) and path.is_dir()):
        if path.is_symlink() or (not names[1:] and os.path.lexists(path / MANIFEST)):
            yield path
        elif names[1:]:
            yield from _candidates(path, *names[1:])


def _without_manifest(folder: Path) -> list[Path]:
    """Feature sets of a split that are not whole, sorted."""
    return [path for path in sorted(folder.glob("*-L*-*")) if not os.path.lexists(path / MANIFEST)]


def _unfinished(folder: Path) -> str:
    """A line on the feature sets of a split that have no manifest, or nothing where there are none."""
    names = [path.name for path in _without_manifest(folder)]
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"\nunfinished, or damaged and set aside (the same pipeline extract goes on with them): {shown}"


def _read(folder: Path) -> Manifest:
    if folder.is_symlink():
        raise DamagedFeatureSet("a feature set is a link", where=folder, expected="a folder of the cache itself")
    return Manifest.read(folder)


def _named(damaged: Iterable[DamagedFeatureSet]) -> str:
    return "\n".join(f"    {error.where}: {error.what}" for error in damaged)


def _is_of_view(error: DamagedFeatureSet, manifest: Manifest) -> bool:
    """Whether the feature set that an error is about bears the name of the same layer and pooling."""
    identity = manifest.identity
    return any(f"-L{identity.layer}-{identity.pooling}-" in part for part in Path(str(error.where)).parts)
