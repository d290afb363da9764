"""What raters found in a run's responses, how far they agree, and what scores say of it.

A rating counts for a run that gave this very answer to this very message, by any policy and in any
sample. Persons and models are never pooled, as a model's taste is no evidence about people's.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from gpro_empathy.analysis import bootstrap, effects, rated_policies, rater_agreement, response_table, score_validity
from gpro_empathy.analysis.rated_policies import OUTCOMES, PLANNED, WORTH, Responses
from gpro_empathy.analysis.results import (
    AgreementByGroup,
    KindRatings,
    PolicyRatings,
    RatedPairs,
    RunRatings,
    ScoreValidity,
)
from gpro_empathy.data import ratings
from gpro_empathy.data.ratings import Rating

PERSON, MODEL = get_args(ratings.Kind)


def summary(
    by_file: Mapping[str, Sequence[Rating]],
    rows: Sequence[Mapping],
    metrics: Iterable[str],
    confidence: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> RunRatings:
    """Return all that the ratings say about a run.

    Args:
        by_file: `data.ratings.read_folder`.
        rows: Rollout rows, one per response.
        metrics: Columns of `response_table.responses` whose validity is asked for, beside the raw
            scores.

    Raises:
        ValueError: If the rollouts hold nothing to compare, or lack a column.
    """
    responses, table = Responses(rows), response_table.responses(list(rows))
    fitting = {name: [one for one in found if responses.fit(one)] for name, found in by_file.items()}
    ours = [one for found in fitting.values() for one in found]
    scores = _scores(table, responses, metrics)
    by_kind = {
        kind: _of_kind(of_kind, responses, scores, confidence, n_resamples, rng)
        for kind in (PERSON, MODEL)
        if (of_kind := [one for one in ours if one.kind == kind])
    }
    return {
        "confidence": confidence,
        "power": effects.POWER,
        "planned_win_rate": PLANNED,
        "starting_policy": responses.start,
        "files": [
            {"file": name, "ratings": len(found), "fitting": len(fitting[name])} for name, found in by_file.items()
        ],
        "ratings": len(ours),
        "of_another_run": sum(map(len, by_file.values())) - len(ours),
        "raters": [
            {
                "rater": rater,
                "kind": kind,
                "singles": sum(one.form == "single" for one in ours if (one.kind, one.rater) == (kind, rater)),
                "pairs": sum(one.form == "pair" for one in ours if (one.kind, one.rater) == (kind, rater)),
            }
            for kind, rater in sorted({(one.kind, one.rater) for one in ours})
        ],
        "leading": {
            "single": _leading({kind: _stories(found["policies"].get("tuned")) for kind, found in by_kind.items()}),
            "pair": _leading({kind: _stories(found["pairs"]) for kind, found in by_kind.items()}),
        },
        "by_kind": by_kind,
        "agreement": {
            "sense": _agreement(ours, lambda one: one.left, lambda one: one.sense, "single", ratings.SENSE),
            "empathy": _agreement(ours, lambda one: one.left, lambda one: one.empathy, "single", ratings.EMPATHY),
            "choice": _agreement(ours, responses.pair, responses.outcome, "pair", OUTCOMES),
        },
    }


def _stories(found: PolicyRatings | RatedPairs | None) -> int:
    return found["stories"] if found else 0


def _leading(stories: Mapping[str, int]) -> str | None:
    """Return the kind that the report leads with, by the number of stories that each rated.

    Persons lead where they rated FEWEST_STORIES stories or more, or nobody did and they any.
    """
    rated = [kind for kind in (PERSON, MODEL) if stories.get(kind)]
    enough = [kind for kind in rated if stories[kind] >= bootstrap.FEWEST_STORIES]
    return next(iter([*enough, *rated]), None)


def _scores(table: pd.DataFrame, responses: Responses, metrics: Iterable[str]) -> pd.DataFrame:
    """Return raw scores and metrics by hash; of responses with one answer the mean."""
    raw = [name for name in table.columns if name.endswith("_raw")]
    names = list(dict.fromkeys([*raw, *metrics]))
    if missing := [name for name in names if name not in table.columns]:
        raise ValueError(f"column {missing[0]!r} is missing")
    return table[names].astype(float).groupby(pd.Series(responses.hashes, index=table.index), sort=False).mean()


def _of_kind(
    found: Sequence[Rating],
    responses: Responses,
    scores: pd.DataFrame,
    confidence: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> KindRatings:
    singles = [one for one in found if one.form == "single"]
    pairs = [one for one in found if one.form == "pair"]
    return {
        "policies": {
            policy: rated_policies.policy(of_policy, responses, confidence, n_resamples, rng)
            for policy in dict.fromkeys(["base", responses.start, "tuned"])
            if (of_policy := [one for one in singles if policy in responses.policies[one.left]])
        },
        "difference": rated_policies.difference(singles, responses, confidence, n_resamples, rng),
        "pairs": rated_policies.pairs(pairs, responses, confidence) if pairs else None,
        "validity": _validity(singles, pairs, responses, scores, confidence, n_resamples, rng),
    }


def _validity(
    singles: Sequence[Rating],
    pairs: Sequence[Rating],
    responses: Responses,
    scores: pd.DataFrame,
    confidence: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> dict[str, ScoreValidity]:
    by_answer: dict[str, list[Rating]] = {}
    for one in singles:
        by_answer.setdefault(one.left, []).append(one)

    def means(value: Callable[[Rating], float]) -> np.ndarray:
        return np.array([np.mean([value(one) for one in of]) for of in by_answer.values()])

    rated = score_validity.RatedAnswers(
        sense=means(lambda one: one.sense),
        empathy=means(lambda one: one.empathy),
        sensible=means(lambda one: one.sense == ratings.SENSIBLE),
        empathetic=means(lambda one: one.empathy >= ratings.EMPATHETIC),
        story=np.array([responses.story[name] for name in by_answer], dtype=object),
    )
    worth: dict[tuple[str, str], list[float]] = {}
    for one in pairs:
        worth.setdefault(responses.pair(one), []).append(WORTH[responses.choice(one)])
    decided = {pair: np.mean(of) > 0.5 for pair, of in worth.items() if np.mean(of) != 0.5}
    found = {}
    for name in scores.columns:
        score = scores[name]
        ordered = [
            (score_validity.RatedPair(responses.story[start], bool(won)), score[tuned] - score[start])
            for (start, tuned), won in decided.items()
        ]
        of_answers = score.loc[list(by_answer)].to_numpy()
        found[name] = score_validity.validity(of_answers, rated, ordered, n_resamples, confidence, rng)
    return found


def _agreement(
    found: Sequence[Rating],
    item: Callable[[Rating], Hashable],
    value: Callable[[Rating], object],
    form: ratings.Form,
    domain: Sequence,
) -> AgreementByGroup:
    level: rater_agreement.Level = "ordinal" if form == "single" else "nominal"
    given: dict[str, dict[Hashable, list]] = {PERSON: {}, MODEL: {}}
    for one in found:
        if one.form == form:
            given[one.kind].setdefault(item(one), []).append(value(one))
    persons, models = given[PERSON], given[MODEL]
    return {
        "persons": rater_agreement.among(persons, domain, level),
        "models": rater_agreement.among(models, domain, level),
        "models_with_persons": rater_agreement.between(models, persons, domain, level),
    }
