"""Which backbone: several of them on one stated sample, what each costs and what its features are worth."""
