"""How far a rerun's number may lie from the committed one and still count as reproduced.

The rules are one table, RULES.

The first rule whose report and key fit a number judges it. Rules of the comparison take their width
from the committed interval of the metric: the run's own statement of how uncertain it is. A rerun
has the same uncertainty, and the difference of two independent estimates varies sqrt(2) times as
much as one, so the interval is widened by that factor about its estimate. Effect sizes and
correlations over n prompts have a standard error near 1 / sqrt(n), shares of at most half of that;
twice the error of a difference is allowed. The prompts are the same in both runs and the training
is not, so this is a convention and no test.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from gpro_empathy.analysis import effects

_WIDENING = math.sqrt(2)


@dataclass(frozen=True)
class Rule:
    """What a rule is for, its tolerance in words, and a test of two values.

    The test is (path, committed, current, committed report) -> agrees.
    """

    what: str
    tolerance: str
    report: str
    keys: str
    agrees: Callable[[tuple, float, float, object], bool]


def rule_of(report: str, path: tuple) -> Rule:
    """Return the first rule for a number, given the report's file and the keys that lead to it."""
    joined = ".".join(map(str, path))
    return next(rule for rule in RULES if re.search(rule.report, report) and re.search(rule.keys, joined))


def _exact(path: tuple, old: float, new: float, report: object) -> bool:
    return old == new


def anything(path: tuple, old: object, new: object, report: object) -> bool:
    return True


def _absolute(width: float) -> Callable:
    return lambda path, old, new, report: abs(new - old) <= width


def _relative(share: float) -> Callable:
    return lambda path, old, new, report: abs(new - old) <= share * abs(old)


def _in_spreads(factor: float) -> Callable:
    return lambda path, old, new, report: abs(new - old) <= factor * report[path[0]]["sd"]


def _over_prompts(factor: float) -> Callable:
    return lambda path, old, new, report: abs(new - old) <= factor * math.sqrt(2 / report["prompts"])


def _change(path: tuple, old: float, new: float, report: object) -> bool:
    metric, floor = _metric(path, report), 1 / report["prompts"]
    below, above = metric["difference"] - metric["low"], metric["high"] - metric["difference"]
    return old - max(_WIDENING * below, floor) <= new <= old + max(_WIDENING * above, floor)


def _level(path: tuple, old: float, new: float, report: object) -> bool:
    metric = _metric(path, report)
    width = _WIDENING * max(metric["high"] - metric["difference"], metric["difference"] - metric["low"])
    # A metric that was the same for every prompt has an interval without width.
    return abs(new - old) <= max(width, 1 / report["prompts"])


def _same_side(path: tuple, old: float, new: float, report: object) -> bool:
    alpha = effects.significance_level(report["confidence"])
    if path[0] == "similarity_noninferiority":
        alpha /= 2  # its test is one-sided
    return (old < alpha) == (new < alpha)


def _intensity(path: tuple, old: float, new: float, report: object) -> bool:
    level = report
    for key in path[:-1]:
        level = level[key]
    if level["low"] is None:
        return abs(new - old) <= 4 * report["metrics"][path[2]]["sd_of_differences"]
    return abs(new - old) <= _WIDENING * max(level["high"] - level["mean"], level["mean"] - level["low"])


def _replies(path: tuple, old: float, new: float, report: object) -> bool:
    stated = report[path[0]][path[1]]
    return abs(new - old) <= 0.15 * (stated["n"] + stated["missing"])


def _metric(path: tuple, report: object) -> dict:
    """Return the part of the report that the path leads through and that has an interval."""
    part, innermost = report, {}
    for key in path:
        part = part[key]
        if isinstance(part, dict) and {"low", "high", "difference"} <= part.keys():
            innermost = part
    return innermost


_ANALYSIS = r"reward_analysis\.json$"
_INTERVAL = r"^(metrics\.[^.]+|audit\.metrics\.[^.]+|audit\.gap)"
# Examples, which prompts were extreme by chance too: no number that a rerun should repeat.
_EXAMPLES = r"^audit\.(best|worst)_prompts\."
# What the tests of one training say, where its report has the verdicts of several.
_OWN_TESTS = r"(^|\.)p(_\w+)?$|^(metrics|similarity_noninferiority|audit\.metrics)\..*verdict$|^audit\.(verdict$|drifts|asked_changes)"


def is_compared(path: tuple, report: object) -> bool:
    """Say whether a rerun should repeat the value that a path of the committed report leads to."""
    joined = ".".join(map(str, path))
    source = report.get("between_trainings") if isinstance(report, dict) else None
    # As `trainings.beside`.
    several = source is not None and source["study"] and not source["other_conditions"]
    return not re.search(_EXAMPLES, joined) and not (several and re.search(_OWN_TESTS, joined))


RULES = (
    Rule("data: means of labels and lengths", "relative 1e-9", r"data\.json$", r"mean|sd$", _relative(1e-9)),
    Rule("reader model: AUC", "0.03", r"reader\.json$", r"auc$", _absolute(0.03)),
    Rule("approach model: shares", "0.03", r"reader\.json$", r"^approach\.validation\.(message|answer)$", _absolute(0.03)),
    Rule("reader model: counts and shares", "exactly equal", r"reader\.json$", r"", _exact),
    # What policy.dtype: auto stands for depends on the processor.
    Rule("number format and device", "any", r"settings\.json$", r"^(dtype|device)$", anything),
    Rule("data and settings: counts and words", "exactly equal", r"data\.json$|settings\.json$", r"", _exact),
    Rule("scorers: turns, conversations and stories", "exactly equal", r"scorer\.json$", r"turns$|conversations$|stories$", _exact),
    Rule("scorers: leak", "0.05", r"scorer\.json$", r"^leak\.", _absolute(0.05)),
    Rule(
        "scorers: calibration, stock phrases and limits of agreement", "0.25 label units",
        r"scorer\.json$", r"calibration\.|stock_phrases\.|limit_", _absolute(0.25),
    ),
    Rule("scorers: correlations", "0.03", r"scorer\.json$", r"pearson", _absolute(0.03)),
    Rule("scorers: errors and differences", "0.05 label units", r"scorer\.json$", r"mae$|difference$", _absolute(0.05)),
    Rule("scorers: counts", "exactly equal", r"scorer\.json$", r"", _exact),
    Rule("warm start: losses", "0.1 nats", r"warm_start\.json$", r"loss", _absolute(0.1)),
    Rule("warm start: settings", "exactly equal", r"warm_start\.json$", r"", _exact),
    Rule("calibration: spreads of the starting policy", "15 %", r"reference\.json$", r"sd$", _relative(0.15)),
    Rule("calibration: means of the starting policy", "0.3 of the spread", r"reference\.json$", r"", _in_spreads(0.3)),
    Rule("templates: signs and verdict", "the same", _ANALYSIS, r"^audit\.templates\..*(verdict$|signs)", _exact),
    Rule("verdicts, in words", "the same", _ANALYSIS, r"verdict$|drifts|asked_changes", _exact),
    Rule("p-values", "the same side of the level that the verdict uses", _ANALYSIS, r"(^|\.)p(_\w+)?$", _same_side),
    Rule("changes", "its interval, widened by sqrt(2), or 1 / prompts if that is more", _ANALYSIS, rf"{_INTERVAL}.*difference$", _change),
    Rule(
        "means, seeds and ends of intervals", "half the metric's interval, times sqrt(2), or 1 / prompts if that is more",
        _ANALYSIS, rf"{_INTERVAL}.*\.((new_)?(low|high)|\w*means\.\w+|by_seed\.\w+)$", _level,
    ),
    Rule(
        "scores by intensity", "half the level's interval, times sqrt(2); without one, four sd of the metric's differences",
        _ANALYSIS, r"^by_intensity\.values.*\.(mean|low|high)$", _intensity,
    ),
    Rule("templates: distinct n-grams", "0.1", _ANALYSIS, r"^audit\.templates\..*distinct_\d$", _absolute(0.1)),
    Rule("templates: entropies", "0.75 bits", _ANALYSIS, r"^audit\.templates\..*(opening_bits|\.bits)$", _absolute(0.75)),
    Rule("templates: self-BLEU", "8", _ANALYSIS, r"^audit\.templates\.(policies|by_seed)\..*self_bleu$", _absolute(8)),
    Rule("templates: shares of answers and levels", "0.2", _ANALYSIS, r"^audit\.templates\..*(modal_advice|largest_share)$", _absolute(0.2)),
    Rule("templates: stated levels", "1", _ANALYSIS, r"^audit\.templates\..*(levels|commonest)$", _absolute(1)),
    Rule(
        "templates: explained part, and the differences of which it is one", "0.3",
        _ANALYSIS, r"^audit\.templates\.explained\.", _absolute(0.3),
    ),
    Rule("effect sizes and correlations over prompts", "2 sqrt(2 / prompts)", _ANALYSIS, r"d_z$|cliffs_delta$|spearman$|prompt_correlation$|response_agreement", _over_prompts(2)),
    Rule("shares", "sqrt(2 / prompts)", _ANALYSIS, r"probability_of_improvement$|exact$|within_one$|stock_phrases", _over_prompts(1)),
    Rule("temperature: correlations and reversed pairs", "0.05", _ANALYSIS, r"^temperature.*(correlation|reversed_pairs)$", _absolute(0.05)),
    Rule("temperature: spread within a group", "30 %", _ANALYSIS, r"^temperature.*sd$", _relative(0.3)),
    Rule("spreads and detectable differences", "50 %", _ANALYSIS, r"standard_error$|sd_of|start_sd|detectable|between_training_sd$", _relative(0.5)),
    Rule("replies that state an intensity", "15 % of the replies", _ANALYSIS, r"^intensity_agreement.*(n|missing)$", _replies),
    Rule("counts and settings of the comparison", "exactly equal", _ANALYSIS, r"", _exact),
)  # fmt: skip
