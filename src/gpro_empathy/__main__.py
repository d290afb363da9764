"""The command line: `python -m gpro_empathy score INPUT --output OUTPUT` rates the turns of a file."""

import argparse
import sys
from pathlib import Path

from gpro_empathy import files, scoring

MODEL = Path("models/scorer")
ABOUT = """\
Rate the turns of a CSV or JSON lines file: Emotion (0-5), EmotionalPolarity (0 positive, 2 negative), Empathy (0-5).

The file is in the layout of the official WASSA CONV-turn files (train, dev or test), or has a column text and, if you
like, a column context with the message before it. Labels are not needed. A scorer that reads context finds it in the
earlier turns of the same conversation; the rows of a conversation must then stand together and in order.
Written are the columns that name a turn (id, conversation_id, speaker, ...) and the three scores, one row for one row.
"""


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m gpro_empathy", description="Tools that use what was trained.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="rate the turns of a file",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("input", metavar="INPUT", help="CSV or JSON lines file in UTF-8, or - for standard input")
    score.add_argument(
        "--output", metavar="OUTPUT", required=True, help="file to write (.csv or .jsonl), or - for standard output"
    )
    score.add_argument(
        "--model", metavar="DIR", type=Path, default=MODEL, help=f"folder of a scorer (default: {MODEL})"
    )
    arguments = parser.parse_args()
    scoring.score_file(arguments.input, arguments.output, lambda: _load(arguments.model), _note)


def _load(folder: Path) -> scoring.Scorer:
    # These take seconds, which --help and a mistaken file need not wait for.
    from transformers.utils import logging

    from gpro_empathy import scorer

    logging.disable_progress_bar()
    model = scorer.load(folder)
    model.hasten()
    return model


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    files.run_stage(main)
