"""Ways to get hidden states of one LLM for many short texts: this project's, and what people use instead.

Each runs in a process of its own, which loads once and then answers requests on standard input: `python -m
tests.bench.contenders NAME` with NAME of `CONTENDERS`. A request names a file of texts; the answer is one line of JSON
with the seconds taken and the process's peak memory, and the features in a .npy file.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbone.catalogue import find_backbone
from pipeline.config import BackboneConfig

BATCH_ROWS = 32
"""The default of sentence-transformers, taken for the others too that batch by rows."""
NAIVE_TOKENS = 512


@dataclass(frozen=True)
class Request:
    """What is asked of every contender: the last layer, pooled.

    Args:
        texts: the sentences.
        before, after: the prompt around each of them.
        pooling: `mean` over the sentence's own tokens, or `last`.
    """

    texts: list[str]
    before: str
    after: str
    pooling: str

    @property
    def prompted(self) -> list[str]:
        return [self.before + text + self.after for text in self.texts]


Contender = Callable[[Request], np.ndarray]
"""From a request to `[n, d]` float32."""


def _model(dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = find_backbone(BackboneConfig()).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    return AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval(), tokenizer


def _pooled(states: Any, spans: list[tuple[int, int]], request: Request) -> np.ndarray:
    """Pool one row's states `[t, d]`, given the characters that each token covers."""
    if request.pooling == "last":
        return states[len(spans) - 1].float().numpy()
    first = len(request.before)
    own = [place for place, (left, right) in enumerate(spans) if right > first and left < right]
    return states[own].float().mean(0).numpy()


def ours(dtype: str) -> Contender:
    """This project's stage one, without writing: tokenise, plan, compute, pool."""
    from pipeline.backbone.load import load_backbone
    from pipeline.backbone.prefill import PrefillEngine
    from pipeline.backbone.tokens import load_tokenizer, tokenize
    from pipeline.extract.probe import find_token_budget
    from pipeline.extract.shard_pass import compute_rows, plan_rows, shared_prefix
    from pipeline.kernels import exact_float32
    from pipeline.views import View

    config = BackboneConfig(quantization="checkpoint")
    source = find_backbone(config)
    exact = contextlib.ExitStack()
    exact.enter_context(exact_float32("cpu"))
    engine = PrefillEngine(load_backbone(source, config, device="cpu", compute_dtype=dtype), [30])
    tokenizer = load_tokenizer(source.folder)

    def compute(request: Request) -> np.ndarray:
        tokens = tokenize(
            tokenizer, request.texts, request.before + "{}" + request.after, max_length=2048, origin="the benchmark"
        )
        rows = np.arange(len(tokens))
        view = View(30, request.pooling)
        prefix = shared_prefix(engine, tokens, rows)
        batches = plan_rows(engine, tokens, rows, len(prefix), find_token_budget(engine))
        pooled = compute_rows(engine, tokens, rows, prefix, [view], batches)[view]
        return np.asarray(pooled)

    compute.exact = exact  # it lasts as long as the contender
    return compute


def sentence_transformers(dtype: str) -> Contender:
    """sentence-transformers' `encode` at its defaults, but for the chat template: it would put every text into one."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    folder = find_backbone(BackboneConfig()).folder
    transformer = models.Transformer(
        str(folder),
        max_seq_length=2048,
        model_args={"dtype": getattr(torch, dtype)},
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    transformer.tokenizer.pad_token = transformer.tokenizer.pad_token or transformer.tokenizer.eos_token
    transformer.tokenizer.padding_side = "right"
    made: dict[str, Any] = {}

    def compute(request: Request) -> np.ndarray:
        if request.pooling not in made:
            mode = {"mean": "mean", "last": "lasttoken"}[request.pooling]
            pooling = models.Pooling(576, pooling_mode=mode, include_prompt=False)
            made[request.pooling] = SentenceTransformer(modules=[transformer, pooling], device="cpu")
        prompt = request.before.rstrip()  # it counts the prompt's tokens apart, where a last space would be one more
        texts = [request.before[len(prompt) :] + text + request.after for text in request.texts]
        return made[request.pooling].encode(texts, prompt=prompt, show_progress_bar=False).astype(np.float32)

    return compute


def feature_extraction(dtype: str) -> Contender:
    """transformers' feature-extraction pipeline."""
    from transformers import pipeline

    model, tokenizer = _model(dtype)
    extractor = pipeline("feature-extraction", model=model, tokenizer=tokenizer, return_tensors=True)

    def compute(request: Request) -> np.ndarray:
        spans = tokenizer(request.prompted, return_offsets_mapping=True)["offset_mapping"]
        answers = extractor(request.prompted, batch_size=BATCH_ROWS)
        return np.stack([_pooled(states[0], own, request) for states, own in zip(answers, spans, strict=True)])

    return compute


def naive(dtype: str) -> Contender:
    """The loop of many a notebook: one text at a time, padded to 512 tokens, every layer kept."""
    return _one_at_a_time(dtype, padding="max_length", max_length=NAIVE_TOKENS, truncation=True)


def reference(dtype: str) -> Contender:
    """What is true: transformers' own forward pass, one text at a time, unpadded."""
    return _one_at_a_time(dtype)


def _one_at_a_time(dtype: str, **padding: Any) -> Contender:
    import torch

    model, tokenizer = _model(dtype)

    @torch.no_grad()
    def compute(request: Request) -> np.ndarray:
        rows = []
        for text in request.prompted:
            spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
            encoded = tokenizer(text, return_tensors="pt", **padding)
            states = model(**encoded, use_cache=False, output_hidden_states=bool(padding)).last_hidden_state[0]
            rows.append(_pooled(states, spans, request))
        return np.stack(rows)

    return compute


def llama_cpp(dtype: str) -> Contender:
    """llama-cpp-python on the same GGUF file; it pools over the whole prompted text."""
    import llama_cpp

    from pipeline.backbone.embedded import gguf_file

    kinds = {"mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN, "last": llama_cpp.LLAMA_POOLING_TYPE_LAST}
    made: dict[str, Any] = {}

    def compute(request: Request) -> np.ndarray:
        if request.pooling not in made:
            made[request.pooling] = llama_cpp.Llama(
                str(gguf_file()), embedding=True, pooling_type=kinds[request.pooling], n_ctx=2048, n_batch=2048,
                n_threads=os.cpu_count(), verbose=False,
            )  # fmt: skip
        return np.array(made[request.pooling].embed(request.prompted), dtype=np.float32)

    return compute


CONTENDERS: dict[str, tuple[Callable[[str], Contender], str]] = {
    "this project, float32": (ours, "float32"),
    "this project, bfloat16": (ours, "bfloat16"),
    "sentence-transformers, float32": (sentence_transformers, "float32"),
    "sentence-transformers, bfloat16": (sentence_transformers, "bfloat16"),
    "transformers pipeline, float32": (feature_extraction, "float32"),
    "naive loop, float32": (naive, "float32"),
    "llama-cpp-python, Q4_1": (llama_cpp, ""),
    "reference": (reference, "float32"),
}


def peak_bytes() -> int:
    """The most memory that this process had; what its parent had before it does not count."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def main() -> None:
    make, dtype = CONTENDERS[sys.argv[1]]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    contender = make(dtype)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        request = Request(**json.loads(Path(asked["request"]).read_text("utf-8")))
        began = time.perf_counter()
        features = contender(request)
        seconds = time.perf_counter() - began
        np.save(asked["features"], features)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
