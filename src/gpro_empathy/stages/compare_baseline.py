"""Compare the run with the baseline: what was changed, and what the change did.

Reads   reports/baseline/                  the run that `make baseline` froze, if there is one
        data/rollouts/rollouts.jsonl       the responses of this run with their scores
        reports/seeds/reward_analysis.json the study of several trainings, where there is one
        dvc.lock                           hashes of the code and data of this run
Writes  reports/baseline_comparison.json   what differs, and the change of each declared metric
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpro_empathy import entry_point, files, params
from gpro_empathy.analysis import baseline, baseline_comparison, trainings
from gpro_empathy.analysis.results import Analysis
from gpro_empathy.report import baseline_run

BASELINE = Path("reports/baseline")
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
STUDY = Path("reports/seeds/reward_analysis.json")
COMPARISON = Path("reports/baseline_comparison.json")
SECTIONS = (
    params.Policy,
    params.Rewards,
    params.Prepare,
    params.TrainScorer,
    params.TrainReader,
    params.WarmStart,
    params.TrainGrpo,
    params.Rollout,
    params.AnalyseRewards,
)


def run(sections: Sequence[params.Section], root: Path = Path()) -> None:
    """Compare the run below `root` with its baseline.

    Raises:
        UserError: If an input is missing or malformed.
    """
    config = next(section for section in sections if isinstance(section, params.AnalyseRewards))
    before, study = baseline.read(root / BASELINE), read_study(root / STUDY, sections)
    rows = files.read_jsonl(root / ROLLOUTS)
    try:
        now = baseline_run.of_workspace(rows, sections, root)
        found = baseline_comparison.compare(before, now, config, study, np.random.default_rng(config.seed))
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    files.write_json(root / COMPARISON, found)


def read_study(path: Path, sections: Sequence[params.Section]) -> Analysis | None:
    """Read the study of several trainings, which a run of several can do without.

    `make seeds` is such a run, and makes a study of another version anew.

    Raises:
        UserError: As `trainings.read`, in a run of a single training.
    """
    grpo = next(section for section in sections if isinstance(section, params.TrainGrpo))
    try:
        return trainings.read(path)
    except files.UserError as error:
        if len(grpo.seeds) == 1:
            raise
        print(f"compare_baseline: the spread is that of this run's own trainings: {error}", file=sys.stderr)
        return None


def main() -> None:
    """Run the stage with the settings of params.yaml."""
    run([params.load(section) for section in SECTIONS])


if __name__ == "__main__":
    entry_point.run_stage(main)
