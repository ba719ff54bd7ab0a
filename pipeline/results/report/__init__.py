"""The report: every run's results as one self-contained HTML page. What is gathered, each figure, and the page."""
