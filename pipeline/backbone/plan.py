"""From token ids to batches: each distinct beginning of a row is computed once, and hardly anything is padding. Pure.

Rows, sorted by their ids, are a tree: what two neighbours begin with stands once. The tree is cut, where that repeats
the fewest tokens, into pieces that fit into a slot; pieces are packed into slots, and slots that are equally full into
batches. Attention then costs no more than a slot is wide, and a batch is a few large matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.backbone.batch import Batch, common_prefix_length, plain_batch

SLOT_TOKENS = 64
"""How wide a slot is, where no single row is longer: wider ones share more, and pay more for attention."""


@dataclass(frozen=True)
class _Piece:
    """Sorted rows `first` to `stop`, and how many tokens they take together."""

    first: int
    stop: int
    tokens: int


def plan_batches(
    rows: Sequence[np.ndarray], token_budget: int, *, share: bool = True, slot_tokens: int = SLOT_TOKENS
) -> list[Batch]:
    """Group rows into batches. The result depends on nothing but the arguments.

    Args:
        rows: `n` arrays of ids, without what all of them begin with; none is empty.
        token_budget: tokens a batch, padding included; a slot wider than that is a batch by itself.
        share: compute what rows begin with once; otherwise each row stands alone in its slot.
        slot_tokens: how wide a slot is, where no single row is longer.

    Returns:
        batches, the widest first; each row stands in exactly one, under its place in `rows`.
    """
    if not share:
        lengths = np.array([len(row) for row in rows])
        order = np.argsort(-lengths, kind="stable")
        return [
            plain_batch([rows[row] for row in numbers], numbers)
            for numbers in _grouped(order, lengths[order], token_budget)
        ]
    alike: dict[bytes, list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault(_sort_key(row), []).append(number)
    numbers_of = [alike[key] for key in sorted(alike)]
    ordered = [rows[numbers[0]] for numbers in numbers_of]
    shared = _shared_with_the_one_before(ordered)
    pieces = _cut(np.array([len(row) for row in ordered]), shared, slot_tokens)
    slots = _pack(pieces, slot_tokens)
    slots.sort(key=lambda slot: -sum(piece.tokens for piece in slot))
    widths = np.array([sum(piece.tokens for piece in slot) for slot in slots])
    return [
        _batch([slots[slot] for slot in numbers], ordered, shared, numbers_of)
        for numbers in _grouped(np.arange(len(slots)), widths, token_budget)
    ]


def plan_live(rows: Sequence[np.ndarray], most_shared: int, token_budget: int, *, share: bool = True) -> list[Batch]:
    """As `plan_batches`, for passes that are trained through: each computes what all rows begin with, its trunk, anew.

    Args:
        most_shared: how many tokens of a row, at most, can be of the trunk; each row has more.
        token_budget: tokens a batch, its trunk included.
    """
    trunk = rows[0][: common_prefix_length(rows, most_shared) if share else 0].astype(np.int32)
    left = max(1, token_budget - len(trunk))
    behind = plan_batches([row[len(trunk) :] for row in rows], left, share=share, slot_tokens=min(SLOT_TOKENS, left))
    return [replace(batch, trunk=trunk) for batch in behind]


def order_by_ids(rows: Sequence[np.ndarray]) -> np.ndarray:
    """`[n]` int64, the rows so that those that begin alike stand together; equal ones as they stood."""
    keys = [_sort_key(row) for row in rows]
    return np.array(sorted(range(len(rows)), key=keys.__getitem__), dtype=np.int64)


def distinct_prefixes(rows: Sequence[np.ndarray]) -> int:
    """How many different beginnings rows have, whole rows included: they cannot be computed with fewer tokens."""
    ordered = [rows[row] for row in order_by_ids(rows)]
    return sum(map(len, rows)) - int(_shared_with_the_one_before(ordered).sum())


def _sort_key(row: np.ndarray) -> bytes:
    """Bytes that sort as the ids do, none of which is negative."""
    return row.astype(">i4").tobytes()


def _grouped(items: np.ndarray, widths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Cut items, the widest first, into groups that fit the budget when all are as wide as the first of the group."""
    groups = []
    first = 0
    while first < len(items):
        count = max(1, int(token_budget // widths[first]))
        groups.append(items[first : first + count])
        first += count
    return groups


def _shared_with_the_one_before(ordered: Sequence[np.ndarray]) -> np.ndarray:
    """`[n]` int64, with how many of the same tokens each row begins as the row before it."""
    shared = np.zeros(len(ordered), dtype=np.int64)
    for row in range(1, len(ordered)):
        shared[row] = common_prefix_length(ordered[row - 1 : row + 1], len(ordered[row]))
    return shared


def _cut(lengths: np.ndarray, shared: np.ndarray, most: int) -> list[_Piece]:
    """Cut sorted rows, no two alike, into pieces of at most `most` tokens, as few in all as possible.

    What a cut costs is what the row behind it shares with the row before it: it stands in both pieces. A row longer
    than `most` is a piece of its own, with those that it begins with.
    """
    own = (lengths - shared).tolist()
    length = lengths.tolist()
    least = [0] * (len(length) + 1)
    begin = [0] * (len(length) + 1)
    for stop in range(1, len(length) + 1):
        added = 0
        for first in range(stop - 1, -1, -1):
            tokens = length[first] + added
            if tokens > max(most, length[stop - 1]) and first < stop - 1:
                if added > most:
                    break
                added += own[first]
                continue
            if first == stop - 1 or least[first] + tokens <= least[stop]:
                least[stop], begin[stop] = least[first] + tokens, first
            added += own[first]
    pieces = []
    stop = len(length)
    while stop:
        pieces.append(_Piece(begin[stop], stop, least[stop] - least[begin[stop]]))
        stop = begin[stop]
    return pieces[::-1]


def _pack(pieces: Sequence[_Piece], most: int) -> list[list[_Piece]]:
    """Put pieces into slots of `most` tokens, each into the fullest slot that has room (best fit decreasing)."""
    slots: list[list[_Piece]] = []
    with_room: list[list[int]] = [[] for _ in range(most + 1)]
    for piece in sorted(pieces, key=lambda piece: -piece.tokens):
        room = next((room for room in range(piece.tokens, most + 1) if with_room[room]), None)
        if room is None:
            slots.append([piece])
            left, slot = most - piece.tokens, len(slots) - 1
        else:
            slot = with_room[room].pop()
            slots[slot].append(piece)
            left = room - piece.tokens
        if left > 0:
            with_room[left].append(slot)
    return slots


def _batch(
    slots: Sequence[Sequence[_Piece]],
    ordered: Sequence[np.ndarray],
    shared: np.ndarray,
    numbers_of: Sequence[Sequence[int]],
) -> Batch:
    width = max(sum(piece.tokens for piece in slot) for slot in slots)
    ids = np.zeros((len(slots), width), dtype=np.int32)
    parent = np.full((len(slots), width), -1, dtype=np.int32)
    rows: list[int] = []
    paths: list[np.ndarray] = []
    tokens = 0
    for number, slot in enumerate(slots):
        filled = 0
        for piece in slot:
            path = np.zeros(0, dtype=np.int64)
            for row in range(piece.first, piece.stop):
                kept = path[: shared[row] if row > piece.first else 0]
                new = ordered[row][len(kept) :]
                path = np.concatenate((kept, np.arange(filled, filled + len(new))))
                ids[number, filled : filled + len(new)] = new
                parent[number, path[len(kept) :]] = np.concatenate(([-1], path))[len(kept) : len(path)]
                filled += len(new)
                rows += numbers_of[row]
                paths += [number * width + path] * len(numbers_of[row])
        tokens += filled
    return Batch(
        ids=ids,
        parent=parent,
        rows=np.array(rows, dtype=np.int64),
        places=np.concatenate(paths),
        offsets=np.concatenate(([0], np.cumsum([len(path) for path in paths]))),
        tokens=tokens,
    )
