"""The form of reports/baseline_comparison.json, and the verdicts in it.

A value is None where it is not known.
"""

from typing import TypedDict

NO_EVIDENCE = "no evidence of a change"
# The prompts differ by more than chance, but another training seed would move them as much.
AS_A_SEED = "no more than another seed moves"
# The interval with the spread between trainings excludes 0, the adjusted p does not tell.
NOT_ADJUSTED = "not after adjustment"
# The prompts differ by more than chance, and how much another seed would move them is not known.
SPREAD_UNKNOWN = "differs in these trainings"


class Changed(TypedDict):
    """A setting, package or machine that differs: the baseline's value and the run's, as text."""

    what: str
    baseline: str
    run: str


class Differences(TypedDict):
    """All that differs; `files` are paths of code and data, or None where they are not known.

    Of the settings, `deciding` are those that do more than train or analyse once more.
    """

    settings: list[Changed]
    deciding: list[str]
    packages: list[Changed]
    machine: list[Changed]
    files: list[str] | None


class MetricChange(TypedDict):
    """One metric: the tuned policy of this run less that of the baseline, by prompt.

    `low` and `high` are for the trainings at hand, from the stories alone; `spread_low` and
    `spread_high` for what was changed, with the spread between trainings, None where it is not
    known. `p` is with that spread too, or else of the trainings at hand. The smallest differences
    are those that one training of the run would show against this baseline, by itself and at the
    strictest level that Holm's method may ask for. `start` is the starting policies' difference:
    it is 0 where neither that policy nor the measure changed.
    """

    baseline: float
    run: float
    difference: float
    low: float
    high: float
    spread_low: float | None
    spread_high: float | None
    between_training_sd: float | None
    sd_of_differences: float
    p: float
    p_holm: float
    smallest_of_one: float | None
    smallest_of_one_adjusted: float | None
    start: float
    verdict: str


class SpreadFrom(TypedDict):
    """Where the spread between trainings is from.

    `runs` says whether the two runs' own trainings show it, `study` how many trainings a study that
    is used has (0: none is), `other_conditions` what keeps a study that is at hand from being used.
    """

    runs: bool
    study: int
    other_conditions: list[str]


class Comparison(TypedDict):
    """All of reports/baseline_comparison.json where runs were compared; `state` is `compared`.

    Otherwise the file has `state` alone: `none` without a baseline, `same` for one with the scores
    of this run; or `refused`, with the `reason` as a sentence.
    """

    state: str
    commit: str | None
    kind: str
    differs: Differences
    trainings: dict[str, int]
    spread: SpreadFrom
    confidence: float
    left_out: dict[str, list[str]]
    metric_order: list[str]
    metrics: dict[str, MetricChange]
