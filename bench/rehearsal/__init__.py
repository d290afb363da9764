"""Rehearse a profile: its real stages for a few steps, on random models of its architectures."""
