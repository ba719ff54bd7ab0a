"""The folder of the user's own cache, for what all checkouts on a machine may know."""

import os
from pathlib import Path


def in_user_cache(name: str) -> Path:
    """A file of this project in the user's own cache folder (`$XDG_CACHE_HOME` or `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "feature-cache-pipeline" / name
