"""The empathy scorer: its model, its training, and the scoring of tables of turns."""
