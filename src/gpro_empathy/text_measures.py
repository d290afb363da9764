"""Measures of a text alone: how much it repeats itself, and how much it copies."""

import re

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
# Function words, which any two English texts share.
FUNCTION_WORDS = frozenset(
    "a about after again all also am an and any are aren't as at be because been before being but by can can't could did "
    "didn't do does doesn't doing don't down for from had has have having he her here him his how i i'm i've if in into is "
    "isn't it it's its just me more most my no nor not now of off on once only or other our out over own same she should "
    "so some such than that that's the their them then there these they they're this those through to too under until up "
    "very was wasn't we were what when where which while who why will with won't would you you're your yours".split()
)


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case, apostrophes straightened."""
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]


def distinct_n(text: str, n: int) -> float:
    """Return the share of distinct word n-grams among all of `text` (Li et al. 2016).

    It is 1 where there is none to repeat.
    """
    tokens = words(text)
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def overlap(source: str, text: str) -> float:
    """Return the share of the distinct content words of `text` that stand in `source`.

    It is 0 if `text` has none.
    """
    content = set(words(text)) - FUNCTION_WORDS
    return len(content & set(words(source))) / len(content) if content else 0.0
