"""The measurement of many heads compares the same fits, and says how far from the optimum each contender ends."""

import re
import sys

import numpy as np
import pytest

from tests.bench import fused_heads


@pytest.mark.slow
def test_it_prints_a_table_and_all_come_near_the_same_optimum(monkeypatch, capsys, tmp_path):
    words = ["--rows", "4000", "--widths", "12", "--threads", "1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["fused_heads", *words])
    fused_heads.main()
    out = capsys.readouterr().out
    lines = re.findall(r"^\| 12 \| (\w+) \| ([\d.]+) \| ([\d.]+) \| (\S+) \| ([\d.]+) \| ([\d.]+) \|$", out, re.M)
    assert [line[0] for line in lines] == ["together", "LogisticRegression", "LogisticRegressionCV"]
    assert all(float(off) < 1e-3 for *_, off, _, _ in lines)
    assert float(lines[0][3]) < 1e-4
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_the_optimum_are_seen(tmp_path):
    fused_heads.write_rows(tmp_path, 4000, 12)
    X, y = np.load(tmp_path / "X.npy"), np.load(tmp_path / "y.npy")
    coefs, intercepts = fused_heads.fit_together(X, y)
    best = fused_heads.objectives(X, y, *fused_heads.optimum(X, y, coefs, intercepts))
    off = fused_heads.objectives(X, y, 1.1 * coefs, intercepts) / best - 1
    assert off.max() > 1e-3
    assert abs(fused_heads.objectives(X, y, coefs, intercepts) / best - 1).max() < 1e-4
    assert X.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert 0.3 < y.mean() < 0.7
