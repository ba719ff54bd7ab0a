"""64 logistic heads (16 strengths, 4 seeds of the split) fitted together, against scikit-learn one by one, in one run.

    make bench-heads

Each contender is a process of its own with the same number of threads, and reads the same features and labels from the
same files: rows whose covariance falls as a power law, as those of hidden states do, already standardised. The fits are
the same: nine tenths of the rows, which the seed draws; scikit-learn's `LogisticRegression` (its default tolerance, up
to 1,000 iterations), and, up to 1,024 features, `LogisticRegressionCV`, which begins each strength where the one before
it ended. Neither reading the features nor importing is in the seconds. Objectives are reckoned here, in float64, from
the weights that a contender gives; the optimum is where scikit-learn ends when it goes on from its own solutions to a
tolerance of 1e-8. Memory is the greatest resident size of the process, from its beginning, over the size of the
features. Prints a Markdown table.

Heads that are fitted together standardise each seed's rows anew, scikit-learn takes the features as they are: on many
rows that moves the objective by less than a millionth.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.read_features import resident_kib

SEEDS = 4
STRENGTHS = np.logspace(-4, 1, 16)
EXPONENT = 1.0
"""Of the power law: the i-th variance is i to the minus this."""
GOES_ON = 1e-8
"""scikit-learn's tolerance at the optimum."""


def write_rows(folder: Path, rows: int, width: int) -> None:
    """Features `[rows, width]` float32, standardised, and noisy labels that a direction in them tells apart."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.standard_normal((width, width), dtype=np.float32))[0]
    spectrum = np.arange(1, width + 1, dtype=np.float32) ** (-EXPONENT / 2)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, width))
    for first in range(0, rows, 4096):
        part = random.standard_normal((min(4096, rows - first), width), dtype=np.float32)
        X[first : first + 4096] = (part * spectrum) @ turn
    X -= X.mean(axis=0, dtype=np.float64).astype(np.float32)
    X /= X.std(axis=0, dtype=np.float64).astype(np.float32)
    X.flush()
    direction = random.standard_normal(width, dtype=np.float32)
    decisions = np.concatenate([X[first : first + 4096] @ direction for first in range(0, rows, 4096)])
    decisions *= 2.0 / decisions.std()
    np.save(folder / "y.npy", (decisions > random.logistic(size=rows)).astype(np.int64))


def fit_rows(rows: int, seed: int) -> np.ndarray:
    """`[rows]` bool: nine tenths of them."""
    return np.random.default_rng([1, seed]).random(rows) < 0.9


# --- contenders: each gives weights [seeds, strengths, d] on the features as they are, and intercepts ---


def fit_together(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from pipeline.heads.fused.fit import Candidate, fit_candidates
    from pipeline.heads.fused.moments import FitRows
    from pipeline.heads.fused.stream import FeatureStream

    fits = [FitRows(fit_rows(len(y), seed), y, 2) for seed in range(SEEDS)]
    found = fit_candidates(FeatureStream.of_matrix(X), fits, [Candidate("logreg", C) for C in STRENGTHS])
    return np.array([[fit.coef[0] / fit.scale for fit in heads] for heads in found]), np.array(
        [[fit.intercept[0] - fit.mean @ (fit.coef[0] / fit.scale) for fit in heads] for heads in found]
    )


def fit_one_by_one(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    coefs = np.zeros((SEEDS, len(STRENGTHS), X.shape[1]))
    intercepts = np.zeros((SEEDS, len(STRENGTHS)))
    for seed in range(SEEDS):
        some = fit_rows(len(y), seed)
        X_fit, y_fit = X[some], y[some]
        for place, C in enumerate(STRENGTHS):
            head = LogisticRegression(C=C, max_iter=1000).fit(X_fit, y_fit)
            coefs[seed, place], intercepts[seed, place] = head.coef_[0], head.intercept_[0]
    return coefs, intercepts


def fit_paths(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegressionCV

    folds = [(np.flatnonzero(fit_rows(len(y), seed)), np.flatnonzero(~fit_rows(len(y), seed))) for seed in range(SEEDS)]
    paths = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=folds,
        max_iter=1000,
        refit=False,
        scoring="neg_log_loss",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    ).fit(X, y)
    weights = paths.coefs_paths_.reshape(SEEDS, len(STRENGTHS), X.shape[1] + 1)
    return weights[..., :-1], weights[..., -1]


CONTENDERS = {"together": fit_together, "LogisticRegression": fit_one_by_one, "LogisticRegressionCV": fit_paths}


def run_contender(name: str, folder: Path) -> None:
    """In a process of its own: fit, and write weights, seconds and the greatest resident size."""
    importlib.import_module("pipeline.heads.fused.fit" if name == "together" else "sklearn.linear_model")
    imported = 1024 * resident_kib()
    X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
    began = time.perf_counter()
    coefs, intercepts = CONTENDERS[name](X, y)
    seconds = time.perf_counter() - began
    peak = resident_kib("VmHWM")
    np.savez(folder / name, coefs=coefs, intercepts=intercepts)
    own = (peak * 1024 - imported - X.nbytes) / 2**20
    figures = {"seconds": seconds, "copies": peak * 1024 / X.nbytes, "own": own}
    (folder / f"{name}.json").write_text(json.dumps(figures))


# --- what they found ---


def objectives(X: np.ndarray, y: np.ndarray, coefs: np.ndarray, intercepts: np.ndarray) -> np.ndarray:
    """`[seeds, strengths]`: `C * summed log-loss + |coef|^2 / 2`, in float64."""
    found = np.zeros((SEEDS, len(STRENGTHS)))
    masks = np.stack([fit_rows(len(y), seed) for seed in range(SEEDS)])
    for first in range(0, len(y), 2048):
        rows = slice(first, first + 2048)
        z = np.einsum("nd,scd->nsc", X[rows].astype(np.float64), coefs, optimize=True) + intercepts
        loss = np.logaddexp(0, z) - y[rows, None, None] * z
        found += np.einsum("nsc,sn->sc", loss, masks[:, rows].astype(np.float64))
    return found * STRENGTHS + 0.5 * np.square(coefs).sum(axis=-1)


def optimum(X: np.ndarray, y: np.ndarray, coefs: np.ndarray, intercepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where scikit-learn ends when it goes on from its own solutions."""
    from sklearn.linear_model import LogisticRegression

    coefs, intercepts = coefs.copy(), intercepts.copy()
    for seed in range(SEEDS):
        some = fit_rows(len(y), seed)
        X_fit, y_fit = X[some], y[some]
        for place, C in enumerate(STRENGTHS):
            head = LogisticRegression(C=C, tol=GOES_ON, max_iter=1000, warm_start=True)
            head.classes_, head.n_features_in_ = np.array([0, 1]), X.shape[1]
            head.coef_, head.intercept_ = coefs[seed, [place]].copy(), intercepts[seed, [place]].copy()
            head.fit(X_fit, y_fit)
            coefs[seed, place], intercepts[seed, place] = head.coef_[0], head.intercept_[0]
    return coefs, intercepts


def measure(folder: Path, names: list[str], threads: int) -> dict[str, dict[str, float]]:
    """Run the contenders one after the other; seconds, memory and how far from the optimum each of them ends."""
    environment = {**os.environ, **{f"{each}_NUM_THREADS": str(threads) for each in ("OMP", "OPENBLAS", "MKL")}}
    for name in names:
        words = [sys.executable, "-m", "tests.bench.fused_heads", "--contender", name, "--folder", str(folder)]
        subprocess.run(words, env=environment, check=True)
    X, y = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy")
    weights = {
        name: (np.load(folder / f"{name}.npz")["coefs"], np.load(folder / f"{name}.npz")["intercepts"])
        for name in names
    }
    best = objectives(X, y, *optimum(np.asarray(X), y, *weights["LogisticRegression"]))
    figures = {}
    for name in names:
        off = objectives(X, y, *weights[name]) / best - 1
        figures[name] = json.loads((folder / f"{name}.json").read_text()) | {"off": float(off.max())}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=67349)
    parser.add_argument("--widths", type=int, nargs="+", default=[4096, 576])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--folder", type=Path, help="where the features are written; by default where temporary files go"
    )
    options = parser.parse_args()
    if options.contender:
        run_contender(options.contender, options.folder)
        return
    print(f"64 logistic heads on {options.rows} rows, {options.threads} threads")
    columns = ("d", "contender", "seconds", "times slower", "above the optimum, at most", "peak memory, copies")
    print(f"| {' | '.join(columns)} | beyond imports and features, MiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for width in options.widths:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            write_rows(Path(name), options.rows, width)
            contenders = [each for each in CONTENDERS if each != "LogisticRegressionCV" or width <= 1024]
            figures = measure(Path(name), contenders, options.threads)
        fastest = figures["together"]["seconds"]
        for contender, found in figures.items():
            print(
                f"| {width} | {contender} | {found['seconds']:.1f} | {found['seconds'] / fastest:.1f} | "
                f"{found['off']:.1e} | {found['copies']:.2f} | {found['own']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
