"""Label words: what the LLM would say for each class, read off as the likelihood of their first tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import AdapterError
from pipeline.tasks.spec import SLOT


def tokens_behind(tokenizer: Any, prompt: str, *, special_tokens: bool) -> int:
    """How many tokens of its own the tokenizer puts behind a prompted text."""
    text = prompt.replace(SLOT, "This is a sentence .")
    spans = tokenizer(text, add_special_tokens=special_tokens, return_offsets_mapping=True)["offset_mapping"]
    return len(spans) - 1 - max(place for place, (left, right) in enumerate(spans) if left < right)


def label_word_ids(tokenizer: Any, prompt: str, words: Sequence[str], *, special_tokens: bool, task: str) -> np.ndarray:
    """The first token of each label word, as it stands behind the prompt.

    A word is tokenised together with the prompted text, a space before it, because that is how it would be said: alone,
    its first token may be BOS, or that of a word at the beginning of a line.

    Args:
        prompt: with `{}` in the sentence's place; the label word comes after it.
        words: one a class.

    Returns:
        `[c]` int64.

    Raises:
        AdapterError: two words begin with the same token, or one melts into the prompt's end.
    """

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=special_tokens, verbose=False)["input_ids"]
        return found[: len(found) - behind]

    behind = tokens_behind(tokenizer, prompt, special_tokens=special_tokens)
    text = prompt.replace(SLOT, "This is a sentence .")
    alone = ids(text)
    space = "" if text[-1:].isspace() else " "
    first = []
    for word in words:
        if not word.strip():
            raise AdapterError("a label word is empty", where=f"task {task}, label words", found=repr(word))
        with_word = ids(text + space + word)
        if with_word[: len(alone)] != alone or len(with_word) <= len(alone):
            raise AdapterError(
                "a label word melts into the end of the prompt",
                where=f"task {task}, label word {word!r}",
                expected="a prompt whose tokens stay the same when the word follows, such as one that ends in ':'",
                found=repr(prompt[-40:]),
            )
        first.append(with_word[len(alone)])
    if len(set(first)) < len(first):
        twice = next(token for token in first if first.count(token) > 1)
        raise AdapterError(
            "label words share their first token: the LLM cannot tell them apart by it",
            where=f"task {task}, label words",
            expected="words with distinct first tokens",
            found=", ".join(repr(word) for word, token in zip(words, first, strict=True) if token == twice)
            + f" begin with {tokenizer.convert_ids_to_tokens(twice)!r}",
            remedy="name others with --label-words",
        )
    return np.asarray(first, dtype=np.int64)
