"""Fit many linear heads on one stream of features: every kind, strength and set of rows together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.heads.fused.closed_forms import Solution, lda, nearest_centroid, ridge
from pipeline.heads.fused.moments import FitRows, Moments, measure_moments
from pipeline.heads.fused.objectives import Logistic, Loss, SquaredHinge
from pipeline.heads.fused.problems import Problem, Problems
from pipeline.heads.fused.quasi_newton import minimise
from pipeline.heads.fused.spectrum import Preconditioner, Spectrum, common_spectrum, correlations, matrices_at_once
from pipeline.heads.fused.stream import F32, FeatureStream
from pipeline.kernels import exact_float32


@dataclass(frozen=True)
class Kind:
    """How a kind of linear head is found.

    Args:
        strength: the name of the setting that its penalty's strength goes by, or None where it has none.
        loss: what is minimised by iterations, or None for a closed form.
        closed_form: from moments, spectrum and strength.
        needs_correlation: whether it takes the features' correlation matrix.
    """

    strength: str | None
    loss: Loss | None = None
    closed_form: Callable[[Moments, Spectrum, float], Solution] | None = None
    needs_correlation: bool = False


FITS: Mapping[str, Kind] = {
    "logreg": Kind("C", loss=Logistic()),
    "svm": Kind("C", loss=SquaredHinge()),
    "ridge": Kind(
        "C", closed_form=lambda moments, spectrum, C: ridge(moments, spectrum, 1 / (2 * C)), needs_correlation=True
    ),
    "lda": Kind("shrinkage", closed_form=lda, needs_correlation=True),
    "centroid": Kind(None, closed_form=lambda moments, spectrum, strength: nearest_centroid(moments)),
}


def check_width(kinds: Iterable[str], width: int) -> None:
    """Refuse features that a kind of linear head is too wide for.

    Args:
        kinds: of heads; others than linear ones are not looked at.
        width: numbers a row.

    Raises:
        HeadError: memory has no room for what one of them needs.
    """
    if any(kind in FITS and FITS[kind].needs_correlation for kind in kinds):
        matrices_at_once(width)


@dataclass(frozen=True)
class Candidate:
    """A kind of linear head and the strength of its penalty, in that kind's own terms."""

    kind: str
    strength: float | None


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear head.

    Args:
        mean, scale: `[d]` float64, the standardisation.
        coef: `[m, d]` float64 on standardised features.
        intercept: `[m]` float64.
    """

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray


def decide(stream: FeatureStream, fits: Sequence[LinearFit], which: np.ndarray) -> np.ndarray:
    """Decision values of many heads from one read.

    Args:
        which: `[n]` bool, the rows of the stream that they are wanted for.

    Returns:
        `[m, k, 1]` for two classes, else `[m, k, c]`, float32, the wanted rows in the stream's order.
    """
    scales = np.stack([fit.coef / fit.scale for fit in fits])
    shift = fits[0].mean.astype(np.float32)  # float32 products of features far from zero would lose digits
    centres = [fit.mean - shift for fit in fits]
    offsets = np.stack(
        [fit.intercept - scale @ centre for fit, scale, centre in zip(fits, scales, centres, strict=True)]
    )
    weights = torch.from_numpy(scales.reshape(-1, stream.width).T.astype(np.float32))
    bias, wanted = torch.from_numpy(offsets.ravel()).to(F32), torch.from_numpy(which)
    with exact_float32("cpu"), torch.inference_mode():
        off = torch.from_numpy(shift)
        parts = [torch.addmm(bias, block[wanted[rows]] - off, weights) for rows, block in stream.blocks()]
        return np.asarray(torch.cat(parts).view(-1, *offsets.shape).numpy())


Told = Callable[[str, int, int], None]
"""Told of the progress: the kind of head, how many reads there were, and how many of its heads are done."""


def fit_candidates(
    stream: FeatureStream,
    fits: Sequence[FitRows],
    candidates: Sequence[Candidate],
    told: Told | None = None,
    *,
    tolerance: float = 1e-7,
) -> list[list[LinearFit]]:
    """Fit every candidate on every set of rows.

    Args:
        fits: the sets, all with as many classes.
        tolerance: iterations of a head end when another step promises less than this share of its objective.

    Returns:
        for each set of rows, each candidate's fit, in their orders.

    Raises:
        HeadError: no feature varies among some rows, or a value is not finite.
    """
    kinds = dict.fromkeys(candidate.kind for candidate in candidates)
    with exact_float32("cpu"), torch.inference_mode():
        moments = measure_moments(stream, fits)
        found: dict[tuple[int, Candidate], LinearFit] = {}
        spectra: dict[int, Spectrum] = {}
        keeps = any(FITS[kind].loss for kind in kinds) and _has_room_for_all(stream.width, len(fits), kinds)
        if solved := [each for each in dict.fromkeys(candidates) if FITS[each.kind].closed_form]:
            for numbers, spectrum in _exact_spectra(stream, fits, moments, solved):
                found |= {
                    (number, each): _solve(each, moments[number], spectrum) for number in numbers for each in solved
                }
                spectra |= dict.fromkeys(numbers, spectrum.rounded()) if keeps else {}
            if told is not None:
                told(", ".join(dict.fromkeys(each.kind for each in solved)), 0, len(solved) * len(fits))
        if any(FITS[kind].loss for kind in kinds):
            of_sets = [spectra[number] for number in range(len(fits))] if keeps else []
            preconditioner = Preconditioner(of_sets or [common_spectrum(stream, fits, moments)])
            for kind in kinds:
                if (loss := FITS[kind].loss) is not None:
                    some = [each for each in dict.fromkeys(candidates) if each.kind == kind]
                    found |= _minimise(kind, loss, stream, fits, moments, preconditioner, some, told, tolerance)
        return [[found[number, candidate] for candidate in candidates] for number in range(len(fits))]


def _has_room_for_all(width: int, sets: int, kinds: Iterable[str]) -> bool:
    """Whether the spectra that closed forms take can be held for the iterations of other heads as well."""
    return any(FITS[kind].needs_correlation for kind in kinds) and matrices_at_once(width) >= sets


def _solve(candidate: Candidate, moments: Moments, spectrum: Spectrum) -> LinearFit:
    closed_form = FITS[candidate.kind].closed_form
    assert closed_form is not None
    return _as_fit(moments, *closed_form(moments, spectrum, candidate.strength or 0.0))


def _exact_spectra(
    stream: FeatureStream, fits: Sequence[FitRows], moments: Sequence[Moments], candidates: Sequence[Candidate]
) -> Iterator[tuple[list[int], Spectrum]]:
    """Of each set of rows, where a closed form needs it; the numbers of sets of the same rows come together.

    As many matrices are summed in one read as memory has room for; each is let go of once its spectrum is used.
    """
    if not any(FITS[candidate.kind].needs_correlation for candidate in candidates):
        none = Spectrum(torch.zeros(stream.width, 0), torch.zeros(0), 1.0)
        yield list(range(len(fits))), none
        return
    alike: dict[bytes, list[int]] = {}
    for number, each in enumerate(fits):
        alike.setdefault(each.fit.tobytes(), []).append(number)
    sets = list(alike.values())
    at_once = matrices_at_once(stream.width)
    for first in range(0, len(sets), at_once):
        some = sets[first : first + at_once]
        matrices = correlations(stream, [fits[like[0]] for like in some], [moments[like[0]] for like in some])
        for like in reversed(some):
            yield like, Spectrum.of(matrices.pop())


def _minimise(
    kind: str,
    loss: Loss,
    stream: FeatureStream,
    fits: Sequence[FitRows],
    moments: Sequence[Moments],
    preconditioner: Preconditioner,
    candidates: Sequence[Candidate],
    told: Told | None,
    tolerance: float,
) -> dict[tuple[int, Candidate], LinearFit]:
    classes = fits[0].classes
    heads = range(loss.heads(classes))
    keys = [(number, candidate) for number in range(len(fits)) for candidate in candidates]
    listed = [
        Problem(number, head, 1 / (float(candidate.strength or 1.0) * moments[number].rows))
        for number, candidate in keys
        for head in heads
    ]
    problems = Problems(stream, loss, fits, moments, listed)
    begin = torch.zeros(stream.width + 1, len(listed) * problems.columns)
    optimum = minimise(
        problems,
        preconditioner,
        begin,
        tolerance=tolerance,
        after_read=None if told is None else lambda reads, done: told(kind, reads, done // len(heads)),
    )
    if not bool(optimum.converged.all()):
        done = optimum.converged.view(len(keys), len(heads)).all(dim=1)
        _say_not_converged([candidate for _, candidate in keys], done.tolist())
    weights = optimum.weights.double().view(stream.width + 1, len(keys), len(heads) * problems.columns)
    return {key: _as_fit(moments[key[0]], weights[:-1, place], weights[-1, place]) for place, key in enumerate(keys)}


def _say_not_converged(candidates: Sequence[Candidate], converged: Sequence[bool]) -> None:
    from pipeline.progress import say

    short = sorted({float(each.strength or 1.0) for each, done in zip(candidates, converged, strict=True) if not done})
    strengths = f"{short[0]:.2g}" + (f" to {short[-1]:.2g}" if len(short) > 1 else "")
    number, kind = converged.count(False), candidates[0].kind
    say(f"note: {number} of {len(candidates)} {kind} heads stopped short of their optimum, with C={strengths}")


def _as_fit(moments: Moments, weights: torch.Tensor, intercept: torch.Tensor) -> LinearFit:
    return LinearFit(
        mean=moments.mean.numpy(),
        scale=moments.scale.numpy(),
        coef=np.ascontiguousarray((weights * moments.varies[:, None]).T.numpy()),
        intercept=np.ascontiguousarray(intercept.numpy()),
    )
