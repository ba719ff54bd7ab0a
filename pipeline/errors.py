"""One root error, one class per kind of trouble; a command prints the message and exits with code 2."""

import difflib
from collections.abc import Iterable
from typing import Any


def shortened(text: str, most: int) -> str:
    """A text, or as much of it as there is room for, with an ellipsis.

    Args:
        most: characters.
    """
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The question for a name that is not known, where one that is known is like it.

    Args:
        cutoff: how like it, from 0 to 1 (`difflib.get_close_matches`).
    """
    near = difflib.get_close_matches(name, [*known], n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else None


class PipelineError(Exception):
    """A trouble that the user can mend: what was wrong, expected and found, where, and what to do.

    Args:
        what: one sentence that says what is wrong.
        expected: what would have been right.
        found: what there is instead.
        where: path, field or row.
        remedy: what to do next.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        found: object = None,
        where: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.expected, self.found, self.where, self.remedy = what, expected, found, where, remedy
        parts = [("where", where), ("expected", expected), ("found", found), ("do", remedy)]
        lines = [what, *(f"  {name}: {value}" for name, value in parts if value is not None)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it keeps its kind and all it says, whatever its kind is made with: it travels between processes."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[PipelineError], args: tuple[Any, ...], fields: dict[str, Any]) -> PipelineError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigError(PipelineError):
    """A setting is wrong, or settings do not go together."""


class DataError(PipelineError):
    """A corpus is missing, malformed, or disagrees with its task."""


class MissingSplit(DataError):
    """A corpus lacks a split."""


class SentenceError(DataError):
    """A sentence among others cannot be used.

    Args:
        what: one sentence that says what is wrong.
        line: where it stands, from 1; the first, where there are several.
        details: as of every trouble.
    """

    def __init__(self, what: str, line: int, **details: Any) -> None:
        super().__init__(what, **details)
        self.line = line


class BackboneError(PipelineError):
    """A backbone cannot be found, read, loaded or trusted."""


class CacheError(PipelineError):
    """Something in the feature cache is missing, damaged or ambiguous."""


class DiskFull(CacheError):
    """There is no room for what has to be written."""


class FeatureSetNotFound(CacheError):
    """No feature set has the identity that was asked for."""


class DamagedFeatureSet(CacheError):
    """A file of a feature set does not hold what its seal says."""


class TransferError(CacheError):
    """A feature set cannot be copied to or from another place."""


class HeadError(PipelineError):
    """A head is unknown, cannot be trained on these features, or cannot be loaded."""


class AdapterError(PipelineError):
    """An adapter or a soft prompt cannot be trained with these settings, or cannot be loaded."""


class RunError(PipelineError):
    """A run is missing or its record cannot be read."""


class MachineError(PipelineError):
    """Something of this machine does not work, or does not suit what is installed."""


class MissingPackage(PipelineError):
    """A package that this command needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed",
            remedy=f"make setup (or: pip install 'feature-cache-pipeline[{extra}]')",
        )
