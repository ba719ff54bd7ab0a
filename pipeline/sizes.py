"""Sizes as people write them: 500MB, 20GB, 1.5TiB."""

import re

from pipeline.errors import ConfigError

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?:(?P<unit>[kmgt])(?P<binary>i?)b|b)?", re.I)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(size: str | int) -> int:
    """A size in bytes.

    Args:
        size: a number of bytes, or one with a unit: kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024.

    Raises:
        ConfigError: it is none, or nothing at all.
    """
    match = _SIZE.fullmatch(str(size).strip())
    unit = match["unit"] if match else None
    factor = (1024 if match and match["binary"] else 1000) ** _POWERS[unit.lower()] if unit else 1
    size_bytes = int(float(match["number"]) * factor) if match else 0
    if size_bytes < 1:
        raise ConfigError("this is no size", expected="a number of bytes, such as 500MB, 20GB or 1.5TiB", found=size)
    return size_bytes


def shown_size(size_bytes: int) -> str:
    """A size for people."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"
