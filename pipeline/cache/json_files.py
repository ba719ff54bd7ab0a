"""Reading JSON that nobody vouches for: of bounded size and depth, each key once, only numbers and texts that hold."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from pipeline.cache.reading import open_to_read

MOST_BYTES = 16 * 2**20
DEEPEST = 32
_MOST_DIGITS = 20
_MOST_INTEGER = 2**63


def read_bounded(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file of at most 16 MiB, or another size.

    Raises:
        OSError: the file is not there, cannot be read, or is a link or no regular file.
        ValueError: it is larger.
    """
    with open_to_read(path) as file:
        data = bytearray()
        while chunk := file.read(2**16):
            data += chunk
            if len(data) > most_bytes:
                raise ValueError(f"it is larger than {most_bytes} bytes")
    return bytes(data)


def parse_json(content: bytes) -> Any:
    """Read JSON, more strictly than JSON is where readers disagree.

    Refused: a key that stands twice, NaN and infinities (also as `1e999`), integers beyond 64 bits, lone surrogates,
    more than 32 levels.

    Raises:
        ValueError: it is not such JSON.
    """
    text = content.decode("utf-8")
    try:
        record = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth_and_texts(record)
    return record


_TOO_DEEP = f"it nests deeper than {DEEPEST} levels"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) <= _MOST_DIGITS and -_MOST_INTEGER <= (number := int(digits)) < _MOST_INTEGER:
        return number
    raise ValueError(f"an integer is beyond 64 bits: {digits[:_MOST_DIGITS]}…")


def _number(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"a number is too large: {digits[:_MOST_DIGITS]}")
    return number


def _check_depth_and_texts(record: Any) -> None:
    todo: list[tuple[Any, int]] = [(record, 1)]
    while todo:
        value, depth = todo.pop()
        if depth > DEEPEST:
            raise ValueError(_TOO_DEEP)
        inner: Iterable[Any] = ()
        if isinstance(value, str):
            value.encode()  # a lone surrogate has no UTF-8
        elif isinstance(value, dict):
            inner = [*value, *value.values()]
        elif isinstance(value, list):
            inner = value
        todo += ((part, depth + 1) for part in inner)
