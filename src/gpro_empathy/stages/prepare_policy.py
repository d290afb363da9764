"""Bring the starting policy into one form.

Writes  models/policy/   tokenizer, and weights as safetensors unless they come from a hub
"""

from pathlib import Path

from gpro_empathy import entry_point, params
from gpro_empathy.policy import conversion

POLICY = Path("models/policy")


def main() -> None:
    """Run the stage."""
    conversion.convert(params.load(params.Policy), POLICY)


if __name__ == "__main__":
    entry_point.run_stage(main)
