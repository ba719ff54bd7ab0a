"""How many rows the real GLUE has: what tells it from a part of it, or from another corpus in its layout."""

from collections.abc import Mapping

GLUE_ROWS: Mapping[tuple[str, str], int] = {
    ("cola", "train"): 8551,
    ("cola", "validation"): 1043,
    ("cola", "test"): 1063,
    ("sst2", "train"): 67349,
    ("sst2", "validation"): 872,
    ("sst2", "test"): 1821,
}
"""By task and split."""
