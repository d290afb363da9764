"""Train a language model to answer with empathy by GRPO, and measure honestly whether it does."""
