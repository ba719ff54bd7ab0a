"""The frozen LLM: where it comes from, how it is loaded and quantised, and how texts go through it."""
