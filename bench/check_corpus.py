"""Measure how a scorer that saw only official WASSA data agrees with the embedded corpus's labels.

The stories that are marked as test stay out: they are for one look, when the settings are frozen.

`python bench/check_corpus.py FOLDER` takes the folder of the official CONV-turn files; it takes
about ten minutes.
"""

import argparse
from pathlib import Path

from gpro_empathy import entry_point, labels, params
from gpro_empathy.analysis import scorer_accuracy
from gpro_empathy.data import sources, wassa
from gpro_empathy.scorer import empathy_scorer, fitting

# One pass in batches of 32 is enough for a scorer of ordinary accuracy, and quick.
SETTINGS = {"epochs": 1, "batch_size": 32}


def main() -> None:
    """Train on the official train file; print the agreement on its dev file and on the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with trac2_CONVT_train.csv and trac2_CONVT_dev.csv")
    folder = parser.parse_args().folder
    config = params.load(params.TrainScorer).model_copy(update=SETTINGS)
    splits = sources.load(params.load(params.Prepare).model_copy(update={"source": "embedded"}))
    rated = {
        "official dev": wassa.read_labelled(folder / "trac2_CONVT_dev.csv"),
        "embedded corpus": [*splits["train"], *splits["validation"]],
    }
    model = fitting.train(wassa.read_labelled(folder / "trac2_CONVT_train.csv"), config, seed=config.seed)
    for name, turns in rated.items():
        accuracy = scorer_accuracy.evaluate(turns, empathy_scorer.score_turns(model, turns))
        print(name + ": " + ", ".join(f"{label} r = {accuracy[label]['pearson']:.3f}" for label in labels.LABELS))


if __name__ == "__main__":
    entry_point.run_stage(main)
