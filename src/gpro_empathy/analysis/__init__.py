"""Statistics of the responses and of the scorers, on plain arrays and tables; no torch."""
