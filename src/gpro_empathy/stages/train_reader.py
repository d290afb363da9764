"""Train the models that say what answers suit a message: from readings and from demonstrations.

Reads   data/prepared/readings_train.jsonl, data/prepared/demonstrations_train.jsonl
        models/scorer/      whose empathy the approach model learns to expect
Writes  models/reader/      the reader model, which learns from readings, with a model card
        models/approach/    the approach model, which learns from demonstrations, with a model card
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.scorer import approach, empathy_scorer, reader, scorer_card

READINGS = Path("data/prepared/readings_train.jsonl")
DEMONSTRATIONS = Path("data/prepared/demonstrations_train.jsonl")
SCORER, READER, APPROACH = Path("models/scorer"), Path("models/reader"), Path("models/approach")


def main() -> None:
    """Run the stage."""
    config, encoder = params.load(params.TrainReader), params.load(params.TrainScorer)
    readings, demonstrations = files.read_jsonl(READINGS), files.read_jsonl(DEMONSTRATIONS)
    print(f"reader: {len(readings)} readings to learn from")
    settings = reader.describe(readings, config, encoder)
    of_readings = reader.train(readings, config, encoder)
    empathy_scorer.save(of_readings, READER, settings, scorer_card.write_reader(settings))
    model = approach.train(demonstrations)
    model = approach.with_usual(model, demonstrations, empathy_scorer.load(SCORER), of_readings)
    approach.save(model, APPROACH, scorer_card.write_approach(model.names, int(model.counts_K.sum())))


if __name__ == "__main__":
    entry_point.run_stage(main)
