"""Sentences become ids with the span of the sentence, and a limit that is kept or said."""

import numpy as np
import pytest

from pipeline.backbone.tokens import load_tokenizer, tokenize
from pipeline.errors import BackboneError, ConfigError, DataError

TEXTS = ["The cat sat.", "Who?", 'She said "no" twice.', "naïve café"]
AROUND = "Sentence: {} It is :"


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return load_tokenizer(tiny_backbone)


@pytest.mark.parametrize("prompt", ["{}", "Sentence: {}", AROUND, "{} ok?", "a\n{}\nb"])
def test_the_span_covers_the_sentence_and_nothing_else(tokenizer, prompt):
    rows = tokenize(tokenizer, TEXTS, prompt, max_length=99, origin="x")
    for row, text in enumerate(TEXTS):
        assert tokenizer.decode(rows[row]) == prompt.replace("{}", text)
        own = tokenizer.decode(rows[row][rows.start[row] : rows.stop[row]])
        assert own.strip() == text


def test_ids_are_those_of_the_whole_text_not_of_its_parts(tokenizer):
    rows = tokenize(tokenizer, TEXTS, AROUND, max_length=99, origin="x")
    for row, text in enumerate(TEXTS):
        assert rows[row].tolist() == tokenizer(AROUND.replace("{}", text))["input_ids"]
    assert rows.lengths.tolist() == [len(rows[row]) for row in range(len(TEXTS))]
    assert rows.truncated == 0


def test_braces_in_a_sentence_are_text(tokenizer):
    rows = tokenize(tokenizer, ["a {} b {0}"], "S: {}", max_length=99, origin="x")
    assert tokenizer.decode(rows[0]) == "S: a {} b {0}"


def test_a_sentence_beyond_the_limit_is_refused_with_its_row(tokenizer):
    with pytest.raises(DataError, match=r"1 of 2 .* longer(.|\n)*file.tsv, the longest in row 2(.|\n)*at most 12"):
        tokenize(tokenizer, ["Short.", "long " * 40], "{}", max_length=12, origin="file.tsv")


def test_truncation_cuts_the_sentence_counts_it_and_keeps_what_follows(tokenizer):
    texts = ["Short.", "long " * 40 + "end"]
    rows = tokenize(tokenizer, texts, AROUND, max_length=20, truncation=True, origin="x")
    assert rows.truncated == 1
    assert rows.truncated_rows.tolist() == [False, True]
    assert rows.lengths.tolist()[1] == 20
    assert tokenizer.decode(rows[1]).endswith(" It is :")
    assert "end" not in tokenizer.decode(rows[1])
    whole = tokenize(tokenizer, texts[:1], AROUND, max_length=99, origin="x")
    assert np.array_equal(rows[0], whole[0])


def test_a_prompt_that_fills_the_limit_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="prompt alone"):
        tokenize(tokenizer, ["A."], AROUND, max_length=4, truncation=True, origin="x")


def test_special_tokens_are_added_on_demand(tmp_path, tiny_backbone):
    import json
    import shutil

    folder = tmp_path / "bos"
    shutil.copytree(tiny_backbone, folder)
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    record["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    adds_bos = load_tokenizer(folder)
    rows = tokenize(adds_bos, TEXTS, "{}", max_length=99, origin="x")
    assert all(rows[row][0] == 0 and rows.start[row] == 1 for row in range(len(TEXTS)))
    bare = tokenize(adds_bos, TEXTS, "{}", max_length=99, special_tokens=False, origin="x")
    assert all(bare.start == 0)


def test_a_folder_without_tokenizer_is_said(tmp_path, tiny_backbone):
    (tmp_path / "config.json").write_bytes((tiny_backbone / "config.json").read_bytes())
    with pytest.raises(BackboneError, match="tokenizer"):
        load_tokenizer(tmp_path)
