"""How the report calls the policies and the metrics, and whether a rise of a metric is good."""

POLICIES = ("base", "warm_start", "tuned")
POLICY_LABELS = {"base": "base", "warm_start": "warm start", "tuned": "tuned"}

# Label, unit (an empty one is a share or has none), digits after the point.
_KNOWN = {
    "empathy_raw": ("empathy, reward's scorer", "label units", 2),
    "semantic_similarity_raw": ("semantic similarity", "", 3),
    "combined_reference": ("combined score, reference-calibrated", "", 3),
    "combined_batch": ("combined score, batch-calibrated", "", 3),
    "audit_empathy_raw": ("empathy, held-out scorer", "label units", 2),
    "well_formed": ("well-formed", "", 2),
    "answer_words": ("answer length", "words", 1),
    "overlap": ("overlap with the user's words", "", 3),
    "distinct_2": ("distinct bigrams", "", 3),
    "intensity_agreement": ("stated intensity agrees", "", 2),
    "stock_phrase": ("stock phrase in the answer", "", 2),
    "likelihood_raw": ("likelihood", "nats", 2),
    "polarity_match_raw": ("polarity match", "", 2),
    "relative_empathy_raw": ("relative empathy", "label units", 2),
    "approach_match_raw": ("approach match", "nats", 2),
    "reader_sense_raw": ("reader sense", "", 2),
    "relative_reader_sense_raw": ("relative reader sense", "", 2),
    "reader_empathy_raw": ("reader empathy", "", 2),
    "relative_reader_empathy_raw": ("relative reader empathy", "", 2),
    "length_raw": ("length term", "", 2),
    "overlap_raw": ("overlap term", "", 3),
    "repetition_raw": ("repetition term", "", 3),
    "well_formed_raw": ("format term", "", 2),
    "commonest_level": ("share of the commonest stated intensity", "", 2),
}
_SHORT = {
    "empathy_raw": "empathy, reward",
    "audit_empathy_raw": "empathy, held-out",
    "combined_reference": "combined score",
    "combined_batch": "combined, batch",
    "overlap": "overlap",
    "intensity_agreement": "intensity agrees",
}
# Metrics of which more is neither better nor worse.
_NEUTRAL = frozenset(
    {"answer_words", "overlap", "stock_phrase", "commonest_level", "prompt_tokens", "completion_tokens"}
)


def label(metric: str) -> str:
    """Return the metric's name in words."""
    return _KNOWN[metric][0] if metric in _KNOWN else metric.replace("_", " ")


def short_label(metric: str) -> str:
    """Return a shorter name, for the axis of a small figure."""
    return _SHORT.get(metric, label(metric))


def label_with_unit(metric: str) -> str:
    """Return the metric's name in words, with its unit in brackets if it has one."""
    unit = _KNOWN[metric][1] if metric in _KNOWN else ""
    return f"{label(metric)} ({unit})" if unit else label(metric)


def digits(metric: str) -> int:
    """Return how many digits after the point the report prints."""
    return _KNOWN[metric][2] if metric in _KNOWN else 3


def verdict_words(metric: str) -> tuple[str, str]:
    """Return the words for a rise and a fall of the metric."""
    return ("increased", "decreased") if metric in _NEUTRAL else ("improved", "worsened")
