"""Heads on disk, without pickle: the project's own as safetensors, scikit-learn's as skops."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.classifier import stored_kind
from pipeline.errors import HeadError
from pipeline.heads.attention_pooling import AttentionPoolingHead
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.scalar_mix import ScalarMixHead
from pipeline.heads.sklearn_head import SklearnHead
from pipeline.heads.torch_head import TorchHead

TENSORS_FILE = "head.safetensors"
SKLEARN_FILE = "head.skops"
JOINT = "joint"
"""The folder of a run of several tasks with one safetensors file a task: standardisation, the shared trunk, head."""
KINDS: Mapping[str, Any] = {
    "linear_model": LinearHead,
    **{head.kind: head for head in (TorchHead, ScalarMixHead, AttentionPoolingHead)},
}
"""Heads that store themselves as safetensors, by the `kind` in their file's metadata; the oldest files name none."""
VETTED = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
"""What scikit-learn's classifiers hold inside at their defaults, beyond skops' own list: arrays and settings."""


def save_head(head: Any, folder: Path) -> Path:
    """Store a head, or any fitted classifier of scikit-learn, in a run's folder and return the file.

    Raises:
        HeadError: the head holds something that could not be loaded again without trusting it.
    """
    if type(head) in KINDS.values():
        path = folder / TENSORS_FILE
        head.save(path)
        return path
    import skops.io

    path = folder / SKLEARN_FILE
    classifier, temperature = (head.pipeline_, head.temperature_) if isinstance(head, SklearnHead) else (head, 1.0)
    # skops says of each entry of a dictionary what it is: a vocabulary takes thirty times its room
    skops.io.dump({"classifier": classifier, "temperature": temperature}, path, compression=zipfile.ZIP_DEFLATED)
    _refuse_untrusted(path)
    return path


def load_head(folder: str | Path, task: str | None = None) -> Any:
    """Load the head of a run's folder; it has scikit-learn's `predict`.

    Args:
        folder: such as data/runs/RUN.
        task: whose head, of a run that has several.

    Raises:
        HeadError: there is none, it is damaged, or it holds types that are neither scikit-learn's nor NumPy's; or a run
            has heads of several tasks, and none of this one.
    """
    folder = Path(folder)
    if (folder / JOINT).is_dir():
        return _load_joint(folder / JOINT, task)
    if (folder / TENSORS_FILE).is_file():
        return _kind_of(folder / TENSORS_FILE).load(folder / TENSORS_FILE)
    path = folder / SKLEARN_FILE
    if not path.is_file():
        raise HeadError("the run has no head", where=folder, expected=f"{TENSORS_FILE} or {SKLEARN_FILE}")
    import skops.io

    vetted = _refuse_untrusted(path)
    try:
        stored = skops.io.load(path, trusted=vetted)
        if not isinstance(stored, dict):  # as they were stored at first
            stored = {"classifier": stored, "temperature": 1.0}
        return SklearnHead.of(stored["classifier"], float(stored["temperature"]))
    except Exception as error:  # a damaged file makes skops raise almost anything
        raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error


def _load_joint(folder: Path, task: str | None) -> TorchHead:
    """The head of one of several tasks."""
    tasks = sorted(path.stem for path in folder.glob("*.safetensors"))
    if task not in tasks:
        raise HeadError(
            "the run has heads of several tasks", where=folder, expected=f"task {' | '.join(tasks)}", found=task
        )
    return TorchHead.load(folder / f"{task}.safetensors")


def _kind_of(path: Path) -> Any:
    """The class of the head in a safetensors file."""
    if (kind := stored_kind(path)) not in KINDS:
        raise HeadError("a head cannot be read", where=path, expected=" | ".join(KINDS), found=kind)
    return KINDS[kind]


def _refuse_untrusted(path: Path) -> list[str]:
    """The types in a skops file beyond those that skops itself trusts, if all of them are vetted here."""
    import skops.io

    try:
        types: list[str] = skops.io.get_untrusted_types(file=path)
    except Exception as error:  # a damaged file makes skops raise almost anything
        raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error
    if untrusted := [name for name in types if name not in VETTED]:
        raise HeadError(
            "a head holds types that are not loaded without trust",
            where=path,
            expected="scikit-learn's and NumPy's types that are known to hold numbers alone",
            found=", ".join(untrusted),
            remedy="use another classifier",
        )
    return types
