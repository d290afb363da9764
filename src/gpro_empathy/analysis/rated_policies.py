"""What raters found in the answers of each policy, and which policy's answers they prefer.

Of several raters' marks of an answer the mean counts, and so it does of several choices between two
answers; intervals are those of `rating_estimates`, for other stories and other raters.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gpro_empathy.analysis import effects, estimates, rated_items, rating_estimates, rating_power
from gpro_empathy.analysis.results import PolicyRatings, RatedDifference, RatedPairs
from gpro_empathy.data import ratings
from gpro_empathy.data.ratings import Rating

# The win rate whose number of pairs the report gives.
PLANNED = 0.6
# With fewer degrees of freedom, as of two raters who differ, Student's quantiles are so large that
# no size can be named that would have been found.
FEWEST_DEGREES = 2
# What can be chosen of a pair, whichever side an answer stood on, and what that is worth.
WORTH = {"tuned": 1.0, "start": 0.0, "both": 0.5, "neither": 0.5}
# What agreement on choices is about. Ties are one value: a judge that names another answer in each
# order of a pair stands there as "both", though it never said that both are good.
OUTCOMES = ("tuned", "start", "tie")
# By `estimates.side` of the win rate's interval and one half.
PREFERENCE = {1: "preferred", 0: "no evidence of a preference", -1: "not preferred", None: "no interval"}


class Responses:
    """The responses of a run as raters name them.

    Attributes:
        story: The story by hash of an answer.
        policies: The policies that gave an answer, by its hash.
        pairs: (starting policy's answer, tuned one's) by the set of both hashes.
        alike: Whether both policies' first answers are one, by prompt that both answered.
    """

    def __init__(self, rows: Sequence[Mapping]) -> None:
        self.start = rated_items.start_of(rows)
        self.hashes = [ratings.text_hash(row["prompt"], row["answer"]) for row in rows]
        self.story: dict[str, str] = {}
        self.policies: dict[str, set[str]] = {}
        by_prompt: dict[str, dict[str, list[str]]] = {}
        for name, row in zip(self.hashes, rows, strict=True):
            self.story.setdefault(name, str(row["story"]))
            self.policies.setdefault(name, set()).add(row["model"])
            by_prompt.setdefault(str(row["prompt_id"]), {}).setdefault(row["model"], []).append(name)
        self.prompt_of = {name: prompt for prompt, given in by_prompt.items() for of in given.values() for name in of}
        self.pairs: dict[frozenset, tuple[str, str]] = {}
        self.alike: dict[str, bool] = {}
        for prompt, given in by_prompt.items():
            if self.start in given and "tuned" in given:
                self.alike[prompt] = given[self.start][0] == given["tuned"][0]
            # First samples come first: of answers that both policies gave, they say whose is whose.
            for start in given.get(self.start, []):
                for tuned in given.get("tuned", []):
                    if start != tuned:
                        self.pairs.setdefault(frozenset((start, tuned)), (start, tuned))

    def fit(self, rating: Rating) -> bool:
        """Is it a rating of this run, for a pair of the starting and the tuned policy's answers?"""
        if rating.form == "single":
            return rating.left in self.story
        return frozenset((rating.left, rating.right)) in self.pairs

    def pair(self, rating: Rating) -> tuple[str, str]:
        """Return the hashes of the starting policy's answer and the tuned one's."""
        return self.pairs[frozenset((rating.left, rating.right))]

    def choice(self, rating: Rating) -> str:
        """Return which key of WORTH a rating of a pair is."""
        if rating.choice not in ("left", "right"):
            return rating.choice
        chosen = rating.left if rating.choice == "left" else rating.right
        return "tuned" if chosen == self.pair(rating)[1] else "start"

    def outcome(self, rating: Rating) -> str:
        """Return which of OUTCOMES a rating of a pair is."""
        choice = self.choice(rating)
        return choice if choice in OUTCOMES else "tie"


def policy(
    found: Sequence[Rating], responses: Responses, confidence: float, n_resamples: int, rng: np.random.Generator
) -> PolicyRatings:
    """Return shares and means of the marks of a policy's answers."""

    def marks(value: Callable[[Rating], float]) -> rating_estimates.Marks:
        return rating_estimates.Marks([(one.left, responses.story[one.left], one.rater, value(one)) for one in found])

    lowest = {name: min(one.sense for one in found if one.left == name) for name in {one.left for one in found}}
    by_every = [
        (name, responses.story[name], "all", float(mark == ratings.SENSIBLE)) for name, mark in sorted(lowest.items())
    ]
    empathy = marks(lambda one: one.empathy)
    shares = {
        "sensible": marks(lambda one: one.sense == ratings.SENSIBLE),
        "off": marks(lambda one: one.sense == ratings.OFF),
        "nonsense": marks(lambda one: one.sense == ratings.NONSENSE),
        "sensible_by_every_rater": rating_estimates.Marks(by_every),
        "empathetic": marks(lambda one: one.empathy >= ratings.EMPATHETIC),
    }
    return {
        "answers": empathy.items,
        "stories": empathy.stories,
        "ratings": len(found),
        "raters": empathy.raters,
        "shares": {name: rating_estimates.share(of, confidence) for name, of in shares.items()},
        "empathy": rating_estimates.mean(empathy, confidence, n_resamples, rng),
    }


def difference(
    singles: Sequence[Rating],
    responses: Responses,
    confidence: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> RatedDifference | None:
    """Compare the policies on prompts of which a rater rated both answers.

    A rater's severity is in both marks and falls out. Where a rater rated several answers of a
    policy to one prompt, their mean counts. An answer that both policies gave counts for both.
    """
    given: dict[tuple, dict[str, list[Rating]]] = {}
    for one in singles:
        key = responses.prompt_of[one.left], responses.story[one.left], one.rater
        for policy in responses.policies[one.left]:
            given.setdefault(key, {}).setdefault(policy, []).append(one)
    both = {key: of for key, of in given.items() if {responses.start, "tuned"} <= of.keys()}
    if not both:
        return None

    def marks(value: Callable[[Rating], float]) -> rating_estimates.Marks:
        return rating_estimates.Marks(
            [
                (
                    *key,
                    np.mean([value(one) for one in of["tuned"]]) - np.mean([value(one) for one in of[responses.start]]),
                )
                for key, of in both.items()
            ]
        )

    sensible = marks(lambda one: float(one.sense == ratings.SENSIBLE))

    def mean(of: rating_estimates.Marks):
        return rating_estimates.mean(of, confidence, n_resamples, rng)

    return {
        "prompts": sensible.items,
        "stories": sensible.stories,
        "raters": sensible.raters,
        "sensible": mean(sensible),
        "empathetic": mean(marks(lambda one: float(one.empathy >= ratings.EMPATHETIC))),
        "empathy": mean(marks(lambda one: one.empathy)),
        "smallest_detectable": _smallest_change(sensible, confidence),
    }


def _smallest_change(marks: rating_estimates.Marks, confidence: float) -> float | None:
    """Return the change in a share that such ratings show; None where that is no share."""
    precision = rating_estimates.precision(marks)
    if precision is None or precision.variance == 0 or precision.degrees_of_freedom < FEWEST_DEGREES:
        return None
    found = effects.smallest_detectable(
        precision.standard_error,
        effects.significance_level(confidence),
        degrees_of_freedom=precision.degrees_of_freedom,
    )
    return found if found <= 1 else None


def pairs(found: Sequence[Rating], responses: Responses, confidence: float) -> RatedPairs:
    """Count choices; a win rate takes half of the ties as won."""
    choices = [responses.choice(one) for one in found]
    counts = {choice: choices.count(choice) for choice in WORTH}
    marks = rating_estimates.Marks(
        [(responses.pair(one), responses.story[one.left], one.rater, WORTH[responses.choice(one)]) for one in found]
    )
    win_rate = rating_estimates.share(marks, confidence)
    decided = [one for one in found if one.choice in ("left", "right")]
    sides = [
        (number, responses.story[one.left], one.rater, float(one.choice == "left"))
        for number, one in enumerate(decided)
    ]
    smallest, needed = _power(marks, 1 - len(decided) / len(found), confidence)
    return {
        "prompts": len(responses.alike),
        "alike": sum(responses.alike.values()),
        "pairs": marks.items,
        "stories": marks.stories,
        "raters": marks.raters,
        "choices": len(found),
        "decided": len(decided),
        "wins": counts["tuned"],
        "losses": counts["start"],
        "both": counts["both"],
        "neither": counts["neither"],
        "win_rate": win_rate,
        "left": rating_estimates.share(rating_estimates.Marks(sides), confidence)
        if sides
        else {"estimate": None, "low": None, "high": None},
        "smallest_win_rate": smallest,
        "pairs_needed": needed,
        "verdict": PREFERENCE[estimates.side(win_rate, 0.5)],
    }


def _power(marks: rating_estimates.Marks, ties: float, confidence: float) -> tuple[float | None, int | None]:
    """Return the smallest win rate that such ratings show, and the pairs that PLANNED takes.

    The design effect is that of the ratings at hand: below 1 where several raters rated a pair.
    """
    precision, rate = rating_estimates.precision(marks), marks.estimate
    independent = rate * (1 - rate) - ties / 4
    if precision is None or independent <= 0 or precision.variance == 0:
        return None, None
    degrees = precision.degrees_of_freedom
    if degrees < FEWEST_DEGREES:
        return None, None
    effect = precision.variance * marks.items / independent
    reached = 1 - ties >= 2 * PLANNED - 1
    return (
        rating_power.detectable_win_rate(marks.items, ties, effect, confidence, degrees_of_freedom=degrees),
        rating_power.pairs_needed(PLANNED, ties, effect, confidence, degrees_of_freedom=degrees) if reached else None,
    )
