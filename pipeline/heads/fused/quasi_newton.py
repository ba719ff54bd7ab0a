"""L-BFGS for many problems at once: each goes its own way and stops at its own optimum, all share every read."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.heads.fused.problems import Problems
from pipeline.heads.fused.spectrum import Preconditioner
from pipeline.heads.fused.stream import F32, F64

MEMORY = 10
"""Pairs of a step and the gradient's change that are kept."""
MOST_READS = 1000
SUFFICIENT = 1e-4
"""Of the decrease that the slope promises, a step must bring this share (Armijo's rule)."""
NOISE = 1e-7
"""Relative differences of the objective below this are rounding."""
SMALLEST_STEP = 1e-5
PATIENCE = 8
"""Reads without a decrease above the noise, after which a problem is as good as float32 makes it."""
AS_GOOD_AS_DONE = 1e-5
"""A problem that ends so is done if another step promises less than this share of its objective."""


@dataclass(frozen=True)
class Optimum:
    """What was found.

    Args:
        weights: `[d + 1, k * m]` float32.
        objectives: `[k]` float64.
        reads: of the features, until the last problem was done.
        converged: `[k]` bool.
    """

    weights: torch.Tensor
    objectives: torch.Tensor
    reads: int
    converged: torch.Tensor


def minimise(
    problems: Problems,
    preconditioner: Preconditioner,
    begin: torch.Tensor,
    *,
    tolerance: float,
    most_reads: int = MOST_READS,
    after_read: Callable[[int, int], None] | None = None,
) -> Optimum:
    """Minimise all problems.

    Limited-memory BFGS (Nocedal & Wright, 2006, algorithm 7.4) in the metric of the features' own spectrum. A read
    evaluates one candidate for each problem that is not done: it takes the step or tries a shorter one.

    Args:
        preconditioner: of the standardised features; about is enough.
        begin: `[d + 1, k * m]` float32, where to begin.
        tolerance: a problem is done when another step promises less than this share of its objective.
        after_read: told how many reads there were, and how many problems are done.
    """
    found = begin.clone()
    objectives = torch.zeros(len(problems), dtype=F64)
    converged = torch.zeros(len(problems), dtype=torch.bool)
    left = torch.arange(len(problems))
    search = _Search(problems, preconditioner, begin)
    reads = 0
    while len(left) and reads < most_reads:
        done, stuck = search.read(tolerance)
        reads += 1
        ends = done | stuck
        if bool(ends.any()):
            columns = _columns_of(left[ends], problems.columns)
            found[:, columns] = search.x[:, ends.repeat_interleave(problems.columns)].to(F32)
            objectives[left[ends]] = search.f[ends]
            converged[left[ends]] = done[ends]
            left = left[~ends]
            search.keep(~ends)
        if after_read is not None:
            after_read(reads, len(problems) - len(left))
    if len(left):
        found[:, _columns_of(left, problems.columns)] = search.x.to(F32)
        objectives[left] = search.f
    return Optimum(found, objectives, reads, converged)


def _columns_of(problems: torch.Tensor, columns: int) -> torch.Tensor:
    return (problems[:, None] * columns + torch.arange(columns)).reshape(-1)


class _Search:
    """The problems that are not done: where they are, what they remember, and what they try next."""

    def __init__(self, problems: Problems, preconditioner: Preconditioner, begin: torch.Tensor) -> None:
        self.problems, self.preconditioner = problems, preconditioner
        self.x = begin.clone()
        self.f = torch.full((len(problems),), torch.inf, dtype=F64)
        self.gradient = torch.zeros(begin.shape, dtype=F32)
        self.direction = torch.zeros(begin.shape, dtype=F32)
        self.slope = torch.zeros(len(problems), dtype=F64)
        self.step = torch.zeros(len(problems), dtype=F64)
        self.size = torch.ones(len(problems), dtype=F64)
        self.fresh = torch.ones(len(problems), dtype=torch.bool)
        self.least = torch.full((len(problems),), torch.inf, dtype=F64)
        self.still = torch.zeros(len(problems), dtype=torch.int64)
        self.pairs: deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = deque(maxlen=MEMORY)

    def read(self, tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate every candidate; which problems are done, and which cannot be improved on in float32, `[k]` each."""
        candidate = torch.addcmul(self.x, self._spread(self.step), self.direction)
        f, gradient64 = self.problems.evaluate(candidate)
        gradient = gradient64.to(F32)
        first = torch.isinf(self.f)
        taken = first | (f <= self.f + SUFFICIENT * self.step * self.slope + NOISE * self.f.abs())
        shorter = -self.slope * self.step / (2 * (f - self.f - self.slope * self.step))
        self._remember(candidate, gradient, taken & ~first)
        of_taken = self._spread(taken).bool()
        self.x = torch.where(of_taken, candidate, self.x)
        self.gradient = torch.where(of_taken, gradient, self.gradient)
        self.f = torch.where(taken, f, self.f)
        shortened = self.step * shorter.clamp(0.1, 0.5).nan_to_num(0.1)
        stuck = ~taken & (shortened < SMALLEST_STEP)
        forgets = stuck & ~self.fresh
        self._forget(forgets)
        turned = taken | forgets
        direction = self._new_direction()
        self.direction = torch.where(self._spread(turned).bool(), direction, self.direction)
        self.slope = torch.where(turned, self._dot(direction, self.gradient), self.slope)
        self.step = torch.where(turned, torch.ones_like(self.step), shortened)
        lower = self.f < self.least - NOISE * self.f.abs()
        self.least = torch.where(lower, self.f, self.least)
        self.still = torch.where(lower, 0, self.still + 1)
        promise = -0.5 * self.slope / self.f.abs()
        ends = (stuck & ~forgets) | (self.still > PATIENCE)
        return (taken & (promise <= tolerance)) | (ends & (promise <= AS_GOOD_AS_DONE)), ends

    def keep(self, which: torch.Tensor) -> None:
        """Go on with some of the problems, `[k]` bool."""
        columns = which.repeat_interleave(self.problems.columns)
        self.problems = self.problems.some(which)
        for name in ("x", "gradient", "direction"):
            setattr(self, name, getattr(self, name)[:, columns])
        for name in ("f", "slope", "step", "size", "fresh", "least", "still"):
            setattr(self, name, getattr(self, name)[which])
        self.pairs = deque(((s[:, columns], y[:, columns], rho[which]) for s, y, rho in self.pairs), maxlen=MEMORY)

    def _remember(self, candidate: torch.Tensor, gradient: torch.Tensor, taken: torch.Tensor) -> None:
        s, y = candidate - self.x, gradient - self.gradient
        along = self._dot(s, y)
        curved = taken & (along > 1e-9 * (self._dot(s, s) * self._dot(y, y)).sqrt())
        if not bool(curved.any()):
            return
        rho = torch.where(curved, 1 / along, torch.zeros_like(along))
        size = along / self._dot(y, self._presolve(y))
        self.size = torch.where(curved, size, self.size)
        self.fresh &= ~curved
        self.pairs.append((s, y, rho))

    def _forget(self, which: torch.Tensor) -> None:
        """Begin anew where the remembered curvature leads nowhere: a squared hinge's changes from place to place."""
        if bool(which.any()):
            self.pairs = deque(((s, y, rho * ~which) for s, y, rho in self.pairs), maxlen=MEMORY)
            self.size = torch.where(which, torch.ones_like(self.size), self.size)
            self.fresh |= which

    def _new_direction(self) -> torch.Tensor:
        q = -self.gradient
        alphas = []
        for s, y, rho in reversed(self.pairs):
            alphas.append(rho * self._dot(s, q))
            q = torch.addcmul(q, self._spread(alphas[-1]), y, value=-1.0)
        q = self._presolve(q) * self._spread(self.size)
        for (s, y, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q = torch.addcmul(q, self._spread(alpha - rho * self._dot(y, q)), s)
        return q

    def _presolve(self, q: torch.Tensor) -> torch.Tensor:
        """What Newton's method would do if every decision had the loss's mean curvature."""
        loss, penalties = self.problems.loss, self.problems.penalties.to(F32)
        of_intercept = loss.curvature + (penalties if loss.penalises_intercept else 0.0)
        solved = self.preconditioner.solve(q[:-1], loss.curvature, penalties, self.problems.rows)
        return torch.cat([solved, q[-1:] / of_intercept])

    def _dot(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """`[k]` float64."""
        by_column = (a * b).sum(dim=0, dtype=F64)
        return by_column.view(-1, self.problems.columns).sum(dim=1)

    def _spread(self, of_problems: torch.Tensor) -> torch.Tensor:
        """`[k]` as float32 `[1, k * m]`."""
        return of_problems.to(F32).repeat_interleave(self.problems.columns)[None]
