"""What was found, in plain text: the one source of the report's and the results page's verdicts."""

from collections.abc import Callable

from gpro_empathy.analysis import effects, metric_names, trainings
from gpro_empathy.analysis.results import (
    Analysis,
    Audit,
    Comparison,
    SpreadSource,
    TemplateCriteria,
    Templates,
)
from gpro_empathy.report.number_format import NumberFormat, listed

# So many of the conditions in which a study differs are named, the others counted.
NAMED_CONDITIONS = 4

# The policies that GRPO may start from, in a sentence.
POLICIES = {"base": "the base model", "warm_start": "the warm-started model"}
# The main finding, as a clause.
HEADLINE = {
    "improved": "the tuned policy scores higher in raw empathy than the policy that it started from",
    "worsened": "the tuned policy scores lower in raw empathy than the policy that it started from",
    "no evidence of a change": "no change of the raw empathy score is established",
}
# Where it is established for the weights at hand, and not for another training.
HEADLINE_OF_WEIGHTS = {
    "improved": "these weights score higher in raw empathy than the policy that they started from, and one training alone does not show that "
    "another would",
    "worsened": "these weights score lower in raw empathy than the policy that they started from, and one training alone does not show that "
    "another would",
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
    "not inferior by these weights": "a loss of {margin} or more is excluded for these weights, and not for a new training",
}
AUDIT = {
    "no gain to audit": "By this run alone no gain on the reward's scorer is established, so that the held-out scorer has none to confirm.",
    "not confirmed": "The held-out scorer, which training never saw, does not confirm the gain: it may be peculiar to the "
    "scorer that was optimised.",
    "partly confirmed": "The held-out scorer, which training never saw, confirms a gain, but a smaller one: part of it may be "
    "peculiar to the scorer that was optimised, or the held-out scorer moves less for one and the same difference.",
    "confirmed": "The held-out scorer, which training never saw, confirms the gain.",
}

# The same of a study of several trainings.
STUDY_AUDIT = {
    "no gain to audit": "Over these trainings no gain on the reward's scorer is established.",
    "not confirmed": "Over these trainings a gain on the reward's scorer is established, which the held-out scorer does not confirm: it may be "
    "peculiar to the scorer that was optimised.",
    "partly confirmed": "Over these trainings both scorers show a gain, the held-out one a smaller one.",
    "confirmed": "Over these trainings the held-out scorer confirms the gain.",
}

# What a policy does that shows a sign of a template; the threshold is a number of the criteria.
SIGNS = {
    "largest_level_share": "states one intensity level in more than {share} of its well-formed responses",
    "opening_bits_fall": "opens its answers in fewer ways than the starting policy (less entropy by more than {bits:g} bit, with a "
    "higher self-BLEU)",
    "modal_advice_rise": "gives modal advice in more answers than the starting policy, by more than {points:g} percentage points",
    "self_bleu": "repeats itself from answer to answer (self-BLEU above {bleu:g})",
}
# Of the mean over several trainings, where that of each may be of another level.
SIGNS_OF_SEVERAL = {
    "largest_level_share": "states mostly one level in each training (mean share above {share} of its well-formed responses)",
}
TEMPLATES = {
    "says the same to everybody": "The tuned policy says much the same to everybody.",
    "answers by a template": "The tuned policy answers by a template.",
    "no sign of a template": "No sign of a template is found in the tuned policy.",
}


def carrier(study: Analysis | None, run: Analysis) -> Analysis:
    """Return the analysis whose verdicts a run's report has: of its study, or the run's own."""
    return trainings.deciding(study, run) or run


def of_metric(study: Analysis | None, run: Analysis, metric: str) -> tuple[Comparison | None, bool]:
    """Return what has the verdict on a metric, None if nothing has; and if that is the study."""
    several = trainings.deciding(study, run)
    if several is not None and metric in several["metrics"]:
        return several["metrics"][metric], True
    return run["metrics"].get(metric), False


def decided(study: Analysis | None, run: Analysis) -> str:
    """Say what the verdicts on the metrics of a run go by, as a sentence without its full stop."""
    several = trainings.deciding(study, run)
    if several is not None:
        return f"Verdicts are those of the {len(several['training_seeds'])} trainings of the study"
    new = "" if run["metrics"]["empathy_raw"]["new_low"] is None else " for a new training"
    return f"Verdicts go by the adjusted p and the interval{new}"


def outside(study: Analysis | None, run: Analysis) -> str:
    """Name the metrics that changed in a run by what its study does not let expect."""
    several = trainings.beside(study, run)
    if several is None or not (metrics := trainings.outside(several, run)):
        return ""
    named = listed([metric_names.label(metric) for metric in metrics])
    return (
        f"In this run the change in {named} lies outside the study's interval for a new training, as it may by chance where there are many "
        "metrics, and would where code or data are other than the study's."
    )


def headline(study: Analysis | None, run: Analysis) -> str:
    """Return the main finding as a clause: of several trainings, a new one, or these weights."""
    several = trainings.deciding(study, run)
    if several is not None:
        verdict = several["metrics"]["empathy_raw"]["verdict"]
        return f"over {len(several['training_seeds'])} trainings, {HEADLINE[verdict]}"
    comparison, confidence = run["metrics"]["empathy_raw"], run["confidence"]
    one = len(run["training_seeds"]) == 1
    if one and comparison["verdict"] == "no evidence of a change" and comparison["new_low"] is not None:
        words = ("improved", "worsened")
        of_weights = effects.verdict(comparison["low"], comparison["high"], comparison["p_holm"], confidence, words)
        return HEADLINE_OF_WEIGHTS.get(of_weights, HEADLINE[comparison["verdict"]])
    return HEADLINE[comparison["verdict"]]


def similarity(study: Analysis | None, run: Analysis, form: NumberFormat, margin: str) -> str:
    """Say what became of semantic similarity, and whether a loss of the margin is excluded.

    Args:
        margin: As it is to be written.
    """
    comparison, is_study = of_metric(study, run, "semantic_similarity_raw")
    test = carrier(study, run)["similarity_noninferiority"]
    changed, verdict = SIMILARITY[comparison["verdict"]], test["verdict"]
    # The test is of these weights, as is the first of both intervals.
    if verdict == "inconclusive" and comparison["new_low"] is not None and len(run["training_seeds"]) == 1:
        limits = comparison["low"], comparison["high"], test["p"], test["margin"]
        if not is_study and effects.noninferiority(*limits, run["confidence"]) == "not inferior":
            verdict = "not inferior by these weights"
    said = f"{changed}; {LOSS[verdict].format(margin=margin)}"
    if not is_study:
        return said
    # With as many digits as tell on which side of the margin it begins.
    begins = form.number(comparison["new_low"], 4, signed=True)
    return f"By the study, {_lower(said)}, as the interval for a new training begins at {begins}"


def audit(study: Analysis | None, run: Analysis) -> str:
    """Say what the audit finds: that of several trainings, or of a run without them."""
    several = trainings.deciding(study, run)
    return AUDIT[run["audit"]["verdict"]] if several is None else STUDY_AUDIT[several["audit"]["verdict"]]


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def study(found: Analysis, conditions: str, form: NumberFormat) -> str:
    """Say what a study of several trainings found.

    Args:
        conditions: What was otherwise in it than in the run of the report, in words; or nothing.
    """
    rows = {row["metric"]: row for row in trainings.rows(found)}

    def gain(metric: str) -> str:
        row, digits = rows[metric], metric_names.digits(metric)
        mean, new = (
            form.interval(row[low], row[high], digits) for low, high in (("low", "high"), ("new_low", "new_high"))
        )
        value = form.number(row["mean"], digits, signed=True)
        return f"{value} label units ({mean} for the mean over trainings, {new} for a new training)"

    lowest, highest = (form.number(share, 2) for share in trainings.tuned_range(found, "well_formed"))
    formed = f"{lowest} in each" if lowest == highest else f"{lowest} to {highest}"
    other = f", in a study under other conditions ({conditions})," if conditions else ""
    return (
        f"Over {len(found['training_seeds'])} trainings from different seeds{other} raw empathy changed by "
        f"{gain('empathy_raw')}, and on the held-out scorer by {gain(trainings.HELD_OUT)}; the share of well-formed replies was "
        f"{formed}."
    )


def conditions(source: SpreadSource, quote: Callable[[str], str]) -> str:
    """Name what was otherwise in the study at hand."""
    names = source["other_conditions"]
    shown = [quote(name) for name in names[:NAMED_CONDITIONS]]
    if len(names) > NAMED_CONDITIONS:
        shown.append(f"{len(names) - NAMED_CONDITIONS} more")
    return ", ".join(shown)


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
            "No drift of answer length, overlap with the user's words, distinct bigrams, stock phrases or stated "
            f"intensity is confirmed{beyond}."
        )
    return f"{text} Changed as the reward asks: {_changes(audit, asked)}." if asked else text


def _changes(audit: Audit, names: list[str]) -> str:
    changes = []
    for metric in names:
        rose = audit["metrics"][metric]["difference"] > 0
        changes.append(f"{metric_names.label(metric)} ({'up' if rose else 'down'})")
    return ", ".join(changes)


def template_criteria(criteria: TemplateCriteria) -> str:
    """Return what counts as a sign of a template, as the end of a sentence."""
    return "; or ".join(_signs(list(SIGNS), criteria))


def templates(found: Templates) -> str:
    """Say whether the tuned policy answers by a template, with its signs.

    Of several trainings, those are counted that show a sign by themselves.
    """
    sentences = [TEMPLATES[found["verdict"]]]
    if found["signs"]:
        signs = _signs(found["signs"], found["criteria"], several=len(found["signs_by_seed"]) > 1)
        sentences.append(f"It {'; it '.join(signs)}.")
    if len(found["signs_by_seed"]) > 1:
        showing = sum(bool(signs) for signs in found["signs_by_seed"].values())
        sentences.append(f"Of {len(found['signs_by_seed'])} trainings, {showing} show a sign by themselves.")
    if found["starting_signs"]:
        # Of a sign that the tuned policy does not show, "too" would say that it does.
        too = ", too," if set(found["starting_signs"]) <= set(found["signs"]) else ""
        sentences.append(
            f"The starting policy{too} {'; and '.join(_signs(found['starting_signs'], found['criteria']))}."
        )
    return " ".join(sentences)


def _signs(names: list[str], criteria: TemplateCriteria, *, several: bool = False) -> list[str]:
    numbers = {
        "share": f"{100 * criteria['largest_level_share']:g}%",
        "bits": criteria["opening_bits_fall"],
        "points": 100 * criteria["modal_advice_rise"],
        "bleu": criteria["self_bleu"],
    }
    texts = SIGNS | SIGNS_OF_SEVERAL if several else SIGNS
    return [texts[name].format(**numbers) for name in names]
