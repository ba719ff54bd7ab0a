"""How much faster adapters train whose live passes begin at cached states, against the same adapters with whole passes.

    make bench-top-layers GLUE_DIR=…

Both train by turns, on the same rows in the same order; before that, stage one writes the states where one begins.
Prints Markdown: seconds an epoch (training and its evaluations), their ratio, and how far the steps' losses are apart.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.adapters.lora_plan import Settings
from pipeline.adapters.lora_run import adapt_lora
from pipeline.adapters.training import Training
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, ExtractConfig, PassConfig, RunsConfig, TokensConfig
from pipeline.extract.run import extract
from pipeline.live_config import LivePathConfig, LoraOptions, TrainingConfig
from pipeline.views import View


@contextmanager
def losses_noted() -> Iterator[list[float]]:
    """Within, the loss of every step is noted."""
    found: list[float] = []
    do = Training._do

    def noting(self: Training, step: object) -> float:
        found.append(do(self, step))
        return found[-1]

    Training._do = noting
    try:
        yield found
    finally:
        Training._do = do


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Train in both ways by turns, and print the table."""
    data = DataConfig(data=options.data)
    backbone = BackboneConfig(backbone=options.backbone, quantization=options.quantization)
    cache, runs = CacheConfig(folder / "cache"), RunsConfig(folder / "runs")
    view = View.parse(options.view)
    from pipeline.backbone.catalogue import find_backbone
    from pipeline.backbone.facts import read_facts

    blocks = read_facts(find_backbone(backbone), backbone, "float32").num_hidden_layers
    layer = int(view.resolved(blocks).layer) - options.top_layers
    began = time.perf_counter()
    what = ExtractConfig(tasks=(options.task,), layers=(str(layer),), poolings=("tokens",))
    extract(what, data, backbone, TokensConfig(), PassConfig(), cache)
    once = time.perf_counter() - began
    seconds: dict[bool, list[float]] = {False: [], True: []}
    losses: dict[bool, list[float]] = {}
    for _ in range(options.repeats):
        for whole in (False, True):
            lora = LoraOptions(top_layers=options.top_layers, whole_passes=whole, views=options.view, gate="off")
            training = TrainingConfig(epochs=1, max_rows=options.rows, evaluation_rows=options.rows // 10 or 10**6)
            live = LivePathConfig(tasks=(options.task,))
            with losses_noted() as found:
                (run,) = adapt_lora(Settings(live, lora, training, data, backbone, TokensConfig(), cache, runs))
            seconds[whole].append(run.seconds)
            losses[whole] = found
    apart = max(abs(a - b) / abs(b) for a, b in zip(losses[False][:50], losses[True][:50], strict=True))
    top, full = (statistics.median(seconds[whole]) for whole in (False, True))
    print("| passes | seconds an epoch | times faster |\n|---|---|---|")
    print(f"| whole | {full:,.1f} | 1 |")
    print(f"| from layer {layer} of {blocks} on, cached | {top:,.1f} | {full / top:.2f} |")
    rows = f"{options.rows or 'all'} training rows"
    steps = min(50, len(losses[True]))
    print(
        f"\n{options.task}, {rows}, views {options.view}, {options.quantization}; medians of {options.repeats}.\n"
        f"The losses of the first {steps} steps differ by {apart:.1e} relative at most.\n"
        f"Stage one took {once:,.0f} s for the cached states, once."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glue")
    parser.add_argument("--task", default="cola")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--quantization", default="nf4")
    parser.add_argument("--view", default="L-1-mean")
    parser.add_argument("--top-layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2000, help="training rows; 0 is all")
    parser.add_argument("--repeats", type=int, default=3)
    with tempfile.TemporaryDirectory() as folder:
        compare(parser.parse_args(), Path(folder))


if __name__ == "__main__":
    main()
