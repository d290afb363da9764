"""Which reward terms tell sensible answers from others? Each one's AUC on answers that were read.

    make reward-terms

Reads the readings of data/ratings/validation/candidates.csv whose set begins with SET, and scores
those answers by every term of the project's and the measures beside them. Writes
bench/reward_terms.md. Of a sensible and another answer, the AUC is the probability that the term
puts the sensible one higher, ties counted half.
"""

import csv
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from gpro_empathy import entry_point, files, params, response_format, rewards
from gpro_empathy.data import dialogue
from gpro_empathy.labels import EMPATHY
from gpro_empathy.policy import adapters
from gpro_empathy.scorer import kinds
from gpro_empathy.stages import rollout, train_grpo

READINGS = Path("data/ratings/validation/candidates.csv")
SET = "kinds_"
TURNS = Path("data/prepared/prompts_validation.jsonl")
RESULT = Path(__file__).with_suffix(".md")
RESAMPLES = 2000
# A term earns a place in the reward from here on.
ENOUGH = 0.7


def main() -> None:
    """Score the answers and write the table."""
    readings = read(READINGS)
    turns = {turn.key: turn for turn in dialogue.read_turns(TURNS)}
    if missing := sorted({prompt for prompt, _ in readings} - turns.keys()):
        raise files.UserError(
            f"{READINGS}: {missing[0]} is no prompt of {TURNS}; undo changes of prepare with `git checkout params.yaml`"
        )
    chosen = [turns[prompt] for prompt, _ in readings]
    responses = [response_format.parse_response(text) for _, text in readings]
    scores = score([turn.text for turn in chosen], responses)
    sensible, empathetic = np.array(list(readings.values())).T
    story = np.array([turn.story for turn in chosen])
    files.write_text(RESULT, report(scores, sensible, empathetic, story))
    print(RESULT.read_text())


def read(path: Path) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Return by (prompt, text) whether most readings found it sensible, and empathetic."""
    marks: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["set"].startswith(SET):
                mark = row["sense"] == "2", row["empathetic"] == "1"
                marks.setdefault((row["prompt_id"], row["text"]), []).append(mark)
    return {item: tuple(2 * sum(one) > len(one) for one in zip(*found, strict=True)) for item, found in marks.items()}


def score(utterances: list[str], responses: list[response_format.Response]) -> dict[str, np.ndarray]:
    """Return every term's raw scores, and the held-out scorer's and the words' beside them."""
    config = params.load(params.Rewards).model_copy(update={"weights": dict.fromkeys(rewards.TERMS, 1.0)})
    start = rewards.StartingPolicy(
        params.load(params.Policy), train_grpo.POLICY, adapters.adapter_in(train_grpo.WARM_START)
    )
    found = rewards.load(config, rollout.MODELS, start).raw(utterances, responses)
    held_out = kinds.load(rollout.AUDIT_SCORER)
    answers = [response.answer for response in responses]
    found["held-out scorer"] = held_out.score(answers, [(text,) for text in utterances])[:, EMPATHY]
    found["fewer words"] = -np.array([len(answer.split()) for answer in answers], float)
    return found


def report(scores: dict[str, np.ndarray], sensible: np.ndarray, empathetic: np.ndarray, story: np.ndarray) -> str:
    """Return the table as Markdown, the best term first."""
    lines = [
        "# What reward terms tell apart",
        "",
        f"{len(sensible)} answers to validation prompts, {sensible.sum()} of them sensible and {empathetic.sum()} empathetic in most",
        "readings by a language model, blind to policy and scores ([rules](../data/ratings/README.md)). AUC, with a 95 % interval from",
        f"{RESAMPLES} resamples of whole stories, of which there are {len(set(story))}.",
        "",
        "| term | sensible | interval | empathetic |",
        "|---|---|---|---|",
    ]
    rows = sorted(
        ((auc(values, sensible), name, values) for name, values in scores.items()), reverse=True, key=lambda r: r[0]
    )
    for value, name, values in rows:
        low, high = interval(values, sensible, story)
        bold = "**" if value >= ENOUGH else ""
        lines.append(f"| {name} | {bold}{value:.2f}{bold} | {low:.2f} to {high:.2f} | {auc(values, empathetic):.2f} |")
    return "\n".join(lines) + "\n"


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUC of values; NaN where all or none are positive."""
    return float(roc_auc_score(positive, values)) if 0 < positive.sum() < len(positive) else float("nan")


def interval(values: np.ndarray, positive: np.ndarray, story: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of the AUC over resamples of whole stories."""
    rng = np.random.default_rng(1)
    rows_of = [np.flatnonzero(story == name) for name in np.unique(story)]
    drawn = (
        np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))]) for _ in range(RESAMPLES)
    )
    low, high = np.nanquantile([auc(values[rows], positive[rows]) for rows in drawn], [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    entry_point.run_stage(main)
