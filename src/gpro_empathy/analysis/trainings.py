"""Several trainings: how far they lie apart, and what a study of them says of each metric.

One training says what its weights do. What training again would give, with another seed or on
another processor, needs the spread between trainings, which only several of them show: the study
that `make seeds` leaves in reports/seeds. A run of one training takes the spread from there, if the
study was made under its own conditions; and its verdicts, as one training more changes little about
them, unless it shows what the study does not let expect.
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
_NEEDED = frozenset({"training_seeds", "metrics", "audit", "stories", "conditions"})


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


def deciding(study: Analysis | None, confidence: float, metrics: Sequence[str], margin: float) -> Analysis | None:
    """Return a study whose verdicts can stand for those of a run of one training, or None.

    They are of the same declared metrics, adjusted together, at the same confidence, and of the
    same margin of similarity.
    """
    if study is None:
        return None
    theirs = study["confidence"], list(study["metric_order"]), study["similarity_noninferiority"]["margin"]
    return study if theirs == (confidence, list(metrics), margin) else None


def beside(study: Analysis | None, run: Analysis) -> Analysis | None:
    """Return the study that decides the verdicts on a run, of its conditions and another run."""
    if study is None or len(run["training_seeds"]) > 1 or run["between_trainings"]["other_conditions"]:
        return None
    return deciding(study, run["confidence"], run["metric_order"], run["similarity_noninferiority"]["margin"])


def known(study: Analysis) -> dict[str, Comparison | Gap]:
    """Return what a study found of each metric, declared or audited, and of the scorers' gap."""
    return study["audit"]["metrics"] | {"scorer_gap": study["audit"]["gap"]} | study["metrics"]


def expected(study: Analysis | None, metric: str, difference: float) -> Comparison | Gap | None:
    """Return what a study found of a metric, if it lets expect this change of one more training.

    The change then lies within the study's interval for a new training. Several trainings say more
    than the one that it is of, and their verdict stands; a change outside is a finding of its own,
    such as of other code.
    """
    found = None if study is None else known(study).get(metric)
    if found is None or found["new_low"] is None or not found["new_low"] <= difference <= found["new_high"]:
        return None
    return found


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
    }


def tuned_range(study: Analysis, metric: str) -> tuple[float, float]:
    """Return the lowest and the highest mean of the tuned policy over the trainings of a study."""
    comparison = study["audit"]["metrics"].get(metric) or study["metrics"][metric]
    start = comparison["means"][study["starting_policy"]]
    tuned = [start + change for change in comparison["by_seed"].values()]
    return min(tuned), max(tuned)
