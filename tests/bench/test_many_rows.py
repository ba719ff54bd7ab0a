"""The benchmark of many rows streams them through stage one as any corpus, and counts them all."""

from tests.bench.many_rows import measure


def test_rows_are_streamed_to_shards_and_counted(tmp_path):
    found = measure(2000, tmp_path, shard_rows=300, prompt="What do you say to this? {}")
    assert (found["rows"], found["shards"]) == (2000, 7)
    assert found["tokens"] > 1.3 * found["computed_tokens"] > 2000  # the prompt is shared
    assert 0 < found["start_seconds"] < found["seconds"]
    assert 1000 < found["manifest_bytes"] < 4000
