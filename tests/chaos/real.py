"""The real `pipeline extract`, on a tiny backbone, killed at random instants and run again."""

import shlex
import time
from typing import TYPE_CHECKING

from pipeline.cache.manifest import MANIFEST
from tests.chaos.bench import ROOT, Bench, Broken, Outcome, Reference
from tests.tiny_backbone import make_tiny_backbone, write_small_glue

if TYPE_CHECKING:
    from tests.chaos.faults import Turn

_uninterrupted: dict[str, list[Reference]] = {}


def kill_real_extract(bench: Bench, turn: "Turn") -> Outcome:
    """SIGKILL from outside, whenever; two views at once."""
    words = ["--cache-dir", str(bench.cache), "--glue-dir", str(bench.scratch / "glue")]
    words += ["--models-dir", str(bench.scratch / "models"), "--backbone", str(bench.scratch / "tiny-llama")]
    words += shlex.split("--tasks cola --splits train --layers 1 --poolings mean tokens --shard-rows 12 --threads 1")
    if not _uninterrupted:
        make_tiny_backbone(bench.scratch / "tiny-llama", ROOT / "data" / "sample")
        write_small_glue(bench.scratch / "glue", ROOT / "data" / "sample")
        bench.worker.start("import", "pipeline.extract.run")
        bench.lay()
        bench.worker.do("extract", *words)  # the first time, digests of the weights are made too
        bench.lay()
        began = time.monotonic()
        told = bench.worker.do("extract", *words)
        seconds = time.monotonic() - began
        folders = sorted(path.parent for path in bench.cache.rglob(MANIFEST))
        if "gave" not in told or len(folders) != 2:
            raise Broken(f"without any fault, pipeline extract writes {len(folders)} feature sets: {told}")
        _uninterrupted["sets"] = [bench.reference(bench.cache, each, {"seconds": seconds}) for each in folders]
    references = _uninterrupted["sets"]
    bench.lay()
    seconds = turn.rng.uniform(0.2, 1) * references[0].seconds
    bench.kill_at(bench.worker.start("extract", *words), seconds)
    bench.worker.end()
    outcome = Outcome(f"pipeline extract killed after {seconds * 1000:.0f} ms")
    seals = {path: path.stat() for path in bench.cache.rglob("shard-*.json")}
    for reference in references:
        bench.judge_reading(outcome, bench.cache / reference.name, [reference])
    told = bench.worker.do("extract", *words)
    outcome.sealed_lost = sum(path.stat().st_ino != was.st_ino for path, was in seals.items())
    bench.judge_repair(outcome, told, *references)
    return outcome
