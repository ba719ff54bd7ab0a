"""Stage two: heads trained on cached features, without the model, the corpus or a GPU."""

from pipeline.heads.attention_pooling import AttentionPoolingHead
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.scalar_mix import ScalarMixHead
from pipeline.heads.sklearn_head import SklearnHead
from pipeline.heads.store import load_head, save_head
from pipeline.heads.torch_head import TorchHead

__all__ = [
    "AttentionPoolingHead",
    "LinearHead",
    "ScalarMixHead",
    "SklearnHead",
    "TorchHead",
    "load_head",
    "save_head",
]
