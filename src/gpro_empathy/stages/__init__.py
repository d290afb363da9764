"""The stages of dvc.yaml, one module each, run as `python -m gpro_empathy.stages.<name>`."""
