"""Reward terms such as a user would write, in a module of their own."""

import re

import numpy as np


def question(utterances, responses):
    """Return 1 for an answer that asks something."""
    return np.array([float(response.answer.endswith("?")) for response in responses])


def format_reward_func(completions, **kwargs):
    """Return 1 for a completion in a format, as in TRL's documentation."""
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(pattern, content) else 0.0 for content in contents]


def echo(prompts, completions):
    """Return 1 for a completion that repeats the user's message, without **kwargs."""
    pairs = zip(prompts, completions, strict=True)
    return [float(prompt[-1]["content"] == completion[0]["content"]) for prompt, completion in pairs]


def correct(completions, ground_truth, **kwargs):
    """Return 1 for a completion that is the answer in a column of the data set."""
    return [float(completion == truth) for completion, truth in zip(completions, ground_truth, strict=True)]


def not_always(completions, **kwargs):
    """Return None, TRL's word for a sample that the reward does not apply to."""
    return [None for _ in completions]
