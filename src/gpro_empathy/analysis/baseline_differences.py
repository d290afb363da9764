"""What differs between the baseline and a run beside their scores, and whether they compare.

Settings are taken key by key, then packages, machine, code and data. A metric that a difference
turns into another measure, as another scorer does, is not compared.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from gpro_empathy.analysis import response_table, trainings
from gpro_empathy.analysis.baseline import Run
from gpro_empathy.analysis.baseline_results import Changed, Differences
from gpro_empathy.analysis.results import Analysis

LABELLED_DATA = "data/prepared/train.jsonl"
# They run or draw, and decide no score.
_NO_NUMBERS = frozenset({"dvc", "matplotlib", "seaborn"})
_ABSENT = "absent"
REMEDY = "To compare, go back to those of the baseline, or freeze a run with these (make baseline)."
# By metric, the settings that decide what it measures, beside the text that it is a measure of.
_SCORER = ("train_scorer.",)
_READER = ("train_reader.", "data/prepared/readings_train.")
_APPROACH = ("data/prepared/demonstrations_train.",)
# "rewards" is also the folder of the user's own terms. The reference statistics are of responses
# that are sampled as in training.
_COMBINED = (
    "policy.", "rewards", *_SCORER, *_READER, *_APPROACH, "warm_start.", "train_grpo.temperature", "train_grpo.top_p",
)  # fmt: skip
_MEASURES = {
    "empathy_raw": _SCORER,
    "audit_empathy_raw": _SCORER,
    "polarity_match_raw": _SCORER,
    "reader_sense_raw": (*_SCORER, *_READER),
    "reader_empathy_raw": (*_SCORER, *_READER),
    "approach_match_raw": _APPROACH,
    "relative_empathy_raw": (*_SCORER, *_APPROACH),
    "relative_reader_sense_raw": (*_SCORER, *_READER, *_APPROACH),
    "relative_reader_empathy_raw": (*_SCORER, *_READER, *_APPROACH),
    "semantic_similarity_raw": ("rewards.similarity",),
    "likelihood_raw": ("policy.", "warm_start."),
    "length_raw": ("rewards.free_words", "rewards.limit_words"),
    "combined_reference": _COMBINED,
    "combined_batch": _COMBINED,
}


def between(baseline: Run, run: Run) -> Differences:
    """Return what differs between two runs beside their scores, sorted by name."""
    old, new = baseline.provenance, run.provenance
    packages = [
        {name: version for name, version in provenance["packages"].items() if name not in _NO_NUMBERS}
        for provenance in (old, new)
    ]
    known = bool(old["files"]) and bool(new["files"])
    paths = sorted(old["files"].keys() | new["files"].keys())
    settings = _changed(flat(baseline.settings), flat(run.settings))
    return {
        "settings": settings,
        "deciding": [one["what"] for one in settings if not decides_nothing(one["what"])],
        "packages": _changed(*packages),
        "machine": _changed({"machine": old["machine"]}, {"machine": new["machine"]}),
        "files": [path for path in paths if old["files"].get(path) != new["files"].get(path)] if known else None,
    }


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text, by names such as rewards.weights.empathy."""
    return dict(_leaves(settings, prefix))


def _leaves(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[Changed]:
    return [
        {"what": name, "baseline": old.get(name, _ABSENT), "run": new.get(name, _ABSENT)}
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def kind(found: Differences) -> str:
    """Name the weightiest thing that differs: settings, code or data, machine, or nothing, a rerun.

    Another training seed is a rerun too, as is another way to analyse.
    """
    if found["deciding"]:
        return "settings"
    if found["files"] is None:
        return "unknown"
    if found["files"]:
        return "code"
    return "machine" if found["packages"] or found["machine"] else "rerun"


def decides_nothing(setting: str) -> bool:
    """Say whether a setting makes another training of the same kind, or none."""
    return setting in trainings.LEFT_OUT or setting.startswith("analyse_rewards.")


def other_measures(found: Differences, metrics: Sequence[str]) -> dict[str, list[str]]:
    """Return the metrics that measure something else in the run, with what makes them do it."""
    names = [one["what"] for one in found["settings"]] + (found["files"] or [])
    by = {metric: decided_by(metric, names) for metric in metrics}
    return {metric: why for metric, why in by.items() if why}


def decided_by(metric: str, names: Iterable[str]) -> list[str]:
    """Return which of these settings and files make a metric another measure."""
    # A term of the user's own has a colon.
    return [name for name in names if name.startswith(_MEASURES.get(metric, ("rewards",) if ":" in metric else ()))]


def refusal(baseline: Run, run: Run, metrics: Sequence[str]) -> str | None:
    """Return why the two cannot be compared, as a sentence with what to do; None if they can."""
    old, new = baseline.scores, run.scores
    old_prompts, new_prompts = set(old["prompt_id"]), set(new["prompt_id"])
    if old_prompts != new_prompts:
        both = len(old_prompts & new_prompts)
        return (
            f"It has other test prompts ({len(old_prompts)}, this run {len(new_prompts)}, in common {both}). {REMEDY}"
        )
    if baseline.provenance["prompts_sha256"] != run.provenance["prompts_sha256"]:
        return f"Its test prompts have other texts. {REMEDY}"
    data = [files.get(LABELLED_DATA) for files in (baseline.provenance["files"], run.provenance["files"])]
    if None not in data and data[0] != data[1]:
        return f"Its scorers learned from other data, so that equal scores mean different things. {REMEDY}"
    if lacking := [metric for metric in metrics if metric not in old.columns]:
        return (
            f"It has no scores of {', '.join(lacking)}, as it is of an older version of the metrics, or declared others. "
            f"{REMEDY}"
        )
    if unscored := [metric for metric in metrics if _missing(old, metric) != _missing(new, metric)]:
        return f"Other prompts have scores of {', '.join(unscored)} in it. {REMEDY}"
    return None


def _missing(scores: pd.DataFrame, metric: str) -> set[str]:
    return set(scores.loc[scores[metric].isna(), "prompt_id"])


def study_conditions(study: Analysis, runs: Sequence[Run]) -> list[str]:
    """Return in what a study of several trainings differs from the run that it is nearest to.

    Its spread between trainings serves where it was made under the conditions of one of them.
    """
    return min((_other_conditions(study, run) for run in runs), key=len)


def _other_conditions(study: Analysis, run: Run) -> list[str]:
    theirs = study["conditions"]["settings"]
    sections = {key.partition(".")[0] for key in theirs}
    mine = {
        f"{section}.{key}": json.dumps(value, sort_keys=True)
        for section, values in run.settings.items()
        for key, value in values.items()
        if section in sections and f"{section}.{key}" not in trainings.LEFT_OUT
    }
    other = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    prompts = study["conditions"]["prompts_sha256"] == run.provenance["prompts_sha256"]
    return other if prompts else [*other, "test prompts"]


def training_seeds(run: Run) -> list[int]:
    """Return the training seeds of a run's tuned policies."""
    return sorted(int(seed) for seed in run.scores["seed"].unique() if seed != response_table.NO_SEED)
