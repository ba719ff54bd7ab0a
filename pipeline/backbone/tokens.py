"""From sentences to token ids, with the span of each sentence inside its prompted text."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BackboneError, ConfigError, SentenceError, shortened
from pipeline.progress import say
from pipeline.tasks.spec import SLOT

DEFAULT_MAX_LENGTH = 512
OF_SETTINGS = "raise --max-length, or cut such sentences with --truncation"
"""What to do about sentences that are too long, where both are settings."""
OF_A_RUN = "cut such sentences to the run's limit with --truncation (in Python truncation=True)"
"""What to do about them, where a run has its limit."""
TEXTS_AT_ONCE = 2048
"""So many are tokenised together: what a tokeniser says of a text takes a hundred times the room of its ids."""


@dataclass(frozen=True)
class TokenRows:
    """Prompted sentences as token ids, all rows end to end.

    Args:
        ids: `[total_t]` int32.
        offsets: `[n + 1]` int64; row i is `ids[offsets[i]:offsets[i + 1]]`.
        start: `[n]` int64, where each row's sentence begins in the row.
        stop: `[n]` int64, one past its last token.
        truncated_rows: `[n]` bool, the sentences that were cut to fit.
    """

    ids: np.ndarray
    offsets: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    truncated_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> np.ndarray:
        """The ids `[t]` of one row."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: np.ndarray) -> "TokenRows":
        """Some of the rows, `[k]` int64, in this order."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.lengths[rows], out=offsets[1:])
        ids = np.concatenate([self[int(row)] for row in rows])
        return TokenRows(ids, offsets, self.start[rows], self.stop[rows], self.truncated_rows[rows])

    @property
    def truncated(self) -> int:
        """How many sentences were cut to fit."""
        return int(self.truncated_rows.sum())

    def say_if_cut(self, label: str, max_length: int) -> None:
        """Say how many sentences were cut, where any was."""
        if self.truncated:
            say(f"{label}: {self.truncated} of {len(self)} sentences cut to {max_length} tokens")

    @property
    def lengths(self) -> np.ndarray:
        """`[n]` tokens a row, prompt included."""
        return np.diff(self.offsets)

    @property
    def own_lengths(self) -> np.ndarray:
        """`[n]` tokens from each row's sentence on: what is left to compute where the prompt before it is shared."""
        own: np.ndarray = self.lengths - self.start
        return own


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, which must be a fast one (only these say which characters a token covers).

    Raises:
        BackboneError: there is none, or it is a slow one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            "the backbone's tokenizer cannot be loaded",
            where=folder,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="save it into the model's folder with tokenizer.save_pretrained",
        ) from error
    if not tokenizer.is_fast:
        raise BackboneError("the backbone has no fast tokenizer", where=folder, expected="tokenizer.json")
    return tokenizer


def resolve_max_length(max_length: int | None, max_positions: int | None) -> int:
    """The most tokens a row, where `max_length` is what was asked for and the backbone was made for `max_positions`.

    Raises:
        ConfigError: it was not made for that many.
    """
    most = max_positions or max_length or DEFAULT_MAX_LENGTH
    if max_length is None:
        return min(DEFAULT_MAX_LENGTH, most)
    if max_length > most:
        raise ConfigError(
            "the limit is beyond what the backbone was made for",
            where="max_length",
            expected=f"at most {most}",
            found=max_length,
        )
    return max_length


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    prompt: str,
    *,
    max_length: int,
    truncation: bool = False,
    special_tokens: bool = True,
    origin: str,
    lines: Sequence[int] | None = None,
    remedy: str = OF_SETTINGS,
) -> TokenRows:
    """Put each sentence into the prompt and tokenise the whole, so that no token border is forced at the sentence.

    A token belongs to the sentence if it covers at least one of its characters. A sentence that is cut loses its last
    tokens; what the prompt says after it stays.

    Args:
        prompt: the text around a sentence, with `{}` in its place.
        max_length: the most tokens a row, prompt included.
        truncation: cut longer sentences; otherwise they are refused.
        special_tokens: let the tokenizer add its own.
        origin, lines: where the sentences come from, and on which line each stands, for errors.
        remedy: what to do about a sentence that is too long.

    Raises:
        SentenceError: a prompted sentence has more than `max_length` tokens and truncation was not asked for, or
            a sentence has no token.
        ConfigError: the prompt alone leaves a sentence no room.
    """
    lines = range(1, len(texts) + 1) if lines is None else lines
    before = len(prompt[: prompt.index(SLOT)])
    flat, lengths = array("i"), []  # of 32 bits each, as ids are
    start, stop, too_long = [], [], []
    for row, (ids, spans) in enumerate(_encoded(tokenizer, texts, prompt, special_tokens)):
        end = before + len(texts[row])
        own = [place for place, (left, right) in enumerate(spans) if left < end and right > before and left < right]
        if not own:
            raise SentenceError(
                "the tokenizer gives this sentence no token",
                lines[row],
                where=f"{origin}, row {lines[row]}",
                found=repr(texts[row]),
            )
        first, past = own[0], own[-1] + 1
        over = len(ids) - max_length
        if over > 0:
            too_long.append(row)
            if truncation:
                if past - over <= first:
                    raise ConfigError(
                        "the prompt alone fills the limit",
                        where="max_length",
                        expected=f"more than {len(ids) - (past - first)} tokens",
                        found=max_length,
                    )
                ids = ids[: past - over] + ids[past:]
                past -= over
        flat.extend(ids)
        lengths.append(len(ids))
        start.append(first)
        stop.append(past)
    if too_long and not truncation:
        first, longest = too_long[0], max(too_long, key=lengths.__getitem__)
        also = "" if first == longest else f", the first in row {lines[first]}"
        raise SentenceError(
            f"{len(too_long)} of {len(texts)} prompted sentences are longer than the limit",
            lines[first],
            where=f"{origin}, the longest in row {lines[longest]}{also}",
            expected=f"at most {max_length} tokens, prompt included",
            found=f"{lengths[longest]} tokens: {shortened(texts[longest], 90)!r}",
            remedy=remedy,
        )
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenRows(
        ids=np.asarray(flat, dtype=np.int32),
        offsets=offsets,
        start=np.asarray(start, dtype=np.int64),
        stop=np.asarray(stop, dtype=np.int64),
        truncated_rows=np.isin(np.arange(len(lengths)), too_long),
    )


def _encoded(
    tokenizer: Any, texts: Sequence[str], prompt: str, special_tokens: bool
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Each prompted text's ids, and the characters that each of them covers; a few thousand texts at a time."""
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        encoded = tokenizer(
            [prompt.replace(SLOT, text) for text in texts[first : first + TEXTS_AT_ONCE]],
            add_special_tokens=special_tokens,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        yield from zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
