"""A tiny real backbone: a two-block Llama with random weights and a tokenizer trained on the sample corpora."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: tests may share their cores
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def sample_dir():
    return ROOT / "data" / "sample"


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory, sample_dir):
    """A folder as save_pretrained writes it."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
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
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def save_adapter(tiny_backbone):
    """Save a LoRA adapter of the tiny backbone as peft does, with weights that matter: `save_adapter(folder, r=4)`."""
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def save(folder, *, seed=0, backbone=tiny_backbone, **settings):
        model = AutoModelForCausalLM.from_pretrained(backbone)
        usual = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own
            torch.manual_seed(seed)
            adapted = get_peft_model(model, LoraConfig(**{**usual, **settings}))
            with torch.no_grad():
                for weights in (p for n, p in adapted.named_parameters() if "lora_A" in n or "lora_B" in n):
                    weights.copy_(torch.randn_like(weights) * 0.2)
            adapted.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def make_adapter(save_adapter, tmp_path):
    """The same, by a name: `make_adapter("name", r=4)`."""

    def make(name="adapter", **settings):
        return save_adapter(tmp_path / name, **settings)

    return make


@pytest.fixture
def small_glue(tmp_path, sample_dir):
    """A GLUE folder with a few rows of the sample of each split."""
    folder = tmp_path / "glue"
    for task, header in (("CoLA", 0), ("SST-2", 1)):
        (folder / task).mkdir(parents=True)
        for file, rows in (("train.tsv", 60), ("dev.tsv", 30), ("test.tsv", 10)):
            lines = (sample_dir / task / file).read_text("utf-8").split("\n")
            keep = rows + (1 if file == "test.tsv" else header)
            (folder / task / file).write_text("\n".join(lines[:keep]) + "\n", "utf-8")
    return folder
