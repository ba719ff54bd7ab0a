"""Choose a task's prompt and views by measurement, on training rows alone.

    make choose-views TASKS=cola GLUE_DIR=...

For every candidate prompt, one pass computes all layers asked for; logistic regression on standardised features is
scored by cross-validation over the training rows, phrases of one sentence always in one fold. Validation rows are never
read. Prints one table a prompt, as Markdown: layers down, poolings across.
"""

import argparse
import json
import sys
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, matthews_corrcoef
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.facts import resolve_device, resolve_dtype
from pipeline.backbone.load import load_backbone
from pipeline.backbone.plan import plan_batches
from pipeline.backbone.pooling import pool
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import load_tokenizer, tokenize
from pipeline.config import BackboneConfig, DataConfig
from pipeline.extract.shard_pass import shared_prefix
from pipeline.holdout import sentence_groups
from pipeline.kernels import exact_float32
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks

PROMPTS = {
    "cola": {
        "bare": "{}",
        "around": "Task: Check whether the sentence is grammatically correct or not. sentence : {} This sentence is :",
        "before": "Check whether the sentence is grammatically correct or not. Sentence: {}",
        "question": "Is the following sentence grammatical English? Sentence: {}",
        "examples": "Correct: The children have eaten the cake.\nIncorrect: The children has eat cake the.\n"
        "Correct: Who did you say that he met?\nIncorrect: Who did you wonder whether that met him?\n"
        "Is the next one correct or incorrect?\nSentence: {}",
        "examples-around": "Sentence: The children have eaten the cake.\nAnswer: correct\n"
        "Sentence: The children has eat cake the.\nAnswer: incorrect\n"
        "Sentence: Who did you say that he met?\nAnswer: correct\n"
        "Sentence: Who did you wonder whether that met him?\nAnswer: incorrect\n"
        "Sentence: {}\nAnswer:",
        "linguist": "A linguist marks each sentence as acceptable or unacceptable English, looking at agreement, word "
        "order, missing words and verb forms. Sentence: {}",
    },
    "sst2": {
        "bare": "{}",
        "around": "Task: Classify the sentiment of the sentence. sentence : {} This sentence is :",
        "before": "Is this movie review positive or negative? Review: {}",
        "before-around": "Is this movie review positive or negative? Review: {} Sentiment:",
        "examples": "Review: a moving and beautifully acted film\nSentiment: positive\n"
        "Review: dull , lifeless and far too long\nSentiment: negative\n"
        "Review: {}\nSentiment:",
        "examples-before": "Positive: a moving and beautifully acted film\n"
        "Negative: dull , lifeless and far too long\n"
        "Positive: not once does it put a foot wrong\n"
        "Negative: the jokes , such as they are , fall flat\n"
        "Is the next one positive or negative?\nReview: {}",
        "examples-cut": "Review: a moving and beautifully acted film\nSentiment: positive\n"
        "Review: dull , lifeless and far too long\nSentiment: negative\n"
        "Review: not once does it put a foot wrong\nSentiment: positive\n"
        "Review: the jokes , such as they are , fall flat\nSentiment: negative\n"
        "Review: {}",
        "classify": "Classify the sentiment of the movie review. Review: {}",
    },
}
STRENGTHS = (0.001, 0.01, 0.1)


def features(engine, tokens, with_after):
    """By (layer, pooling), `[n, d]` float32 for every row."""
    prefix = shared_prefix(engine, tokens, np.arange(len(tokens)))
    start, stop, length = (places - len(prefix) for places in (tokens.start, tokens.stop, tokens.lengths))
    kinds = {"mean": ("mean", stop), "last": ("last", stop)} | ({"mean+after": ("mean", length)} if with_after else {})
    pooled = {}
    for batch in plan_batches([tokens[row][len(prefix) :] for row in range(len(tokens))], 1024, share=engine.shares):

        def take(layer, hidden, batch=batch):
            for name, (pooling, past) in kinds.items():
                values = pool(hidden, batch, pooling, start[batch.rows], past[batch.rows])
                store = pooled.setdefault((layer, name), np.zeros((len(tokens), hidden.shape[2]), np.float32))
                store[batch.rows] = values.cpu().numpy()

        engine.run(prefix, batch, take)
    return pooled


def score(X, y, groups, metric):
    """The best cross-validated score over the strengths."""
    function = matthews_corrcoef if metric == "mcc" else accuracy_score
    best = -1.0
    for C in STRENGTHS:
        guesses = np.zeros_like(y)
        for train, held in StratifiedGroupKFold(3, shuffle=True, random_state=0).split(X, y, groups):
            head = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=200))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                guesses[held] = head.fit(X[train], y[train]).predict(X[held])
        best = max(best, function(y, guesses))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(PROMPTS), required=True)
    parser.add_argument("--quantization", default="nf4")
    parser.add_argument("--rows", type=int, default=8551, help="training rows, the first ones")
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 15, 16, 18, 19, 20, 22, 24, 27, 30])
    parser.add_argument("--prompts", nargs="+", default=None)
    parser.add_argument(
        "--side-by-side",
        nargs="*",
        default=["16-mean+20-mean+24-mean", "18-mean+18-last", "18-mean+20-last"],
        help="views joined by +, of layers that are measured",
    )
    parser.add_argument("--data", default="glue", help="glue, or sample to try this out")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    (task,) = find_tasks((args.task,))
    examples = read_task(task, DataConfig(data=args.data), ("train",))["train"]
    texts, y = examples.texts[: args.rows], np.asarray(examples.labels[: args.rows])
    groups = sentence_groups(texts)
    config = BackboneConfig(quantization=args.quantization, compute_dtype=args.dtype)
    source = find_backbone(config)
    device = resolve_device(config.device)
    backbone = load_backbone(source, config, device=device, compute_dtype=resolve_dtype(config.compute_dtype, device))
    engine = PrefillEngine(backbone, args.layers)
    tokenizer = load_tokenizer(source.folder)
    with exact_float32(device):
        for name in args.prompts or PROMPTS[args.task]:
            prompt = PROMPTS[args.task][name]
            after = not prompt.endswith("{}")
            began = time.perf_counter()
            tokens = tokenize(tokenizer, texts, prompt, max_length=512, origin="train")
            pooled = features(engine, tokens, after)
            seconds = time.perf_counter() - began
            poolings = ["mean", "last"] + (["mean+after"] if after else [])
            print(
                f"\n**{name}** `{json.dumps(prompt)[1:-1]}`: {args.task}, {args.quantization}, "
                f"{len(y)} training rows, {seconds:.0f} s\n"
            )
            print("| layer | " + " | ".join(poolings) + " |\n|---|" + "---|" * len(poolings))
            for layer in args.layers:
                cells = [f"{score(pooled[layer, pooling], y, groups, task.metric):.3f}" for pooling in poolings]
                print(f"| {layer} | " + " | ".join(cells) + " |", flush=True)
            for spec in args.side_by_side:
                parts = [part.split("-") for part in spec.split("+")]
                X = np.concatenate([pooled[int(layer), pooling] for layer, pooling in parts], axis=1)
                print(f"| {spec} | {score(X, y, groups, task.metric):.3f} |" + " |" * (len(poolings) - 1), flush=True)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
