"""Would people's labels see the gain? A third scorer, which learned from the official WASSA files.

    make people-scorer WASSA=<folder of the official files>

and after `make seeds` with ROLLOUTS=tmp/seeds/data/rollouts/rollouts.jsonl for its trainings.

Trains the linear model on words of the audit on trac2_CONVT_train.csv, whose turns people labelled,
and scores the answers of a run by it. Writes bench/people_scorer.md: how good
the scorer is on trac2_CONVT_dev.csv and on the test turns of the corpus, the change by tuning, and
how far its scores of answers go with those of both scorers of the run and with rated empathy.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from gpro_empathy import entry_point, files, params
from gpro_empathy.analysis import effects, paired_comparison, response_table, scorer_accuracy
from gpro_empathy.data import dialogue, ratings, wassa
from gpro_empathy.labels import EMPATHY, LABELS
from gpro_empathy.scorer import empathy_scorer, lexical_fitting
from gpro_empathy.scorer.empathy_scorer import Rater

ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
TEST = Path("data/prepared/test.jsonl")
RESULT = Path(__file__).with_suffix(".md")
SCORERS = {"people": "this one", "audit_empathy_raw": "held-out scorer", "empathy_raw": "reward's scorer"}


def main() -> None:
    """Train the scorer, score the run, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with trac2_CONVT_train.csv and trac2_CONVT_dev.csv")
    parser.add_argument("--rollouts", type=Path, default=ROLLOUTS, help=f"the run's responses ({ROLLOUTS})")
    arguments = parser.parse_args()
    folder, table = arguments.folder, response_table.responses(files.read_jsonl(arguments.rollouts))
    turns = {
        "official development file": wassa.read_labelled(folder / "trac2_CONVT_dev.csv"),
        "test turns of the corpus": dialogue.read_turns(TEST),
    }
    model, _ = lexical_fitting.train(wassa.read_labelled(folder / "trac2_CONVT_train.csv"))
    table["people"] = model.score(list(table["answer"]), [(prompt,) for prompt in table["prompt"]])[:, EMPATHY]
    found = ratings.read_folder(ratings.FOLDER)
    rated = rated_empathy(one for of_file in found.values() for one in of_file)
    files.write_text(RESULT, "\n".join([*accuracy(model, turns), *changes(table), *agreement(table, rated)]))
    print(RESULT.read_text())


def accuracy(model: Rater, turns: dict[str, list[dialogue.Turn]]) -> list[str]:
    """Return the head of the page, with the correlation of predictions and labels."""
    lines = [
        "# A scorer that learned from people",
        "",
        "The linear model on words of the audit, trained on the turns of the official WASSA 2024 training file, which people",
        "labelled (`make people-scorer`). Pearson correlation with the labels, which are people's in the first row and the",
        "corpus's own in the second:",
        "",
        f"| turns | {' | '.join(LABELS)} |",
        "|---|---|---|---|",
    ]
    for name, of_file in turns.items():
        reached = scorer_accuracy.evaluate(of_file, empathy_scorer.score_turns(model, of_file))
        cells = [f"{reached[label]['pearson']:.2f}" for label in LABELS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def changes(table: pd.DataFrame) -> list[str]:
    """Return the change of each scorer's empathy by tuning, also in units of its own spread."""
    config = params.load(params.AnalyseRewards)
    compared = paired_comparison.compare(table, list(SCORERS), config, np.random.default_rng(config.seed))
    start = table[table["model"] == response_table.starting_policy(table)]
    lines = [
        "",
        f"Empathy of the answers to {compared['people']['prompts']} prompts, tuned less starting policy, in label units, over the training seeds",
        f"{', '.join(map(str, response_table.training_seeds(table)))}, with {100 * config.confidence:g} % intervals for these trainings or, of several, their mean; last, the change in",
        "standard deviations over answers of the starting policy:",
        "",
        "| scorer | start | tuned | change | interval | for a new training | in standard deviations |",
        "|---|---|---|---|---|---|---|",
    ]
    for metric, name in SCORERS.items():
        one, means = compared[metric], compared[metric]["means"]
        spread = start[metric].std() if np.ptp(start[metric]) else np.nan
        new = "not known" if one["new_low"] is None else f"[{one['new_low']:.2f}, {one['new_high']:.2f}]"
        lines.append(
            f"| {name} | {means[start['model'].iloc[0]]:.2f} | {means['tuned']:.2f} | {one['difference']:+.2f} | "
            f"[{one['low']:.2f}, {one['high']:.2f}] | {new} | {one['difference'] / spread:+.2f} |"
        )
    return lines


def rated_empathy(found: Iterable[ratings.Rating]) -> dict[str, float]:
    """Return the mean mark of empathy by the hash of message and answer."""
    marks = defaultdict(list)
    for rating in found:
        if rating.form == "single":
            marks[rating.left].append(rating.empathy)
    return {text: float(np.mean(of_text)) for text, of_text in marks.items()}


def agreement(table: pd.DataFrame, rated: dict[str, float]) -> list[str]:
    """Return how far this scorer goes with the others, and each with rated empathy."""
    answers = table[table["model"] != "base"].drop_duplicates(["prompt", "answer"])
    texts = zip(answers["prompt"], answers["answer"], strict=True)
    mark = np.array([rated.get(ratings.text_hash(prompt, answer), np.nan) for prompt, answer in texts])
    known = ~np.isnan(mark)
    lines = [
        "",
        f"Over the {len(answers)} different answers of both policies, and over the {known.sum()} of them that were rated:",
        "",
        "| scorer | Pearson correlation with this one | Spearman correlation with rated empathy |",
        "|---|---|---|",
    ]
    for metric, name in SCORERS.items():
        with_this = effects.pearson(answers["people"], answers[metric])
        with_rated = _spearman(answers[metric][known], mark[known])
        lines.append(f"| {name} | {_number(with_this)} | {_number(with_rated)} |")
    return [*lines, ""]


def _spearman(score: pd.Series, mark: np.ndarray) -> float | None:
    if len(mark) < 3 or np.ptp(score) == 0 or np.ptp(mark) == 0:
        return None
    return float(spearmanr(score, mark).statistic)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    entry_point.run_stage(main)
