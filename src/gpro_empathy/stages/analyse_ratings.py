"""Say what raters found in the responses, and how far the scores go with it.

Reads   data/ratings/*.csv            ratings by people and by language models, of this run or not
        data/rollouts/rollouts.jsonl  one line per (prompt, model, sample)
Writes  reports/ratings.json          every number that the report quotes about the ratings
"""

from pathlib import Path

import numpy as np

from gpro_empathy import entry_point, files, params
from gpro_empathy.analysis import ratings_of_run
from gpro_empathy.data import ratings

ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
RESULT = Path("reports/ratings.json")


def run(config: params.AnalyseRewards, root: Path = Path()) -> None:
    """Read the ratings below `root`, and write what they say about the run.

    A file whose ratings are all of another run is no error: it is counted, and told.

    Raises:
        UserError: If a file of ratings cannot be read, naming file, row and column; or if the
            rollouts are missing or do not allow the comparison.
    """
    by_file = ratings.read_folder(root / ratings.FOLDER)
    rows = files.read_jsonl(root / ROLLOUTS)
    rng = np.random.default_rng(config.seed)
    try:
        found = ratings_of_run.summary(by_file, rows, config.metrics, config.confidence, config.n_resamples, rng)
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    files.write_json(root / RESULT, found)
    for file in found["files"]:
        print(f"analyse_ratings: {file['file']}: {file['fitting']} of {file['ratings']} ratings are of this run")


def main() -> None:
    """Run the stage with the settings of params.yaml."""
    run(params.load(params.AnalyseRewards))


if __name__ == "__main__":
    entry_point.run_stage(main)
