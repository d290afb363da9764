"""What raters found, in words: the one source of what report and results page say of ratings.

Sentences with a `form` hold numbers in that format; what else is in them needs no escaping.
"""

import re
from collections.abc import Mapping
from typing import Literal

from gpro_empathy.analysis import estimates, metric_names
from gpro_empathy.analysis.results import (
    AgreementByGroup,
    Alpha,
    Estimate,
    KindRatings,
    PolicyRatings,
    RatedPairs,
    RunRatings,
    ScoreValidity,
    ValidityEstimate,
)
from gpro_empathy.report.number_format import NumberFormat
from gpro_empathy.report.verdicts import POLICIES

# Whoever reads them from a file finds them sorted by name: persons stand first.
KINDS = ("person", "model")
PEOPLE = {"person": "people", "model": "language models"}
# Whether the tuned policy's answers make sense, by `sense_verdict`.
SENSE = {
    "not rated": "No ratings of the tuned policy's answers, one by one, are at hand, so that whether they make sense is not known.",
    "do not": "By the ratings, fewer than half of the tuned policy's answers are sensible replies: the answers do not make sense.",
    "open": "Whether more than half of the tuned policy's answers are sensible replies is left open, as no interval of their share lies above one half or below it.",
    "do": "By the ratings, more than half of the tuned policy's answers are sensible replies.",
}
# By the verdict of `rated_policies.pairs`.
PREFERENCE = {
    "preferred": "the raters prefer the tuned policy's answers",
    "no evidence of a preference": "there is no evidence that the raters prefer either",
    "not preferred": "the raters prefer the answers of the policy that training started from",
    "no interval": "too few stories for an interval",
}
EVIDENCE = " What a language model finds checks the scores, and is no evidence about people."
GROUPS = {
    "persons": "among people",
    "models": "between readings by language models",
    "models_with_persons": "between a language model and a person",
}
SCORERS = {
    "empathy_raw": "the reward's scorer",
    "relative_empathy_raw": "the same less what is usual for the approach",
    "audit_empathy_raw": "the held-out one",
}
# How often a score orders pairs as the raters do, by `estimates.side` of its interval and one half.
ORDERED = {
    1: "more often than by chance",
    0: "not shown to differ from chance",
    -1: "less often than by chance",
    None: "too few stories to tell it from chance",
}


def kinds(ratings: RunRatings) -> list[str]:
    """Return the kinds of raters that rated this run, persons first."""
    return [kind for kind in KINDS if kind in ratings["by_kind"]]


def leading(ratings: RunRatings, form: Literal["single", "pair"]) -> KindRatings | None:
    """Return what raters of the kind found that the report leads with on this form."""
    kind = ratings["leading"][form]
    return None if kind is None else ratings["by_kind"][kind]


def who(ratings: RunRatings, kind: str, raters: int) -> str:
    """Return who rated, as the subject of a sentence.

    Models whose names differ in the number of a reading alone ("name, reading 2") are one model.
    """
    if raters == 1:
        return {"person": "one person", "model": "a language model"}[kind]
    if kind == "person":
        return f"{raters} people"
    one = len(_models(ratings)) == 1
    return f"{'a language model' if one else 'language models'} ({raters} readings)"


def _models(ratings: RunRatings) -> list[str]:
    names = [re.sub(r", reading \d+$", "", one["rater"]) for one in ratings["raters"] if one["kind"] == "model"]
    return list(dict.fromkeys(names))


def sense_verdict(ratings: RunRatings) -> str:
    """Return the key of SENSE, by the side of one half that the interval of the share lies on."""
    found = leading(ratings, "single")
    if found is None:
        return "not rated"
    side = estimates.side(found["policies"]["tuned"]["shares"]["sensible"], 0.5)
    return {1: "do", -1: "do not"}.get(side, "open")


def sense(ratings: RunRatings, form: NumberFormat) -> str:
    """Say what was found in single answers, and whether these make sense."""
    verdict, found, start = SENSE[sense_verdict(ratings)], leading(ratings, "single"), ratings["starting_policy"]
    if found is None:
        return verdict
    tuned = found["policies"]["tuned"]
    text = (
        f"Of {tuned['answers']} answers of this run's tuned policy that {who(ratings, ratings['leading']['single'], tuned['raters'])} rated, blind to "
        f"policy and score, the share of sensible replies is {_shares(tuned, form, ', that of nonsense ', ' and that of empathetic answers ')}"
    )
    if start in found["policies"]:
        before = found["policies"][start]
        text += f"; of {before['answers']} of {POLICIES[start]} these are {_shares(before, form, ', ', ' and ')}"
    return f"{text}. {verdict}"


def _shares(found: PolicyRatings, form: NumberFormat, *between: str) -> str:
    first, second, third = (
        form.estimate(found["shares"][name], signed=False) for name in ("sensible", "nonsense", "empathetic")
    )
    return f"{first}{between[0]}{second}{between[1]}{third}"


def difference(ratings: RunRatings, form: NumberFormat) -> str:
    """Say what tuning changed in the ratings of single answers."""
    found = leading(ratings, "single")
    if found is None:
        return ""
    if found["difference"] is None:
        return "No rater rated answers of both policies to one prompt, so that there is no paired difference."
    change = found["difference"]
    return (
        f"Over the {change['prompts']} prompts of which a rater rated both policies' answers, each prompt counted once, the share of sensible "
        f"answers changes by {form.estimate(change['sensible'])}, that of empathetic ones by {form.estimate(change['empathetic'])}, and the "
        f"mean mark of empathy (1 to 5) by {form.estimate(change['empathy'])}."
    )


def preference(ratings: RunRatings, form: NumberFormat) -> str:
    """Say which policy's answers were preferred where both were shown."""
    found, start = leading(ratings, "pair"), POLICIES[ratings["starting_policy"]]
    if found is None:
        return "No pairs of both policies' answers were rated." if ratings["ratings"] else ""
    kind, pairs = ratings["leading"]["pair"], found["pairs"]
    text = (
        f"Both policies' first answers differ on {pairs['prompts'] - pairs['alike']} of {pairs['prompts']} prompts{_alike(pairs)}. In {pairs['choices']} choices "
        f"over {pairs['pairs']} of these pairs, by {who(ratings, kind, pairs['raters'])}, the tuned policy's answer won {pairs['wins']} and that of {start} {pairs['losses']}; {_ties(kind, pairs)}. "
        f"With half of these ties, the win rate is {form.estimate(pairs['win_rate'], signed=False)}: {PREFERENCE[pairs['verdict']]}."
    )
    # A judge saw each pair in both orders, and its row has the answers in that of their hashes.
    if pairs["decided"] and kind == "person":
        text += f" Of the {pairs['decided']} decided choices, {form.estimate(pairs['left'], signed=False)} are of the left answer."
    return text


def _alike(pairs: RatedPairs) -> str:
    """Say which prompts have no pair: a win rate over all would lie nearer to one half."""
    if not pairs["alike"]:
        return ""
    return " and are alike on the others, which are not counted"


def _ties(kind: str, pairs: RatedPairs) -> str:
    if kind == "model":
        return (
            f"in {pairs['both']} both were called good, or another one in each order, and in {pairs['neither']} neither"
        )
    return f"in {pairs['both']} both were good and in {pairs['neither']} neither"


def raters(ratings: RunRatings) -> str:
    """Say how many ratings there are, and by whom; plain text."""
    said = []
    for kind in kinds(ratings):
        of_kind = [one for one in ratings["raters"] if one["kind"] == kind]
        count = sum(one["singles"] + one["pairs"] for one in of_kind)
        # People are counted and models named: data/ratings has the names that people chose.
        named = who(ratings, kind, len(of_kind)) if kind == "person" else _named(_models(ratings), len(of_kind))
        said.append(f"{count} by {named}")
    text = f"Ratings of this run's answers: {' and '.join(said)}." if said else ""
    leads = {"answers": ratings["leading"]["single"], "pairs": ratings["leading"]["pair"]}
    if len(ratings["by_kind"]) > 1:
        found = " and ".join(f"on {what} what {PEOPLE[kind]} found" for what, kind in leads.items() if kind)
        text += f" They are not pooled: this section says {found}." if found else " They are not pooled."
    if "model" in leads.values():
        text += EVIDENCE
    if ratings["of_another_run"]:
        text += f" Ratings of other answers, which are not counted here: {ratings['of_another_run']}."
    return text.strip()


def _named(models: list[str], readings: int) -> str:
    several = f", {readings} readings" if readings > len(models) else ""
    return f"{'a language model' if len(models) == 1 else 'language models'} ({', '.join(models)}{several})"


def agreement(ratings: RunRatings, form: NumberFormat) -> str:
    """Say how far the raters agree, and models with people where both rated."""
    if not ratings["ratings"]:
        return ""
    said = [
        f"{where} it is {', '.join(parts)}"
        for group, where in GROUPS.items()
        if (parts := _alphas(ratings["agreement"], group, form))
    ]
    if not said:
        return "Nothing was rated twice, so that how far raters agree is not known."
    calibrated = any(by_group["models_with_persons"]["items"] for by_group in ratings["agreement"].values())
    both = (
        " Where people and models rated the same, the last says how far a model can stand for a person."
        if calibrated
        else ""
    )
    steady = (
        " Readings by one model agree as far as it is steady, which does not make them right."
        if any(by_group["models"]["items"] for by_group in ratings["agreement"].values())
        else ""
    )
    return f"Agreement is Krippendorff's alpha, 1 for perfect and 0 for chance: {'; '.join(said)}.{both}{steady}"


def _alphas(by_mark: Mapping[str, AgreementByGroup], group: str, form: NumberFormat) -> list[str]:
    def of(name: str, what: str, alpha: Alpha) -> str:
        value = f"not defined ({alpha['reason']})" if alpha["alpha"] is None else form.number(alpha["alpha"], 2)
        return f"{value} on {name} ({alpha['items']} {what})"

    named = {"sense": ("sense", "answers"), "empathy": ("empathy", "answers"), "choice": ("choices", "pairs")}
    return [of(*words, by_mark[mark][group]) for mark, words in named.items() if by_mark[mark][group]["items"]]


def validity(ratings: RunRatings, form: NumberFormat) -> str:
    """Say how far the empathy scores go with rated empathy and sense, and what tells sense best."""
    found = leading(ratings, "single")
    if found is None:
        return ""
    scores = found["validity"]

    def correlation(estimate: ValidityEstimate) -> str:
        if estimate["estimate"] is None:
            return f"not defined ({estimate['reason']})"
        return form.estimate(estimate, signed=False)

    said = [
        f"{name} goes with rated empathy at {correlation(scores[metric]['empathy'])} and with sense at "
        f"{correlation(scores[metric]['sense'])}"
        for metric, name in SCORERS.items()
        if metric in scores
    ]
    text = f"Over the rated answers, {'; '.join(said)} (Spearman's correlation)." if said else ""
    return " ".join(filter(None, [text, _best(scores, form), _order(ratings, form)]))


def _best(scores: Mapping[str, ScoreValidity], form: NumberFormat) -> str:
    """Say which score tells sensible answers from others best, over all messages."""
    defined = {name: one["sensible"] for name, one in scores.items() if one["sensible"]["estimate"] is not None}
    clear = {name: one for name, one in defined.items() if _beside(one, 0.5)}
    if not clear:
        return "No score is shown to tell sensible answers from others: no AUC has an interval that excludes one half."
    best = max(clear, key=lambda name: abs(clear[name]["estimate"] - 0.5))
    turned = "" if clear[best]["estimate"] > 0.5 else ", so that less of it goes with sense"
    return (
        f"Of {len(defined)} scores with an AUC for sense, {len(clear)} have an interval that excludes one half; farthest from it is that of "
        f"{metric_names.label(best)}, with {form.estimate(clear[best], signed=False)}{turned}. The best of several looks better than it is."
    )


def _order(ratings: RunRatings, form: NumberFormat) -> str:
    """Say whether the reward orders two answers to one message as raters do."""
    paired = leading(ratings, "pair")
    found = paired and paired["validity"].get("combined_reference")
    if not found or found["ordered"]["estimate"] is None:
        return ""
    orders = {
        name: one["ordered"] for name, one in paired["validity"].items() if one["ordered"]["estimate"] is not None
    }
    clear = [
        f"{metric_names.label(name)} {form.estimate(one, signed=False)}"
        for name, one in orders.items()
        if estimates.side(one, 0.5) == 1
    ]
    return (
        "GRPO compares answers to one message: of both policies' answers to one, the combined score puts the preferred one first in a share of "
        f"{form.estimate(found['ordered'], signed=False)} of the decided choices, {ORDERED[estimates.side(found['ordered'], 0.5)]}. Of {len(orders)} "
        f"scores {'these do' if len(clear) > 1 else 'this one does' if clear else 'none does'} so more often than by chance{': ' if clear else ''}{', '.join(clear)}."
    )


def _beside(estimate: Estimate, value: float) -> bool:
    """Does the interval, where there is one, leave a value out?"""
    return estimate["low"] is not None and not estimate["low"] <= value <= estimate["high"]


def power(ratings: RunRatings, form: NumberFormat) -> str:
    """Say what the ratings at hand could have shown."""
    if not ratings["ratings"]:
        return ""
    parts, singles, paired = [], leading(ratings, "single"), leading(ratings, "pair")
    change, pairs = singles and singles["difference"], paired and paired["pairs"]
    if change and change["smallest_detectable"] is not None:
        parts.append(f"a change in the share of sensible answers of {form.number(change['smallest_detectable'], 2)}")
    if pairs and pairs["smallest_win_rate"] is not None:
        parts.append(f"a win rate of {form.number(pairs['smallest_win_rate'], 2)}")
    if not parts:
        return "They are too few, or vary too little, to say what they could have shown."
    text = f"With a power of {form.number(ratings['power'], 1)}, these ratings would have shown {' and '.join(parts)}, or more of it."
    if pairs and pairs["pairs_needed"] is not None:
        text += f" To show a win rate of {form.number(ratings['planned_win_rate'], 1)}, {pairs['pairs_needed']} pairs would be needed, rated as often as these, with ties and spread as here."
    return text
