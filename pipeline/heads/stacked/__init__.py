"""Heads that AdamW trains: many of them as one stack, from the same batches."""
