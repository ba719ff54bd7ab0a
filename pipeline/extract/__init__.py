"""Stage one: a corpus goes through the backbone once, and its hidden states into shards."""
