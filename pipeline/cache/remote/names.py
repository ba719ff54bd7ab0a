"""The only names that a cache has: everything that comes from another place is held against these patterns."""

import re
from dataclasses import dataclass

from pipeline.cache.manifest import MANIFEST

TASK = re.compile(r"\w[\w-]{0,99}")
SPLIT = re.compile(r"[a-z]{1,30}")
FEATURE_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}-(?P<fingerprint>[0-9a-f]{12})")
FILE = re.compile(rf"{re.escape(MANIFEST)}|shard-\d{{5,9}}\.(h5|parquet|json)")
FINGERPRINT = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, order=True)
class SetName:
    """Which feature set: its task, its split and its folder's name.

    Args:
        task, split, name: each matches its pattern, so that none can lead out of a cache.
    """

    task: str
    split: str
    name: str

    @property
    def path(self) -> str:
        """Its folder, from the cache's folder on."""
        return f"{self.task}/{self.split}/{self.name}"

    def is_called(self, text: str) -> bool:
        """Whether `text` is its folder's name, or can be the beginning of its fingerprint (six hex digits or more)."""
        match = FEATURE_SET.fullmatch(self.name)
        begins = match is not None and match["fingerprint"].startswith(text[:12])
        return text == self.name or (FINGERPRINT.fullmatch(text) is not None and begins)

    def __str__(self) -> str:
        return self.path
