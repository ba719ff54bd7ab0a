"""How features vary together: correlation matrices and their eigenvectors, which serve every strength of a penalty."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.errors import HeadError
from pipeline.heads.fused.moments import FitRows, Moments
from pipeline.heads.fused.stream import F32, F64, MEMORY_SHARE, FeatureStream
from pipeline.memory import free_bytes

WHOLE_WIDTH = 2048
"""Up to this width all eigenvectors are found for a common preconditioner; beyond, the greatest `MOST_VECTORS`."""
MOST_VECTORS = 512
ROWS_A_FEATURE = 4
"""Of wide features a preconditioner takes about so many rows for each."""
POWERS = 2
"""Subspace iterations before the eigenvectors are read off."""
BESIDE = 5
"""Matrices that stand in memory beside those of the sets of rows: of all rows, and what finding eigenvectors takes."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors of a correlation matrix `[d, d]`, all of them or the greatest.

    Args:
        vectors: `[d, r]`, orthonormal.
        values: `[r]`, their eigenvalues.
        rest: the eigenvalue that stands for all others, where `r < d`.
    """

    vectors: torch.Tensor
    values: torch.Tensor
    rest: float

    @classmethod
    def of(cls, correlation: torch.Tensor) -> "Spectrum":
        """All eigenvectors of a correlation matrix."""
        values, vectors = torch.linalg.eigh(correlation)
        return cls(vectors, values.clamp_min(0.0), 0.0)

    def rounded(self) -> "Spectrum":
        """The same in float32."""
        return Spectrum(self.vectors.to(F32), self.values.to(F32), self.rest)

    def solve(self, q: torch.Tensor, curvature: float, penalties: torch.Tensor) -> torch.Tensor:
        """`(curvature * A + penalty * I)^-1 q`, for every column with its own penalty; of 0, the pseudo-inverse.

        Args:
            q: `[d, k]`.
            penalties: `[k]`, not negative.
        """
        curvatures = curvature * self.values[:, None] + penalties
        least = len(q) * torch.finfo(curvatures.dtype).eps * curvatures.max(dim=0).values
        of_vectors = torch.where((penalties > 0) | (curvatures > least), 1 / curvatures, 0.0)
        turned = self.vectors.T @ q
        if self.vectors.shape[1] == len(q):
            return self.vectors @ (of_vectors * turned)
        of_rest = 1 / (curvature * self.rest + penalties)
        return of_rest * q + self.vectors @ ((of_vectors - of_rest) * turned)


@dataclass(frozen=True)
class Preconditioner:
    """What takes the place of the Hessian's inverse: the spectrum of each set of rows, or about that of all of them.

    Args:
        spectra: in float32; one for all sets, or one for each.
    """

    spectra: Sequence[Spectrum]

    def solve(self, q: torch.Tensor, curvature: float, penalties: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """As `Spectrum.solve`; no penalty is less than what float32 can tell from none.

        Args:
            q: `[d, k]`.
            penalties: `[k]`, not negative.
            rows: `[k]` int64, the number of the set of rows that each column is of.
        """
        if len(self.spectra) == 1:
            return self._solve(self.spectra[0], q, curvature, penalties)
        solved = torch.empty_like(q)
        for number in torch.unique(rows).tolist():
            some = (rows == number).nonzero()[:, 0]
            solved[:, some] = self._solve(self.spectra[number], q[:, some], curvature, penalties[some])
        return solved

    def _solve(self, spectrum: Spectrum, q: torch.Tensor, curvature: float, penalties: torch.Tensor) -> torch.Tensor:
        # directions that float32 cannot tell from none are not stepped along as if they were flat
        least = torch.finfo(F32).eps * curvature * float(spectrum.values.max())
        return spectrum.solve(q, curvature, penalties.clamp_min(least))


def common_spectrum(stream: FeatureStream, fits: Sequence[FitRows], moments: Sequence[Moments]) -> Spectrum:
    """About the spectrum of the standardised features of all rows that something is fitted on, for a preconditioner.

    All eigenvectors come from all rows: a direction that only a few rows have must not be missed, or a step along it
    would be far too long. Of wide features the greatest eigenvectors come from a part of the rows, by subspace
    iteration (Halko et al., 2011, arXiv:0909.4061), without ever holding a matrix `[d, d]`; a missed direction counts
    as one of the rest.
    """
    used = torch.from_numpy(np.any([each.fit for each in fits], axis=0))
    if stream.width <= WHOLE_WIDTH:
        return Spectrum.of(_StandardisedRows(stream, moments, used).correlation())
    used[torch.arange(len(used)) % max(1, len(used) // (ROWS_A_FEATURE * stream.width)) > 0] = False
    rows = _StandardisedRows(stream, moments, used)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(stream.width, MOST_VECTORS, generator=generator)
    for _ in range(POWERS):
        basis = torch.linalg.qr(rows.times(basis))[0]
    values, turned = torch.linalg.eigh(basis.T @ rows.times(basis))
    varying = torch.stack([each.varies for each in moments]).any(dim=0).sum()
    left = max(float(varying) - float(values.sum()), 0.0) / (stream.width - MOST_VECTORS)
    return Spectrum(basis @ turned, values.clamp_min(0.0), left)


class _StandardisedRows:
    """Rows of a stream, standardised, and products with their correlation matrix.

    A feature's scale is its greatest in any of several sets of rows: one that is constant in a set may vary in others.

    Args:
        which: `[n]` bool.
    """

    def __init__(self, stream: FeatureStream, moments: Sequence[Moments], which: torch.Tensor) -> None:
        self.stream, self.which = stream, which
        self.mean = torch.stack([each.mean for each in moments]).mean(dim=0).to(F32)
        scale = torch.stack([each.scale * each.varies for each in moments]).amax(dim=0)
        self.scale = torch.where(scale > 0, scale, 1.0).to(F32)

    def blocks(self) -> Iterator[torch.Tensor]:
        """`[b, d]` each."""
        for rows, block in self.stream.blocks():
            yield (block[self.which[rows]] - self.mean).div_(self.scale)

    def correlation(self) -> torch.Tensor:
        """Their correlation matrix `A`, `[d, d]`."""
        gram, rows = torch.zeros(self.stream.width, self.stream.width), 0
        for block in self.blocks():
            gram.addmm_(block.T, block)
            rows += len(block)
        return gram / rows

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """`A @ matrix`, of a matrix `[d, k]`."""
        product, rows = torch.zeros_like(matrix), 0
        for block in self.blocks():
            product.addmm_(block.T, block @ matrix)
            rows += len(block)
        return product / rows


def matrices_at_once(width: int) -> int:
    """How many correlation matrices `[d, d]` float64 memory has room for, beside what finding eigenvectors takes.

    Raises:
        HeadError: not even one.
    """
    share, each = MEMORY_SHARE * free_bytes(), 8 * width**2
    if share < (BESIDE + 1) * each:
        raise HeadError(
            "the features are too wide for ridge and lda, which need their correlation matrix",
            expected=f"at most {int((share / (BESIDE + 1) / 8) ** 0.5):,} numbers a row in the memory that is free",
            found=f"{width:,}: {(BESIDE + 1) * each / 1e9:,.1f} GB",
            remedy="leave these heads out, put fewer views side by side, or take fewer --workers on a machine",
        )
    return int(share // each) - BESIDE


def correlations(stream: FeatureStream, fits: Sequence[FitRows], moments: Sequence[Moments]) -> list[torch.Tensor]:
    """The correlation matrices `[d, d]` float64 of several different sets of rows, in one read.

    The Gram matrix of all rows is summed once; a set that leaves out the fewer rows takes theirs off, so many nearly
    whole sets cost little more than one. Products are float64: a weak penalty divides by the smallest eigenvalues,
    which float32 would drown in its rounding.
    """
    centre, scale = moments[0].mean, moments[0].scale
    leaves_out = [bool(each.fit.mean() > 0.5) for each in fits]
    few = [torch.from_numpy(each.fit ^ leaves) for each, leaves in zip(fits, leaves_out, strict=True)]
    whole = torch.zeros(stream.width, stream.width, dtype=F64) if any(leaves_out) else None
    grams = [torch.zeros(stream.width, stream.width, dtype=F64) for _ in fits]
    for rows, block in stream.blocks():
        standardised = (block.to(F64) - centre).div_(scale)
        if whole is not None:
            whole.addmm_(standardised.T, standardised)
        for gram, mask in zip(grams, few, strict=True):
            if bool((here := mask[rows]).any()):
                some = standardised[here]
                gram.addmm_(some.T, some)
    for gram, leaves, of_set in zip(grams, leaves_out, moments, strict=True):
        if leaves and whole is not None:
            torch.sub(whole, gram, out=gram)
        _centre(gram, of_set, centre, scale)
    return grams


def _centre(gram: torch.Tensor, moments: Moments, centre: torch.Tensor, scale: torch.Tensor) -> None:
    """Make the Gram matrix of rows, taken around another centre and scale, their correlation matrix."""
    off = (moments.mean - centre) / scale
    ratio = scale / moments.scale * moments.varies
    gram.div_(moments.rows).addr_(off, off, alpha=-1.0)
    gram.mul_(ratio[:, None]).mul_(ratio)
