"""Read a corpus once with a frozen, quantised LLM; train heads on the cached hidden states as often as you like."""

__version__ = "0.1.0"
