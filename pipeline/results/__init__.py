"""What came out: scores, the ledger of runs, their predictions, and tables for people."""
