"""A feature set that is looked at, here and at a store: nothing is locked, brought, mended or made."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from pipeline.cache.cut import is_of_cut, read_cut
from pipeline.cache.identity import Identity
from pipeline.cache.inventory import SEAL
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.remote import Place
from pipeline.cache.remote.names import FILE, SetName
from pipeline.cache.seal import Seal
from pipeline.cache.set_record import copy_small, files_of_shard, seal_or_none
from pipeline.cache.writer import FeatureSetWriter
from pipeline.errors import CacheError


@dataclasses.dataclass(frozen=True)
class SeenSet(FeatureSetWriter):
    """What a writer would find of a feature set, where it only looks: it has no locks, so it cannot write.

    Args:
        there: by shard, the seals at the store whose files stand there too.
    """

    there: Mapping[int, Seal] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def look(cls, cache_dir: Path, *, identity: Identity, place: Place | None = None, **facts: Any) -> Self:
        """Look at what is there.

        Args:
            cache_dir: the cache's folder, or the local copy of the store.
            place: the store, if there is one.
            facts: as of `open`.

        Raises:
            DamagedFeatureSet: a link stands in the set's place.
            TransferError: the store does not answer as it should.
        """
        seen = cls.open(cache_dir, identity=identity, **facts)
        if place is None:
            return seen
        name = SetName(*seen.folder.parts[-3:])
        sizes = place.sizes(name.path)
        with TemporaryDirectory() as temporary:
            seals = [each for each in sizes if FILE.fullmatch(each) and SEAL.fullmatch(each)]
            copy_small(place, name, seals, Path(temporary))
            folder = Path(temporary) / name.path
            there = {}
            for path in folder.glob("shard-*.json"):
                match, seal = SEAL.fullmatch(path.name), seal_or_none(path)
                if match is not None and seal is not None and _stands(name, int(match["number"]), seal, sizes):
                    there[int(match["number"])] = seal
            cut = None if seen.is_cut else read_cut(folder)
        seen = dataclasses.replace(seen, there=there)
        return seen if cut is None else dataclasses.replace(seen, is_cut=True).cut_as(cut)

    @property
    def lock(self) -> FeatureSetLock:
        """None.

        Raises:
            CacheError: whoever asks is about to write.
        """
        raise CacheError("this feature set is only looked at", where=self.folder)

    def sealed(self, number: int) -> Seal | None:
        """As of a writer; a shard that is whole at the store is whole."""
        there = self.there.get(number)
        return super().sealed(number) or (there if there and is_of_cut(self.manifest, number, there) else None)


def _stands(name: SetName, number: int, seal: Seal, sizes: Mapping[str, int]) -> bool:
    files = files_of_shard(name, number, seal)
    return all(sizes.get(file.name.rpartition("/")[2]) == file.size_bytes for file in files)
