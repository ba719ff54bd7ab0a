"""A tiny real backbone: a two-block Llama with random weights and a tokenizer trained on the sample corpora."""

from pathlib import Path
from typing import Any


def make_tiny_backbone(folder: Path, sample_dir: Path, **changed: Any) -> Path:
    """Write it to `folder` as save_pretrained does, some fields of its config changed."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    texts = (sample_dir / "CoLA" / "train.tsv").read_text("utf-8").split("\n")
    trained.train_from_iterator(texts, vocab_size=600, special_tokens=["<s>", "</s>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(
        folder
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=600,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            **changed,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_small_glue(folder: Path, sample_dir: Path) -> Path:
    """Write a GLUE folder with a few rows of the sample of each split."""
    for task, header in (("CoLA", 0), ("SST-2", 1)):
        (folder / task).mkdir(parents=True)
        for file, rows in (("train.tsv", 60), ("dev.tsv", 30), ("test.tsv", 10)):
            lines = (sample_dir / task / file).read_text("utf-8").split("\n")
            keep = rows + (1 if file == "test.tsv" else header)
            (folder / task / file).write_text("\n".join(lines[:keep]) + "\n", "utf-8")
    return folder
