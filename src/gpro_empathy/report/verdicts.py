"""What was found, in plain text: the one source of the report's and the results page's verdicts."""

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import Audit

# The main finding, as a clause.
HEADLINE = {
    "improved": "the tuned policy scores higher in raw empathy than the policy that it started from",
    "worsened": "the tuned policy scores lower in raw empathy than the policy that it started from",
    "no evidence of a change": "there is no evidence that tuning changed the raw empathy score",
}
SIMILARITY = {
    "improved": "Semantic similarity rose",
    "worsened": "Semantic similarity fell",
    "no evidence of a change": "There is no evidence of a change in semantic similarity",
}
# By the verdict of the non-inferiority test; the margin comes in the reader's number format.
LOSS = {
    "not inferior": "a loss of {margin} or more is excluded",
    "inferior": "the loss is more than the margin of {margin}",
    "inconclusive": "a loss of {margin} or more cannot be excluded",
}
AUDIT = {
    "no gain to audit": "No gain on the reward's own scorer is established that a held-out scorer could confirm.",
    "not confirmed": "The held-out scorer, which training never saw, does not confirm the gain: it may be peculiar to the "
    "scorer that was optimised.",
    "partly confirmed": "The held-out scorer, which training never saw, confirms a gain, but a smaller one: part of the gain "
    "is peculiar to the scorer that was optimised.",
    "confirmed": "The held-out scorer, which training never saw, confirms the gain.",
}


def drift(audit: Audit) -> str:
    """Name the side effects that the adjusted tests confirm.

    Apart from them, the changes that the reward asks for are named.
    """
    asked = audit["asked_changes"]
    if audit["drifts"]:
        text = f"Confirmed drift: {_changes(audit, audit['drifts'])}."
    else:
        beyond = " beyond what the reward asks for" if asked else ""
        text = (
            "No drift of answer length, overlap with the user's words, distinct bigrams or stock phrases is "
            f"confirmed{beyond}."
        )
    return f"{text} Changed as the reward asks: {_changes(audit, asked)}." if asked else text


def _changes(audit: Audit, names: list[str]) -> str:
    changes = []
    for metric in names:
        rose = audit["metrics"][metric]["difference"] > 0
        changes.append(f"{metric_names.label(metric)} ({'up' if rose else 'down'})")
    return ", ".join(changes)
