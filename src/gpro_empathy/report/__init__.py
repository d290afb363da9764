"""What turns numbers into the report: LaTeX, figures, the results page, provenance; no torch."""
