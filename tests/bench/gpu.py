"""How fast stage one is on a GPU, for a model of the 8B shape with random weights: nothing is downloaded.

    make bench-gpu GLUE_DIR=…

The prompted corpora go through an NF4 Llama of DeepSeek-R1-Distill-Llama-8B's shape in three ways: stage one with the
weights dequantised once, stage one with bitsandbytes dequantising in every pass, and a plain transformers loop over
unsorted batches of 32. Turns go round. Prints Markdown: prompted and computed tokens per second, the share of the rate
of one large matrix product measured in the same run, ratios, and whether both ways to dequantise agree bit for bit.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.load import Backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.quantize import dequantize_once
from pipeline.backbone.tokens import TokenRows, load_tokenizer, tokenize
from pipeline.config import BackboneConfig, DataConfig
from pipeline.extract.probe import find_token_budget
from pipeline.extract.shard_pass import compute_rows, plan_rows, shared_prefix
from pipeline.kernels import exact_float32
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks
from pipeline.views import View

SHAPES = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "rope_theta": 500000.0,
    },
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128256,
    },
}
PLAIN_BATCH = 32
PRODUCT = 8192


def random_nf4(shape: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A Llama of this shape with random weights, quantised by bitsandbytes layer by layer."""
    import bitsandbytes as bnb
    from transformers import AutoModel, LlamaConfig

    from pipeline.backbone import tree_attention

    torch.manual_seed(0)
    with torch.device(device):
        config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192)
        model = AutoModel.from_config(config, dtype=dtype, attn_implementation=tree_attention.NAME)
    model.eval().requires_grad_(False)
    for name, layer in [pair for pair in model.named_modules() if type(pair[1]) is nn.Linear]:
        packed = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        packed.weight = bnb.nn.Params4bit(
            layer.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True, module=packed
        ).to(device)
        model.set_submodule(name, packed)
    return model


def as_backbone(model: nn.Module, device: torch.device, dtype: torch.dtype, note: str) -> Backbone:
    config = model.config
    return Backbone("random", model, device, dtype, config.num_hidden_layers, config.hidden_size, note)


def read_tokens(data: DataConfig, rows: int) -> dict[str, TokenRows]:
    """The first training rows of both tasks under their prompts, as ids of the embedded backbone's tokenizer."""
    tokenizer = load_tokenizer(find_backbone(BackboneConfig()).folder)
    found = {}
    for task in find_tasks(("cola", "sst2"), ()):
        examples = read_task(task, data, ("train",))["train"]
        texts = examples.texts[:rows]
        found[task.name] = tokenize(tokenizer, texts, task.prompt, max_length=2048, origin=examples.origin)
    return found


def stage_one(engine: PrefillEngine, view: View, budget: int) -> Callable[[TokenRows], tuple[np.ndarray, int]]:
    """Stage one over some rows: their features, and how many tokens were computed."""

    def compute(tokens: TokenRows) -> tuple[np.ndarray, int]:
        rows = np.arange(len(tokens))
        prefix = shared_prefix(engine, tokens, rows)
        batches = plan_rows(engine, tokens, rows, len(prefix), budget)
        pooled = compute_rows(engine, tokens, rows, prefix, [view], batches)[view]
        return np.asarray(pooled), len(prefix) + sum(batch.ids.size for batch in batches)

    return compute


@torch.inference_mode()
def plain_loop(model: nn.Module, device: torch.device, tokens: TokenRows) -> tuple[np.ndarray, int]:
    """What is usually written: rows as they stand, 32 at a time, padded to the longest, the mean over the sentence."""
    features, computed = [], 0
    for first in range(0, len(tokens), PLAIN_BATCH):
        rows = range(first, min(first + PLAIN_BATCH, len(tokens)))
        width = max(len(tokens[row]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        own = torch.zeros(len(rows), width)
        for place, row in enumerate(rows):
            ids[place, : len(tokens[row])] = torch.from_numpy(tokens[row].astype(np.int64))
            mask[place, : len(tokens[row])] = 1
            own[place, tokens.start[row] : tokens.stop[row]] = 1 / (tokens.stop[row] - tokens.start[row])
        states = model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state.float()
        features.append((states * own.to(device)[..., None]).sum(1).cpu().numpy())
        computed += ids.numel()
    return np.concatenate(features), computed


def product_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Floating-point operations per second of one large matrix product, the best of some."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        began = _now(device)
        for _ in range(4):
            a @ b
        best = max(best, 4 * 2 * size**3 / (_now(device) - began))
    return best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glue")
    parser.add_argument("--rows", type=int, default=8000, help="of each task at most")
    parser.add_argument("--plain-rows", type=int, default=1024, help="for the plain loop, scaled by the tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=list(SHAPES), default="8b")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here: nothing is measured (--shape tiny --device cpu tries the script out)")
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    view = View(SHAPES[options.shape]["num_hidden_layers"], "mean")
    corpora = read_tokens(DataConfig(data=options.data), options.rows)
    plain_model = random_nf4(options.shape, device, dtype)
    once_model = random_nf4(options.shape, device, dtype)
    dequantize_once(once_model, dtype)
    weights = sum(m.in_features * m.out_features for m in once_model.modules() if isinstance(m, nn.Linear))
    with exact_float32(device.type):
        once, each = (
            PrefillEngine(as_backbone(model, device, dtype, note), [int(view.layer)])
            for model, note in ((once_model, "dequantised once"), (plain_model, "in every pass"))
        )
        budget = find_token_budget(once)
        ways = {
            "stage one, dequantised once": stage_one(once, view, budget),
            "stage one, Linear4bit": stage_one(each, view, budget),
            f"transformers, batches of {PLAIN_BATCH}": lambda tokens: plain_loop(plain_model, device, tokens),
        }
        peak = product_rate(device, dtype, PRODUCT if device.type == "cuda" else 1024)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        print(f"{name}, {options.shape} shape, NF4, {str(dtype)[6:]}, batches of {budget} tokens; ", end="")
        print(f"one product: {peak / 1e12:.1f} TFLOP/s\n")
        print(
            "| task | way | rows/s | prompted tokens/s | computed tokens/s | of the product's rate | times plain |\n"
            "|---|---|---|---|---|---|---|"
        )
        for task, tokens in corpora.items():
            plain = first_rows(tokens, options.plain_rows)
            rates: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
            features = {}
            for repeat in range(options.repeats + 1):  # the first warms up
                for way, compute in ways.items():
                    asked = plain if way.startswith("transformers") else tokens
                    began = _now(device)
                    features[way], computed = compute(asked)
                    seconds = _now(device) - began
                    if repeat:
                        rates[way].append((len(asked) / seconds, len(asked.ids) / seconds, computed / seconds))
            base = statistics.median(prompted for _, prompted, _ in rates[list(ways)[-1]])
            for way, measured in rates.items():
                rows, prompted, computed = (statistics.median(values) for values in zip(*measured, strict=True))
                share = 2 * weights * computed / peak
                print(
                    f"| {task} | {way} | {rows:,.0f} | {prompted:,.0f} | {computed:,.0f} | {100 * share:.0f} % "
                    f"| {prompted / base:.1f} |"
                )
            first, second = (features[way] for way in list(ways)[:2])
            same = (
                "bit for bit"
                if np.array_equal(first, second)
                else f"differ by up to {np.abs(first - second).max():.2g}"
            )
            print(f"\n{task}: dequantised once and Linear4bit: {same}\n")


def first_rows(tokens: TokenRows, rows: int) -> TokenRows:
    """The first rows alone."""
    rows = min(rows, len(tokens))
    stop = tokens.offsets[rows]
    return TokenRows(
        tokens.ids[:stop],
        tokens.offsets[: rows + 1],
        tokens.start[:rows],
        tokens.stop[:rows],
        tokens.truncated_rows[:rows],
    )


if __name__ == "__main__":
    main()
