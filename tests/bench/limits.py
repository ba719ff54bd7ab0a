"""How far stage one is from what it could be at best: each distinct prefix once, at the speed of bare products."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.load import load_backbone
from pipeline.backbone.packed import PackedLinear
from pipeline.backbone.plan import distinct_prefixes, plan_batches
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import TokenRows, load_tokenizer, tokenize
from pipeline.config import BackboneConfig, DataConfig
from pipeline.extract.cut import choose_order, default_shard_rows, ordered_rows
from pipeline.extract.probe import CANDIDATES
from pipeline.extract.shard_pass import compute_rows, plan_rows, shared_ids, shared_prefix
from pipeline.kernels import exact_float32
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks

ROWS = 1000


def planned(tokens: TokenRows, token_budget: int) -> tuple[int, int]:
    """How many tokens the plan of a whole split computes, each shard's prefix included, and how many are padding."""
    computed = padding = 0
    shard_rows = default_shard_rows(len(tokens))
    by_tokens = choose_order(tokens, shard_rows) == "tokens"
    ordered = ordered_rows(tokens) if by_tokens else np.arange(len(tokens))
    for first in range(0, len(tokens), shard_rows):
        rows = np.sort(ordered[first : first + shard_rows])
        shared = len(shared_ids(tokens, rows))
        computed += shared
        for batch in plan_batches([tokens[row][shared:] for row in rows], token_budget):
            computed += batch.ids.size
            padding += batch.ids.size - batch.tokens
    return computed, padding


def seconds_of_products(model: torch.nn.Module, sizes: Sequence[int]) -> float:
    """How long the linear layers alone take for batches of so many tokens."""
    layers = [module for module in model.modules() if isinstance(module, PackedLinear | torch.nn.Linear)]
    inputs = {
        (size, layer.in_features): torch.randn(size, layer.in_features, dtype=model.dtype)
        for size in set(sizes)
        for layer in layers
    }
    began = time.perf_counter()
    with torch.inference_mode():
        for size in sizes:
            for layer in layers:
                layer(inputs[size, layer.in_features])
    return time.perf_counter() - began


def print_limits(data: DataConfig) -> None:
    """Print both distances: of the plan, for whole splits, without running it; of the pass, on a few rows."""
    config = BackboneConfig(quantization="checkpoint")
    source = find_backbone(config)
    tokenizer = load_tokenizer(source.folder)
    budget = max(CANDIDATES["cpu"])
    print(
        "| corpus | prompted tokens | distinct prefixes | computed | times distinct | padding |\n"
        "|---|---|---|---|---|---|"
    )
    kept = {}
    for task in find_tasks(("cola", "sst2"), ()):
        examples = read_task(task, data, ("train",))["train"]
        tokens = kept[task] = tokenize(tokenizer, examples.texts, task.prompt, max_length=2048, origin=examples.origin)
        distinct = distinct_prefixes([tokens[row] for row in range(len(tokens))])
        computed, padding = planned(tokens, budget)
        print(
            f"| {task.name}/train | {len(tokens.ids):,} | {distinct:,} | {computed:,} | {computed / distinct:.3f} "
            f"| {100 * padding / computed:.2f} % |"
        )
    print("\n| task | dtype | computed tokens/s | of the bare products' speed |\n|---|---|---|---|")
    with exact_float32("cpu"):
        for dtype in ("float32", "bfloat16"):
            backbone = load_backbone(source, config, device="cpu", compute_dtype=dtype)
            for task, tokens in kept.items():
                views = [view.resolved(backbone.num_hidden_layers) for view in task.views]
                engine = PrefillEngine(backbone, [int(view.layer) for view in views])
                rows = np.arange(min(ROWS, len(tokens)))
                prefix = shared_prefix(engine, tokens, rows)
                batches = plan_rows(engine, tokens, rows, len(prefix), budget)
                sizes = [batch.ids.size for batch in batches]
                pairs = []
                for _ in range(3):
                    began = time.perf_counter()
                    compute_rows(engine, tokens, rows, prefix, views, batches)
                    pairs.append((time.perf_counter() - began, seconds_of_products(backbone.model, sizes)))
                whole, products = (sorted(times)[1] for times in zip(*pairs, strict=True))
                print(f"| {task.name} | {dtype} | {sum(sizes) / whole:,.0f} | {products / whole:.2f} |")
    print()
