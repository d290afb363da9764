"""Train the empathy scorer that rewards, and a held-out scorer that only audits.

Both learn from training conversations, each from its own: the second sees none that the first saw.

Reads   data/prepared/train.jsonl
Writes  models/scorer/         the reward's scorer, with a model card
        models/audit_scorer/   the held-out scorer
"""

from pathlib import Path

from gpro_empathy import entry_point, params
from gpro_empathy.data import dialogue
from gpro_empathy.scorer import empathy_scorer, fitting, scorer_card

TRAIN = Path("data/prepared/train.jsonl")
FOLDERS = {"reward": Path("models/scorer"), "audit": Path("models/audit_scorer")}


def main() -> None:
    """Run the stage."""
    config = params.load(params.TrainScorer)
    halves = fitting.disjoint_halves(dialogue.read_turns(TRAIN), config)
    for number, (role, turns) in enumerate(halves.items()):
        print(f"{role} scorer: {len(turns)} turns")
        scorer = fitting.train(turns, config, seed=config.seed + number)
        settings = fitting.describe(turns, config, seed=config.seed + number) | {"role": role}
        empathy_scorer.save(scorer, FOLDERS[role], settings, scorer_card.write(settings))


if __name__ == "__main__":
    entry_point.run_stage(main)
