"""Label words are read where they would be said: behind the prompt, by tokens that tell them apart."""

import pytest
from tokenizers.processors import TemplateProcessing

from pipeline.adapters.label_words import label_word_ids, tokens_behind
from pipeline.backbone.tokens import load_tokenizer
from pipeline.errors import AdapterError

PROMPT = "Sentence: {}\nAnswer:"


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return load_tokenizer(tiny_backbone)


def framed(backbone, template):
    """The backbone's tokenizer, which puts its EOS around a text as `template` says."""
    found = load_tokenizer(backbone)
    name = found.eos_token
    special = [(name, found.eos_token_id)]
    found.backend_tokenizer.post_processor = TemplateProcessing(
        single=template.format(name=name), special_tokens=special
    )
    return found


def read(tokenizer, *words, prompt=PROMPT):
    return label_word_ids(tokenizer, prompt, words, special_tokens=True, task="cola").tolist()


def test_a_word_is_read_with_the_space_that_it_has_in_its_place(tokenizer):
    found = tokenizer.convert_ids_to_tokens(read(tokenizer, "the", "he"))
    whole = tokenizer.tokenize("Answer: the")
    assert found[0] == whole[-1] == "Ġthe"


def test_behind_a_prompt_that_ends_in_white_space_no_second_space_is_put(tokenizer):
    found = tokenizer.convert_ids_to_tokens(read(tokenizer, "the", "a", prompt="Sentence: {}\nAnswer:\n"))
    assert not found[0].startswith("Ġ")


def test_a_tokenizer_that_begins_with_bos_gives_the_word_all_the_same(tokenizer, tiny_backbone):
    with_bos = framed(tiny_backbone, "{name} $A")
    assert with_bos("the")["input_ids"][0] == tokenizer.eos_token_id
    assert read(with_bos, "the", "he") == read(tokenizer, "the", "he")
    assert tokens_behind(with_bos, PROMPT, special_tokens=True) == 0


def test_a_tokenizer_that_ends_with_eos_gives_the_word_all_the_same(tokenizer, tiny_backbone):
    with_eos = framed(tiny_backbone, "$A {name}")
    assert with_eos("the")["input_ids"][-1] == tokenizer.eos_token_id
    assert read(with_eos, "the", "he") == read(tokenizer, "the", "he")
    assert tokens_behind(with_eos, PROMPT, special_tokens=True) == 1
    assert tokens_behind(with_eos, PROMPT, special_tokens=False) == 0


def test_words_that_share_their_first_token_are_refused(tokenizer):
    with pytest.raises(AdapterError, match="share their first token") as caught:
        read(tokenizer, "the", "the cat")
    assert "'the'" in str(caught.value)
    assert "--label-words" in str(caught.value)


def test_a_word_that_melts_into_the_prompt_is_refused(tokenizer):
    assert len(tokenizer.tokenize(" the")) == 1
    with pytest.raises(AdapterError, match="melts into the end of the prompt"):
        read(tokenizer, "he", "a", prompt="Sentence: {} ")  # the space before it is the prompt's
