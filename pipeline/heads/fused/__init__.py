"""Many linear heads from one read of the features: moments, closed forms, and a batched quasi-Newton method."""
