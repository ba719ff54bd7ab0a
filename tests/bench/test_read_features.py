"""The measurement of reading compares the same bytes, and its figures are of what they say."""

import re
import sys

import numpy as np
import pytest

from pipeline.cache import FeatureSet
from tests.bench import read_features


@pytest.mark.parametrize(("hidden_size", "dtype"), [(576, "float32"), (4096, "bfloat16")])
def test_both_hold_the_same_bits_and_other_bits_are_not_measured(tmp_path, hidden_size, dtype):
    folder, plain = read_features.write_both(tmp_path, hidden_size, dtype, 2**20, 64)
    assert FeatureSet(folder).manifest.shards > 1
    found = read_features.measure(folder, plain, 1)
    assert found["own memory for X, KiB"] < 512  # of 1024: no copy
    assert all(value >= 0 for value in found.values())
    states = np.load(plain)
    states[3, 5] += 1
    np.save(plain, states)
    with pytest.raises(AssertionError, match="they differ"):
        read_features.measure(folder, plain, 1)


def test_it_prints_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(read_features, "SETTLED_NS", 0)
    words = ["--megabytes", "1", "--repeats", "1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["read_features", *words])
    read_features.main()
    out, err = capsys.readouterr()
    assert len(re.findall(r"^\| (?:576, float32|4096, bfloat16) \| (?:sum|copy) \| \d+ \|", out, re.M)) == 4
    assert err.count("opening") == 2
    assert list(tmp_path.iterdir()) == []
