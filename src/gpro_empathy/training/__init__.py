"""Training of the policy: supervised warm start, GRPO and its engines, rollouts."""
