"""Train the reader model on readings of answers.

Reads   data/prepared/readings_train.jsonl
Writes  models/reader/                      the reader model, with a model card
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.scorer import empathy_scorer, reader, scorer_card

READINGS = Path("data/prepared/readings_train.jsonl")
READER = Path("models/reader")


def main() -> None:
    """Run the stage."""
    config, encoder = params.load(params.TrainReader), params.load(params.TrainScorer)
    readings = files.read_jsonl(READINGS)
    print(f"reader: {len(readings)} readings to learn from")
    settings = reader.describe(readings, config, encoder)
    empathy_scorer.save(reader.train(readings, config, encoder), READER, settings, scorer_card.write_reader(settings))


if __name__ == "__main__":
    entry_point.run_stage(main)
