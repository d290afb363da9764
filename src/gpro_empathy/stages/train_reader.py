"""Train the reader model on readings of answers.

Reads   data/prepared/readings_{train,validation}.jsonl
Writes  models/reader/        the reader model, with a model card
        reports/reader.json   how well it tells apart what readers did, on validation
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.scorer import empathy_scorer, reader, scorer_card

READINGS = Path("data/prepared")
READER = Path("models/reader")
REPORT = Path("reports/reader.json")


def main() -> None:
    """Run the stage."""
    config, encoder = params.load(params.TrainReader), params.load(params.TrainScorer)
    readings = {split: files.read_jsonl(READINGS / f"readings_{split}.jsonl") for split in ("train", "validation")}
    print(f"reader: {len(readings['train'])} readings to learn from, {len(readings['validation'])} to measure it on")
    trained = reader.train(readings["train"], config, encoder)
    settings = reader.describe(readings["train"], config, encoder)
    empathy_scorer.save(trained, READER, settings, scorer_card.write_reader(settings))
    measured = reader.accuracy(trained, readings["validation"])
    files.write_json(REPORT, {"trained_on": len(readings["train"]), "validation": measured})


if __name__ == "__main__":
    entry_point.run_stage(main)
