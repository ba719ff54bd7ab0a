"""Label words are read where they would be said: behind the prompt, by tokens that tell them apart."""

import pytest

from pipeline.adapters.label_words import label_word_ids
from pipeline.backbone.tokens import load_tokenizer
from pipeline.errors import AdapterError

PROMPT = "Sentence: {}\nAnswer:"


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return load_tokenizer(tiny_backbone)


def read(tokenizer, *words, prompt=PROMPT):
    return label_word_ids(tokenizer, prompt, words, special_tokens=True, task="cola").tolist()


def test_a_word_is_read_with_the_space_that_it_has_in_its_place(tokenizer):
    found = tokenizer.convert_ids_to_tokens(read(tokenizer, "the", "he"))
    whole = tokenizer.tokenize("Answer: the")
    assert found[0] == whole[-1] == "Ġthe"


def test_behind_a_prompt_that_ends_in_white_space_no_second_space_is_put(tokenizer):
    found = tokenizer.convert_ids_to_tokens(read(tokenizer, "the", "a", prompt="Sentence: {}\nAnswer:\n"))
    assert not found[0].startswith("Ġ")


def test_a_tokenizer_that_begins_with_bos_gives_the_word_all_the_same(tokenizer):
    class WithBos:
        eos_token_id = tokenizer.eos_token_id
        convert_ids_to_tokens = tokenizer.convert_ids_to_tokens

        def __call__(self, text, **kwargs):
            return {"input_ids": [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]}

    assert read(WithBos(), "the", "he") == read(tokenizer, "the", "he")
    assert 0 not in read(WithBos(), "the", "he")


def test_words_that_share_their_first_token_are_refused(tokenizer):
    with pytest.raises(AdapterError, match="share their first token") as caught:
        read(tokenizer, "the", "the cat")
    assert "'the'" in str(caught.value)
    assert "--label-words" in str(caught.value)


def test_a_word_that_melts_into_the_prompt_is_refused(tokenizer):
    pieces = tokenizer.tokenize("the")
    assert len(pieces) >= 1

    class Melting:
        eos_token_id = None

        def __call__(self, text, **kwargs):
            return {"input_ids": [len(text)]}

    with pytest.raises(AdapterError, match="melts into the end of the prompt"):
        read(Melting(), "the", "a")
