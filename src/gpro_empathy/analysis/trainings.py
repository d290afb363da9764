"""Several trainings: how far they lie apart, and what a study of them says of each metric.

One training says what its weights do. What training again would give, with another seed or on
another processor, needs the spread between trainings, which only several of them show: the study
that `make seeds` leaves in reports/seeds. A run of one training takes the spread from there, if the
study was made under its own conditions. What is found is then the study's to say, as one training
is one draw, and which draw may hang on rounding.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.analysis.results import Analysis, Comparison, Conditions, Gap, SpreadSource, StudyRow

HELD_OUT = "audit_empathy_raw"
# Settings that make another training of the same kind, or none; and paths, which differ by machine.
LEFT_OUT = frozenset(
    {
        "train_grpo.seeds",
        "train_grpo.save_steps",
        "prepare.embedded_folder",
        "prepare.wassa_train_csv",
        "prepare.wassa_dev_csv",
    }
)
# Keys without which a file is none of several trainings, or one of another version.
_NEEDED = frozenset(
    {
        "training_seeds", "metrics", "metric_order", "audit", "by_intensity", "stories", "conditions", "confidence",
        "similarity_noninferiority",
    }
)  # fmt: skip


def read(path: Path) -> Analysis | None:
    """Read the study of several trainings; None if there is no file.

    Raises:
        UserError: If it is not the analysis of two trainings or more.
    """
    if not path.is_file():
        return None
    study = files.read_json(path)
    remedy = "run `make seeds`, or delete the file to go without a study"
    if not isinstance(study, dict) or not study.keys() >= _NEEDED:
        raise files.UserError(f"{path}: is of another version or no analysis of several trainings; {remedy}")
    if len(study["training_seeds"]) < 2:
        raise files.UserError(f"{path}: is of the training seeds {study['training_seeds']}, need two or more; {remedy}")
    return study


def of_report(analysis: Analysis, path: Path) -> Analysis | None:
    """Return the study that a report leads with: a run of several trainings is its own.

    Raises:
        UserError: As `read`.
    """
    return analysis if len(analysis["training_seeds"]) > 1 else read(path)


def conditions(sections: Iterable[params.Section], prompts: Mapping[str, str]) -> Conditions:
    """Note what trainings must share to be of one kind.

    Args:
        sections: Those of params.yaml that a training and its rollouts depend on.
        prompts: The text of each test prompt, by its name.
    """
    settings = {
        f"{section.section_name()}.{key}": json.dumps(value, sort_keys=True)
        for section in sections
        for key, value in section.model_dump(mode="json").items()
    }
    listed = json.dumps(sorted(prompts.items())).encode()
    return {
        "settings": {key: value for key, value in settings.items() if key not in LEFT_OUT},
        "prompts_sha256": hashlib.sha256(listed).hexdigest(),
    }


def source(seeds: Sequence[int], own: Conditions, study: Analysis | None) -> SpreadSource:
    """Say where the spread between trainings of a run with these training seeds is from."""
    if len(seeds) > 1:
        return {"study": False, "trainings": len(seeds), "other_conditions": []}
    if study is None:
        return {"study": False, "trainings": 0, "other_conditions": []}
    mine, theirs = own["settings"], study["conditions"]["settings"]
    other = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if own["prompts_sha256"] != study["conditions"]["prompts_sha256"]:
        other.append("test prompts")
    return {"study": True, "trainings": len(study["training_seeds"]), "other_conditions": other}


def beside(study: Analysis | None, run: Analysis) -> Analysis | None:
    """Return the study of several trainings of a run of one, if it is of the run's conditions."""
    source = run["between_trainings"]
    return study if study is not None and source["study"] and not source["other_conditions"] else None


def deciding(study: Analysis | None, run: Analysis) -> Analysis | None:
    """Return the study whose verdicts a run's report has, or None where they are the run's own.

    It is one beside the run, with the same declared metrics, confidence and margin of similarity.
    """
    several = beside(study, run)
    return several if several is not None and _declared(several) == _declared(run) else None


def _declared(analysis: Analysis) -> tuple:
    return analysis["confidence"], analysis["metric_order"], analysis["similarity_noninferiority"]["margin"]


def known(analysis: Analysis) -> dict[str, Comparison | Gap]:
    """Return what is known of each metric, declared or audited, and of the gap between scorers."""
    return analysis["audit"]["metrics"] | {"scorer_gap": analysis["audit"]["gap"]} | analysis["metrics"]


def outside(study: Analysis, run: Analysis) -> list[str]:
    """Return the metrics whose change in a run is none that a study lets expect of a new training.

    It lies outside the study's interval for one, by more than one prompt of all can do. Of several
    metrics one may do so by chance; of a training of other code or data many do.
    """
    found, slack = known(study), 1 / run["prompts"]
    return [
        metric
        for metric, one in (run["audit"]["metrics"] | run["metrics"]).items()
        if metric in found
        and not found[metric]["new_low"] - slack <= one["difference"] <= found[metric]["new_high"] + slack
    ]


def rows(study: Analysis) -> list[StudyRow]:
    """Return what a study says of each declared metric, and of the held-out scorer."""
    found = dict(study["metrics"])
    found.setdefault(HELD_OUT, study["audit"]["metrics"][HELD_OUT])
    order = [*study["metric_order"], *(metric for metric in found if metric not in study["metric_order"])]
    return [_row(metric, found[metric]) for metric in order]


def _row(metric: str, comparison: Comparison) -> StudyRow:
    by_seed = comparison["by_seed"].values()
    return {
        "metric": metric,
        "mean": comparison["difference"],
        "low": comparison["low"],
        "high": comparison["high"],
        "new_low": comparison["new_low"],
        "new_high": comparison["new_high"],
        "lowest": min(by_seed),
        "highest": max(by_seed),
        "p_holm": comparison["p_holm"],
        "verdict": comparison["verdict"],
    }


def tuned_range(study: Analysis, metric: str) -> tuple[float, float]:
    """Return the lowest and the highest mean of the tuned policy over the trainings of a study."""
    comparison = study["audit"]["metrics"].get(metric) or study["metrics"][metric]
    start = comparison["means"][study["starting_policy"]]
    tuned = [start + change for change in comparison["by_seed"].values()]
    return min(tuned), max(tuned)
