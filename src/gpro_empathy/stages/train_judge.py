"""Train the judge of replies on readings of answers.

Reads   data/prepared/readings_{train,validation}.jsonl
Writes  models/judge/        the judge, with a model card
        reports/judge.json   how well it tells apart what readers did, on other stories
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.scorer import empathy_scorer, judge, scorer_card

READINGS = Path("data/prepared")
JUDGE = Path("models/judge")
REPORT = Path("reports/judge.json")


def main() -> None:
    """Run the stage."""
    config, encoder = params.load(params.TrainJudge), params.load(params.TrainScorer)
    readings = {split: files.read_jsonl(READINGS / f"readings_{split}.jsonl") for split in ("train", "validation")}
    print(f"judge: {len(readings['train'])} readings to learn from, {len(readings['validation'])} to measure it on")
    trained = judge.train(readings["train"], config, encoder)
    settings = judge.describe(readings["train"], config, encoder)
    empathy_scorer.save(trained, JUDGE, settings, scorer_card.write_judge(settings))
    measured = judge.accuracy(trained, readings["validation"])
    files.write_json(REPORT, {"trained_on": len(readings["train"]), "validation": measured})


if __name__ == "__main__":
    entry_point.run_stage(main)
