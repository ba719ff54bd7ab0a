"""What is set before torch is loaded: by the command, and never over what a person set."""

import gc

import pytest

from pipeline import before_torch


@pytest.fixture(autouse=True)
def collector():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_threads_of_a_stream_sleep_and_those_of_a_training_do_not():
    stream, training = {}, {}
    before_torch.set_for(["extract", "--tasks", "cola"], stream)
    before_torch.set_for(["--config", "settings.toml", "adapt", "lora"], training)
    assert stream["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not training


def test_what_is_set_stays():
    environment = {"OMP_WAIT_POLICY": "ACTIVE", "LRU_CACHE_CAPACITY": "7"}
    before_torch.set_for([], environment)
    assert (environment["OMP_WAIT_POLICY"], environment["LRU_CACHE_CAPACITY"]) == ("ACTIVE", "7")


@pytest.mark.parametrize("command", ["extract", "adapt"])
@pytest.mark.parametrize(("before", "after"), [(700, before_torch.OBJECTS_A_COLLECTION), (0, 0), (50_000, 50_000)])
def test_what_is_imported_is_not_walked_over_again_and_again(command, before, after):
    gc.set_threshold(before)
    before_torch.set_for([command], {})
    assert gc.get_threshold()[0] == after
