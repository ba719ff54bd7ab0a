"""Processes that share a machine share its memory."""

import pytest

from pipeline import memory
from pipeline.memory import free_bytes, part_of_memory


def test_of_a_part_no_more_is_free_whatever_the_others_leave(monkeypatch):
    free = [8000]
    monkeypatch.setattr(memory, "_free_of_machine", lambda: free[0])
    with part_of_memory(4):
        assert free_bytes() == 2000
        free[0] = 7000  # the others have taken some of theirs
        assert free_bytes() == 2000
        free[0] = 500
        assert free_bytes() == 500
    free[0] = 8000
    with pytest.raises(KeyboardInterrupt), part_of_memory(2):
        raise KeyboardInterrupt
    assert free_bytes() == 8000
