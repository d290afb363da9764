"""What was found, in plain text: the one source of the report's and the results page's verdicts."""

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import Audit, TemplateCriteria, Templates

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

# What a policy does that shows a sign of a template; the threshold is a number of the criteria.
SIGNS = {
    "largest_level_share": "states one intensity level in more than {share} of its well-formed responses",
    "opening_bits_fall": "opens its answers in fewer ways than the starting policy (less entropy by more than {bits:g} bit, with a "
    "higher self-BLEU)",
    "modal_advice_rise": "gives modal advice in more answers than the starting policy, by more than {points:g} percentage points",
    "self_bleu": "repeats itself from answer to answer (self-BLEU above {bleu:g})",
}
TEMPLATES = {
    "says the same to everybody": "The tuned policy says much the same to everybody.",
    "answers by a template": "The tuned policy answers by a template.",
    "no sign of a template": "No sign of a template is found in the tuned policy.",
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
        sentences.append(f"It {'; it '.join(_signs(found['signs'], found['criteria']))}.")
    if len(found["signs_by_seed"]) > 1:
        showing = sum(bool(signs) for signs in found["signs_by_seed"].values())
        sentences.append(f"Of {len(found['signs_by_seed'])} trainings, {showing} show a sign by themselves.")
    if found["starting_signs"]:
        sentences.append(
            f"The starting policy, too, {'; and '.join(_signs(found['starting_signs'], found['criteria']))}."
        )
    return " ".join(sentences)


def _signs(names: list[str], criteria: TemplateCriteria) -> list[str]:
    numbers = {
        "share": f"{100 * criteria['largest_level_share']:g}%",
        "bits": criteria["opening_bits_fall"],
        "points": 100 * criteria["modal_advice_rise"],
        "bleu": criteria["self_bleu"],
    }
    return [SIGNS[name].format(**numbers) for name in names]
