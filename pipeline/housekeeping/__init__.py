"""What lies in the cache, which runs use it, and what may go."""
