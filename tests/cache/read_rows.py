"""Open a feature set over and over, and check every value: `read_rows.py <folder> <seconds>`.

Prints `ready` after the first reading and `read <times>` at the end; anything wrong is a traceback.
"""

import gc
import sys
import time
from pathlib import Path

import numpy as np
from write_shards import ROWS, hidden_states

from pipeline.cache import FeatureSet


def main(folder: Path, seconds: float) -> None:
    expected = np.stack([hidden_states(row) for row in range(ROWS)])
    ends = time.monotonic() + seconds
    times = 0
    held = None
    while times < 2 or time.monotonic() < ends:
        feature_set = FeatureSet(folder)
        X = feature_set.X
        assert np.array_equal(X, expected)
        assert feature_set.y.tolist() == [row % 2 for row in range(ROWS)]
        for batch, _, rows in feature_set.batches(100, shuffle=True, epoch=times, block_rows=50):
            assert np.array_equal(batch, expected[rows])
        assert held is None or np.array_equal(held, expected)  # a map outlives the file's replacement
        held = X
        times += 1
        if times == 1:
            print("ready", flush=True)
        gc.collect()
    print("read", times, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
