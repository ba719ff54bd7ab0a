"""What this machine has, what of it will be used, and what to do about each problem."""
