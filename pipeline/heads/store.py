"""Heads on disk, without pickle: PyTorch ones as safetensors, scikit-learn ones as skops."""

from pathlib import Path
from typing import Any

from pipeline.errors import HeadError
from pipeline.heads.torch_head import TorchHead

TORCH_FILE = "head.safetensors"
SKLEARN_FILE = "head.skops"


def save_head(head: Any, folder: Path) -> Path:
    """Store a head in a run's folder and return the file.

    Raises:
        HeadError: the head holds something that could not be loaded again without trusting it.
    """
    if isinstance(head, TorchHead):
        path = folder / TORCH_FILE
        head.save(path)
        return path
    import skops.io

    path = folder / SKLEARN_FILE
    skops.io.dump(head, path)
    _refuse_untrusted(path)
    return path


def load_head(folder: Path) -> Any:
    """Load the head of a run's folder; it has scikit-learn's `predict`.

    Raises:
        HeadError: there is none, it is damaged, or it holds types that are neither scikit-learn's nor NumPy's.
    """
    if (folder / TORCH_FILE).is_file():
        return TorchHead.load(folder / TORCH_FILE)
    path = folder / SKLEARN_FILE
    if not path.is_file():
        raise HeadError("the run has no head", where=folder, expected=f"{TORCH_FILE} or {SKLEARN_FILE}")
    import skops.io

    _refuse_untrusted(path)
    return skops.io.load(path, trusted=[])


def _refuse_untrusted(path: Path) -> None:
    import zipfile

    import skops.io

    try:
        untrusted = skops.io.get_untrusted_types(file=path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error
    if untrusted:
        raise HeadError(
            "a head holds types that are not loaded without trust",
            where=path,
            expected="scikit-learn's and NumPy's own types",
            found=", ".join(untrusted),
            remedy="use another classifier",
        )
