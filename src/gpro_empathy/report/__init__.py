"""What turns the numbers into the report: LaTeX, figures, the results page, provenance; no torch."""
