"""Settings of the interpreter and of libraries that are made before these are loaded: they suit a command's work."""

import gc
import os
from collections.abc import MutableMapping

_STREAMING = {
    # Threads that wait must sleep: spinning, they stall each other as soon as another process wants a core, and several
    # processes share a feature set's shards.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Of every shape of batch that was ever seen, a thousand by default, oneDNN keeps code and scratch memory.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
    "LRU_CACHE_CAPACITY": "16",
}
OBJECTS_A_COLLECTION = 10_000
"""New objects after which cycles are looked for. Importing torch and transformers makes millions that stay; at Python's
own 700 the collector walks over them again and again, for a second and more of a command's start."""


def set_for(words: list[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the command of a command line needs; what is set already stays.

    Training's threads are left alone: a step is thousands of short parallel pieces, and threads that slept between them
    would take nearly twice the time; its products, forward and backward, have a hundred shapes that come again.
    """
    if 0 < gc.get_threshold()[0] < OBJECTS_A_COLLECTION:  # 0 is a collector that was turned off
        gc.set_threshold(OBJECTS_A_COLLECTION)
    if "adapt" in words:  # `--config` may stand before it
        return
    for name, value in _STREAMING.items():
        environment.setdefault(name, value)
