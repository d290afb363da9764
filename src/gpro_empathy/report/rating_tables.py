"""The tables of what raters found and of how scores go with it, in either number format."""

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import PolicyRatings, RunRatings
from gpro_empathy.report import rating_verdicts
from gpro_empathy.report.number_format import NumberFormat

# By the name among the shares, and whether with its interval.
_SHARES = {"sensible": True, "sensible_by_every_rater": False, "off": False, "nonsense": True, "empathetic": True}
POLICY_HEADER = (
    "policy",
    "rated by",
    "answers",
    "sensible",
    "by every rater",
    "coherent but off",
    "nonsense",
    "empathetic",
    "empathy (1 to 5)",
)
# By the name in the validity of a score.
_VALIDITY = {
    "sense": "sense (rank corr.)",
    "empathy": "empathy (rank corr.)",
    "sensible": "sensible (AUC)",
    "empathetic": "empathetic (AUC)",
    "ordered": "pairs ordered",
}
VALIDITY_HEADER = ("score", *_VALIDITY.values())


def policies(ratings: RunRatings, form: NumberFormat) -> list[list[str]]:
    """Return a row for each policy and kind of raters, persons first."""
    return [
        [metric_names.POLICY_LABELS[policy], *_policy(ratings, kind, found[policy], form)]
        for kind in rating_verdicts.kinds(ratings)
        for found in [ratings["by_kind"][kind]["policies"]]
        for policy in metric_names.POLICIES
        if policy in found
    ]


def _policy(ratings: RunRatings, kind: str, found: PolicyRatings, form: NumberFormat) -> list[str]:
    def share(name: str, interval: bool) -> str:
        estimate = found["shares"][name]
        return form.estimate(estimate, signed=False) if interval else form.number(estimate["estimate"], 2)

    shares = [share(name, interval) for name, interval in _SHARES.items()]
    raters = rating_verdicts.who(ratings, kind, found["raters"])
    return [raters, str(found["answers"]), *shares, form.estimate(found["empathy"], signed=False)]


def validity(ratings: RunRatings, form: NumberFormat) -> list[list[str]]:
    """Return a row for each score, by the raters that the report leads with.

    The scores that are highest for sensible answers come first.
    """
    singles, pairs = (rating_verdicts.leading(ratings, form) for form in ("single", "pair"))
    of_singles, of_pairs = (found["validity"] if found else {} for found in (singles, pairs))

    def place(name: str) -> tuple:
        auc = of_singles[name]["sensible"]["estimate"] if of_singles else None
        return auc is None, -(auc or 0), name

    def cell(name: str, what: str) -> str:
        found = of_pairs if what == "ordered" else of_singles
        return form.estimate(found[name][what], signed=False) if found else form.missing

    return [
        [metric_names.label(name), *(cell(name, what) for what in _VALIDITY)]
        for name in sorted(of_singles or of_pairs, key=place)
    ]
