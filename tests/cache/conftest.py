"""What tests of the cache share."""

import os

import pytest

from tests.cache.small_corpus import IDENTITY, Corpus


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Leave out fsync: no test here cuts the power, and hundreds of sets would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def identity():
    return IDENTITY


@pytest.fixture(scope="session")
def corpus():
    """The small corpus' class: `corpus(rows=…, shard_rows=…, changes=…, facts=…)`."""
    return Corpus


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture(params=["mean", "tokens"])
def pooling(request):
    return request.param
