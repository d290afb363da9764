"""Train the empathy scorer that rewards, and a held-out scorer of another kind that only audits.

Both learn from training stories, each from its own: the second sees none that the first saw.

Reads   data/prepared/train.jsonl
Writes  models/scorer/         the reward's scorer, with a model card
        models/audit_scorer/   the held-out scorer, with a model card
"""

from pathlib import Path

from gpro_empathy import entry_point, params
from gpro_empathy.data import dialogue
from gpro_empathy.scorer import empathy_scorer, fitting, lexical_fitting, lexical_scorer, scorer_card

TRAIN = Path("data/prepared/train.jsonl")
SCORER, AUDIT_SCORER = Path("models/scorer"), Path("models/audit_scorer")


def main() -> None:
    """Run the stage."""
    config = params.load(params.TrainScorer)
    halves = fitting.disjoint_halves(dialogue.read_turns(TRAIN), config)
    print(f"scorers: {len(halves['reward'])} turns for the reward's, {len(halves['audit'])} for the held-out one")
    scorer = fitting.train(halves["reward"], config, seed=config.seed)
    settings = fitting.describe(halves["reward"], config, seed=config.seed)
    empathy_scorer.save(scorer, SCORER, settings, scorer_card.write(settings))
    held_out, settings = lexical_fitting.train(halves["audit"])
    lexical_scorer.save(held_out, AUDIT_SCORER, settings, scorer_card.write_lexical(settings))


if __name__ == "__main__":
    entry_point.run_stage(main)
