"""The audit for templates: does a policy say the same to everybody?

Measures within one answer cannot see it: each of a hundred equal answers is varied in itself. Here
the answers of a policy to all prompts are measured together.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sacrebleu.metrics import BLEU

from gpro_empathy import text_measures
from gpro_empathy.analysis import explained_gain, response_table, stated_levels
from gpro_empathy.analysis.results import ApproachSpread, ExplainedGain, TemplateCriteria, TemplateMeasures, Templates

# Advice, as words in a row. "You might" may guess at a feeling as well as advise; it is counted in
# either case, since it is the form that a template repeats. "You can" is left out: it allows more
# often than it advises.
MODAL_ADVICE = (
    "you could",
    "you may",
    "you might",
    "you need to",
    "you ought to",
    "you should",
    "you'd better",
    "consider",
    "have you considered",
    "have you thought of",
    "have you tried",
    "how about",
    "it could help",
    "it may help",
    "it might help",
    "try a",
    "try and",
    "try to",
    "why don't you",
    "why not",
)
OPENING_WORDS = 2
# Self-BLEU rises with the number of references, so that it is fixed: 60 answers, 59 for each.
SELF_BLEU_ANSWERS = 60
# What counts as a template.
CRITERIA: TemplateCriteria = {
    # No level has half of the corpus's labels: a policy that states one in nine of ten
    # responses has stopped reading the turn.
    "largest_level_share": 0.9,
    # A bit less is half as many openings, if they were equally common. That is no template yet
    # where the rest of the answers is as varied as before, so that self-BLEU must rise too.
    "opening_bits_fall": 1.0,
    # One answer in five turned into advice: more than two samples of a hundred answers differ by
    # chance (nearly three standard errors).
    "modal_advice_rise": 0.2,
    # Equal answers reach 100; the corpus's demonstrations, written one by one, some 10. Half of the
    # way, most word sequences of an answer stand in others. It needs no comparison, so that two
    # policies that are alike in this are told so too.
    "self_bleu": 50.0,
}
SCORERS = ("empathy_raw", "audit_empathy_raw")


def audit(table: pd.DataFrame, seed: int) -> Templates:
    """Measure how far each policy answers by a template, and say whether the tuned one does.

    All policies, and each training of the tuned one, are measured on equally many answers, as
    distinct n-grams and entropy depend on their number: as many as the smallest has, drawn without
    replacement. All are drawn alike, so that those with equally many are measured on the same
    prompts.

    Returns `answers`, their number, with the largest entropy of that many openings in `most_bits`;
    the measures of `policies` and `by_seed`, where those of the tuned policy are means over its
    seeds, None where a seed has none; `explained`, the part of the change in both scores that
    length and template words explain; the `criteria`; and, by them, the `signs` of a template in
    the tuned policy and in each seed, with a verdict, and those in the starting policy that need no
    comparison.

    Args:
        table: Of `response_table.responses`.
        seed: Of the draws.

    Source:
        Li et al. (2016), A diversity-promoting objective function for neural conversation models
        (distinct-n); Zhu et al. (2018), Texygen (self-BLEU); Post (2018), A call for clarity in
        reporting BLEU scores (sacrebleu).
    """
    ordered = table.sort_values(["prompt_id", "sample"], kind="stable")
    groups = {(model, int(of_seed)): rows for (model, of_seed), rows in ordered.groupby(["model", "seed"])}
    answers = min(len(rows) for rows in groups.values())
    measured = {key: measure(rows, answers, seed) for key, rows in groups.items()}
    seeds, start = response_table.training_seeds(table), response_table.starting_policy(table)
    policies = {
        policy: measured[(policy, response_table.NO_SEED)]
        for policy in response_table.policies(table)
        if policy != "tuned"
    }
    policies["tuned"] = mean([measured[("tuned", of_seed)] for of_seed in seeds])
    signs = template_signs(policies["tuned"], policies[start])
    return {
        "answers": answers,
        "most_bits": math.log2(answers),
        "self_bleu_answers": min(answers, SELF_BLEU_ANSWERS),
        "policies": policies,
        "by_seed": {str(of_seed): measured[("tuned", of_seed)] for of_seed in seeds},
        "explained": {metric: _explained(groups, seeds, start, metric) for metric in SCORERS},
        "criteria": CRITERIA,
        "signs": signs,
        "starting_signs": template_signs(policies[start], policies[start]),
        "signs_by_seed": {
            str(of_seed): template_signs(measured[("tuned", of_seed)], policies[start]) for of_seed in seeds
        },
        "verdict": verdict(signs),
    }


def measure(rows: pd.DataFrame, answers: int, seed: int) -> TemplateMeasures:
    """Measure the responses of one policy and training seed.

    Where the number of answers matters, so many `answers` of them are drawn; shares are of all.
    """
    chosen = np.random.default_rng(seed).permutation(len(rows))[:answers]
    texts = list(response_table.lower_case(rows["answer"].iloc[chosen]))
    words = [text_measures.words(text) for text in texts]
    return {
        "distinct_1": distinct_n(words, 1),
        "distinct_2": distinct_n(words, 2),
        "opening_bits": opening_bits(words),
        "self_bleu": self_bleu(texts[:SELF_BLEU_ANSWERS]),
        "modal_advice": modal_advice(rows["answer"]),
        "stated": stated_levels.spread(rows),
        "approaches": approaches(rows.iloc[chosen]),
    }


def approaches(rows: pd.DataFrame) -> ApproachSpread:
    """Return the entropy of the stated approaches in `bits`, and the `largest_share` of one.

    Both are of the responses that state one, and None of none. They are of what the reasoning says,
    which an answer may not follow.
    """
    stated = response_table.lower_case(rows["stated_approach"].dropna())
    if stated.empty:
        return {"bits": None, "largest_share": None}
    shares = stated.value_counts(normalize=True).sort_index()
    return {"bits": stated_levels.entropy_bits(shares.to_numpy()), "largest_share": float(shares.max())}


def distinct_n(answers: Sequence[Sequence[str]], n: int) -> float | None:
    """Return the share of distinct n-grams among all of these answers; None if there are none.

    No n-gram reaches from one answer into the next.
    """
    grams = [tuple(words[i : i + n]) for words in answers for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def opening_bits(answers: Sequence[Sequence[str]]) -> float:
    """Return the entropy of the answers' first two words."""
    counts = Counter(tuple(words[:OPENING_WORDS]) for words in answers)
    return stated_levels.entropy_bits(np.array([counts[opening] for opening in sorted(counts)]) / len(answers))


def self_bleu(answers: Sequence[str]) -> float | None:
    """Return the mean BLEU of each answer against the others, from 0 to 100; None of a single one.

    Orders of n-grams that an answer is too short for are left out of its BLEU.
    """
    if len(answers) < 2:
        return None
    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(answer, [*answers[:i], *answers[i + 1 :]]).score for i, answer in enumerate(answers)]
    return float(np.mean(scores))


def modal_advice(answers: Sequence[str]) -> float:
    """Return the share of answers that hold one of MODAL_ADVICE."""
    texts = [f" {' '.join(text_measures.words(answer))} " for answer in answers]
    return sum(any(f" {phrase} " in text for phrase in MODAL_ADVICE) for text in texts) / len(texts)


def mean(measures: Sequence[TemplateMeasures]) -> TemplateMeasures:
    """Average the measures of training seeds, the nested ones too; None where one of them is."""
    return {key: _mean(key, [one[key] for one in measures]) for key in measures[0]}


def _mean(key: str, values: Sequence) -> object:
    if isinstance(values[0], Mapping):
        return mean(values)
    # Levels are names here: seeds that fell back on 1 and on 3 did not fall back on 2.
    if None in values or (key == "commonest" and len(set(values)) > 1):
        return None
    return float(np.mean(values))


def template_signs(tuned: TemplateMeasures, start: TemplateMeasures) -> list[str]:
    """Return which of CRITERIA the tuned policy meets, by their names.

    What is not defined meets none.
    """
    repeats = tuned["self_bleu"] or 0.0
    met = {
        "largest_level_share": (tuned["stated"]["largest_share"] or 0.0) > CRITERIA["largest_level_share"],
        "opening_bits_fall": start["opening_bits"] - tuned["opening_bits"] > CRITERIA["opening_bits_fall"]
        and repeats > (start["self_bleu"] or 0.0),
        "modal_advice_rise": tuned["modal_advice"] - start["modal_advice"] > CRITERIA["modal_advice_rise"],
        "self_bleu": repeats > CRITERIA["self_bleu"],
    }
    return [name for name in CRITERIA if met[name]]


def verdict(signs: Sequence[str]) -> str:
    """Say in a few words what the signs of a policy mean."""
    if "self_bleu" in signs:
        return "says the same to everybody"
    return "answers by a template" if signs else "no sign of a template"


def _explained(
    groups: Mapping[tuple[str, int], pd.DataFrame], seeds: Sequence[int], start: str, metric: str
) -> ExplainedGain:
    """Return the explained part over the responses of all seeds, and each seed's share."""
    starting, tuned = groups[(start, response_table.NO_SEED)], {seed: groups[("tuned", seed)] for seed in seeds}
    return explained_gain.explained(starting, pd.concat(tuned.values()), metric) | {
        "share_by_seed": {
            str(seed): explained_gain.explained(starting, rows, metric)["share"] for seed, rows in tuned.items()
        }
    }
