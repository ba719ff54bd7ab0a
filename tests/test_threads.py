"""Threads are as many as asked for, never more than cores, and afterwards as many as before."""

import os

import pytest
import torch

from pipeline.threads import limited_threads


@pytest.mark.parametrize(("asked", "used"), [(0, None), (1, 1), (1000, len(os.sched_getaffinity(0)))])
def test_threads_are_limited_within(asked, used, capsys):
    before = torch.get_num_threads()
    with limited_threads(asked):
        assert torch.get_num_threads() == (before if used is None else used)
    assert torch.get_num_threads() == before
    assert ("instead of 1000" in capsys.readouterr().err) == (asked == 1000)
