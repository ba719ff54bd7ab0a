"""How many tokens a batch suits this device: tried once on the backbone's first blocks, and remembered."""

import contextlib
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.backbone.batch import plain_batch
from pipeline.backbone.known import KnownBackbone
from pipeline.backbone.load import Backbone
from pipeline.backbone.plan import SLOT_TOKENS
from pipeline.backbone.prefill import PrefillEngine
from pipeline.partials import partial_path
from pipeline.progress import say
from pipeline.user_cache import in_user_cache

MEMORY = "token-budgets.json"
"""In the user's own cache folder: all checkouts of this machine agree."""
CANDIDATES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384, 32768)}
BLOCKS = 4
"""So many of the backbone's blocks are timed: they are alike."""
ROUNDS = 3
NEARLY = 1.03
"""A smaller budget is preferred to one that is not faster by more than this."""


def find_token_budget(engine: PrefillEngine) -> int:
    """The token budget for a backbone on its device: as remembered, or as a probe of some seconds finds it."""
    backbone = engine.backbone
    key = _key(backbone)
    known = remembered_budgets()
    if key not in known:
        seconds = _seconds_a_token(engine)
        known[key] = choose(seconds)
        speeds = ", ".join(f"{budget}: {1 / each:,.0f}" for budget, each in seconds.items())
        say(f"batches of {known[key]} tokens from now on (tokens/s through {BLOCKS} blocks, {speeds})")
        _write({**remembered_budgets(), key: known[key]})
    return known[key]


def choose(seconds: dict[int, float]) -> int:
    """The smallest budget that is nearly as fast as the fastest.

    Args:
        seconds: a token, by budget.
    """
    return min(budget for budget, each in seconds.items() if each <= NEARLY * min(seconds.values()))


@torch.inference_mode()
def _seconds_a_token(engine: PrefillEngine) -> dict[int, float]:
    """By budget, the best of some rounds; on CUDA those that do not fit into the memory are left out."""
    device, model = engine.backbone.device, engine.backbone.model
    vocabulary = model.get_input_embeddings().num_embeddings
    best: dict[int, float] = {}
    candidates = CANDIDATES[device.type]
    for number in range(ROUNDS + 1):
        for budget in candidates:
            ids = np.random.default_rng(budget).integers(0, vocabulary, (budget // SLOT_TOKENS, SLOT_TOKENS))
            batch = plain_batch(list(ids.astype(np.int32)))
            repeats = max(candidates) // budget
            began = time.perf_counter()
            try:
                for _ in range(repeats):
                    engine.run_blocks(batch, BLOCKS)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            except torch.cuda.OutOfMemoryError:
                break
            took = (time.perf_counter() - began) / (repeats * budget)
            if number:  # the first round warms up
                best[budget] = min(took, best.get(budget, took))
    return best or {min(candidates): 0.0}


def expected_budget(known: KnownBackbone, threads: int) -> tuple[int, bool]:
    """What `find_token_budget` will give, as far as that is known while the backbone is not loaded.

    Args:
        threads: of the CPU; 0 is as many as torch has now.

    Returns:
        tokens a batch; and whether they are remembered, or a middling candidate.
    """
    device, facts = torch.device(known.device), known.facts
    if device.type == "cpu" or (device.index or 0) < torch.cuda.device_count():
        name = name_of_device(device, threads)
        shape = (str(facts.architecture["model_type"]), facts.num_hidden_layers, facts.hidden_size)
        begins, ends = _around(name, shape, known.dtype)
        # between them is how its weights are held
        found = {
            budget for key, budget in remembered_budgets().items() if key.startswith(begins) and key.endswith(ends)
        }
        if len(found) == 1:
            return found.pop(), True
    candidates = CANDIDATES[device.type]
    return candidates[len(candidates) // 2], False


def _key(backbone: Backbone) -> str:
    config = backbone.model.config.get_text_config(decoder=True)
    shape = (config.model_type, backbone.num_hidden_layers, backbone.hidden_size)
    begins, ends = _around(name_of_device(backbone.device), shape, str(backbone.dtype).removeprefix("torch."))
    layers = "/".join(sorted({type(m).__name__ for m in backbone.model.modules() if "Linear" in type(m).__name__}))
    return begins + layers + ends


def _around(device: str, shape: tuple[str, int, int], dtype: str) -> tuple[str, str]:
    return f"{device}; {shape[0]} of {shape[1]} blocks of {shape[2]}; ", f", {dtype}; torch {torch.__version__}"


def name_of_device(device: torch.device, threads: int = 0) -> str:
    """What a remembered budget calls a device: on the CPU the number of threads belongs to it.

    Args:
        threads: 0 is as many as torch has now.
    """
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {threads or torch.get_num_threads()} threads"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def remembered_budgets() -> dict[str, int]:
    """Tokens a batch, by what they were probed for (device, backbone, numbers, torch); none where none is noted."""
    try:
        known = json.loads(in_user_cache(MEMORY).read_text("utf-8"))
        return {key: budget for key, budget in known.items() if type(budget) is int and 0 < budget <= 2**20}
    except (OSError, ValueError, AttributeError, RuntimeError):
        return {}


def _write(known: dict[str, int]) -> None:
    """Remember; where nothing can be written the probe is made again."""
    with contextlib.suppress(OSError, RuntimeError):
        path = in_user_cache(MEMORY)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(path)
        try:
            partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
