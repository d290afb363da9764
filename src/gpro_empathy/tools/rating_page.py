"""Write a page on which people rate responses of the run: one file, no server, no network.

Reads   data/rollouts/rollouts.jsonl    the responses; where there are none, as in a fresh clone,
        reports/index.html              the results page, which holds those of the committed run
        data/ratings/*.csv              whose names are taken
Writes  tmp/rating/index.html           the page; it exports a CSV file for data/ratings

The page holds texts and hashes, neither policies nor scores, in the order of the hashes. What a
rater gets of them, its order and its sides are drawn in the page from the rater's name.
"""

import argparse
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpro_empathy import entry_point, files
from gpro_empathy.analysis import effects, rated_items, rated_policies, rating_power
from gpro_empathy.data import ratings
from gpro_empathy.files import UserError
from gpro_empathy.report import web_page

ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
RESULTS = Path("reports/index.html")
PAGE = Path("tmp/rating/index.html")
TEMPLATE = Path(__file__).with_suffix(".html")
FORMS: dict[str, ratings.Form] = {"pairs": "pair", "single": "single"}
# How many a rater gets in a round: what takes about ten minutes.
NUMBER = 20
# The part of a first round that is the same for all raters, so that their agreement can be
# measured; what is left is drawn for each, so that together they rate much of the run.
SHARED = 0.25
# Words a minute of silent reading: Brysbaert (2019), How many words do we read per minute?, Journal
# of Memory and Language 109, 104047.
READING_WPM = 238
# Seconds to decide once all is read: a guess.
DECIDING_S = 10
# What the number of pairs supposes: the share of ties, and how many times the variance is that of
# independent pairs. The report takes both from the ratings at hand.
TIES, DESIGN_EFFECT = 0.25, 1.5


@dataclass(frozen=True)
class Unit:
    """A message and the answers to it that are rated: a pair of them, or each by itself."""

    message: str
    answers: tuple[rated_items.Item, ...]


def units(items: Sequence[rated_items.Item], form: ratings.Form) -> list[Unit]:
    """Return what is rated, in an order that says nothing about who answered.

    Raises:
        UserError: If there is no pair, because both policies answered alike.
    """
    if form == "pair":
        pairs = [Unit(pair.start.message, _in_order((pair.start, pair.tuned))) for pair in rated_items.pairs(items)]
        if not pairs:
            raise UserError(
                "there is no pair to rate: both policies answered every message alike; rate single answers instead "
                "(--form single)"
            )
        return sorted(pairs, key=_first_hash)
    by_message: dict[str, list[rated_items.Item]] = {}
    for item in rated_items.distinct(items):
        by_message.setdefault(item.message, []).append(item)
    return sorted((Unit(message, _in_order(answers)) for message, answers in by_message.items()), key=_first_hash)


def render(rated: Sequence[Unit], form: ratings.Form, number: int = NUMBER, taken: Iterable[str] = ()) -> str:
    """Return the page.

    Args:
        number: How many pairs or answers a rater gets in a round.
        taken: Names of raters whose ratings of these texts in this form are there already.
    """
    template = files.read_text(TEMPLATE)
    filled = {"DATA": web_page.embedded_json(_browser_data(rated, form, number, taken))}
    for element in ("style", "script"):
        # As a browser takes it: what stands between the tags, to the last line end.
        source = re.search(rf"<{element}>(.*?)</{element}>", template, re.DOTALL)[1]
        filled[f"{element.upper()}_HASH"] = web_page.source_hash(source)
    # At one go, so that such a mark in a text stays as it is.
    return re.sub("@(STYLE_HASH|SCRIPT_HASH|DATA)@", lambda mark: filled[mark[1]], template)


def _browser_data(rated: Sequence[Unit], form: ratings.Form, number: int, taken: Iterable[str]) -> dict:
    hashes = sorted({answer.hash for unit in rated for answer in unit.answers})
    return {
        "form": form,
        "columns": ratings.COLUMNS,
        # By which a browser keeps ratings of this run apart from those of another.
        "run": hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16],
        "number": number,
        "shared": _shared(rated, form, number),
        "minutes": minutes(rated, form, number),
        "taken": sorted({name.lower() for name in taken}),
        "units": [
            {"message": unit.message, "answers": [{"hash": item.hash, "text": item.answer} for item in unit.answers]}
            for unit in rated
        ],
    }


def items_in(rated: Sequence[Unit], form: ratings.Form) -> int:
    """Return how many pairs, or single answers, there are to rate."""
    return len(rated) if form == "pair" else sum(len(unit.answers) for unit in rated)


def minutes(rated: Sequence[Unit], form: ratings.Form, number: int) -> int:
    """Return about how many minutes a round takes: reading all that is shown, and deciding."""
    items = items_in(rated, form)
    shown = [text for unit in rated for text in _shown(unit, form)]
    seconds = 60 * sum(len(text.split()) for text in shown) / READING_WPM / items + DECIDING_S
    return max(1, round(min(number, items) * seconds / 60))


def _shown(unit: Unit, form: ratings.Form) -> list[str]:
    """Return the texts that a rater of a unit reads; the message before each single answer."""
    answers = [item.answer for item in unit.answers]
    return [unit.message, *answers] if form == "pair" else [text for one in answers for text in (unit.message, one)]


def _shared(rated: Sequence[Unit], form: ratings.Form, number: int) -> int:
    """Return how many of the units, from the first on, every rater gets in the first round."""
    wanted, units_taken, items = math.ceil(SHARED * number), 0, 0
    while items < wanted and units_taken < len(rated):
        items += items_in(rated[units_taken : units_taken + 1], form)
        units_taken += 1
    return units_taken


def taken_names(rated: Sequence[Unit], form: ratings.Form, folder: Path = ratings.FOLDER) -> set[str]:
    """Return who has rated one of these texts in this form, by the files of data/ratings.

    A second rating under the same name could not be told from the first.

    Raises:
        UserError: If a file is none of ratings, as `ratings.read_folder`.
    """
    hashes = {item.hash for unit in rated for item in unit.answers}
    return {
        rating.rater
        for found in ratings.read_folder(folder).values()
        for rating in found
        if rating.form == form and rating.left in hashes
    }


def run_items(root: Path = Path()) -> list[rated_items.Item]:
    """Return what is rated of the run, in the order of its rows.

    Raises:
        UserError: If there are neither rollouts nor a results page, or these are not of a run with
            something to compare.
    """
    rows, source = run_rows(root)
    try:
        return rated_items.items(rows)
    except KeyError as error:
        raise UserError(f"{source}: no {error} in a response; run `make reproduce`") from None
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


def run_rows(root: Path = Path()) -> tuple[list[dict], Path]:
    """Return the responses of the run, and the file that they come from.

    Raises:
        UserError: If there are neither rollouts nor a results page.
    """
    if (root / ROLLOUTS).exists():
        return files.read_jsonl(root / ROLLOUTS), ROLLOUTS
    page = files.read_text(
        root / RESULTS, if_missing=f"nor is there {ROLLOUTS}; run `make reproduce`, which makes both"
    )
    try:
        return web_page.rows_of(page), RESULTS
    except KeyError as error:
        raise UserError(f"{RESULTS}: no {error} in what it holds of a response; run `make reproduce`") from None
    except ValueError as error:
        raise UserError(f"{RESULTS}: {error}; run `make reproduce`") from None


def run(form: ratings.Form, number: int, output: Path = PAGE, root: Path = Path()) -> str:
    """Write the page, and return what to say about it.

    Raises:
        UserError: If there is nothing to rate, or an input cannot be read.
    """
    rated = units(run_items(root), form)
    files.write_text(root / output, render(rated, form, number, taken_names(rated, form, root / ratings.FOLDER)))
    return summary(rated, form, number, output)


def summary(rated: Sequence[Unit], form: ratings.Form, number: int, output: Path) -> str:
    """Return what the terminal says: how many, how long, and how many it would take."""
    items, what = items_in(rated, form), "pairs" if form == "pair" else "single answers"
    count = min(number, items)
    lines = [
        f"{output}: {count} of {items} {what} for each rater, {_percent(SHARED)} of them the same for all; "
        f"about {minutes(rated, form, number)} min",
        "Open it in a browser, or send the file to whoever rates: it needs no network and sends nothing.",
        f"It exports a CSV file, which belongs in {ratings.FOLDER}.",
    ]
    if form == "pair":
        lines.append(
            f"{_pairs_to_rate(items, count)} (two-sided at 95 %, power {_percent(effects.POWER)}, if {_percent(TIES)} are ties and likeness "
            f"within stories and raters makes the variance {DESIGN_EFFECT:g} times that of independent pairs)."
        )
    return "\n".join(lines)


def _pairs_to_rate(pairs: int, count: int) -> str:
    """Say how many pairs the planned win rate takes, and what those of the run tell if too few.

    Another rating of the same pair adds less than one of another pair, so that more raters do not
    make up for pairs that the run lacks.
    """
    needed = rating_power.pairs_needed(rated_policies.PLANNED, TIES, DESIGN_EFFECT)
    takes = (
        f"To tell a win rate of {_percent(rated_policies.PLANNED)} from an even one takes about {needed} rated pairs"
    )
    if needed <= pairs:
        return f"{takes}, {math.ceil(needed / count)} raters of {count}"
    told = rating_power.detectable_win_rate(pairs, TIES, DESIGN_EFFECT)
    # Rounded up: what lies below it is not told.
    what = "no win rate" if told is None else f"one of {math.ceil(100 * told)} % or more"
    return f"{takes}, and this run has {pairs}: these, each rated once, tell {what} from an even one"


def main() -> None:
    """Write the page that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m gpro_empathy.tools.rating_page",
        description="Write a page on which people rate responses of the run.",
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        default="pairs",
        help="which of two answers is better, or marks of single answers (default: %(default)s)",
    )
    parser.add_argument(
        "--number", type=int, default=NUMBER, metavar="N", help="pairs or answers of a round (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=PAGE, metavar="FILE", help="the page (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.number < 1:
        raise UserError(f"--number: {arguments.number} is less than 1")
    if arguments.output.is_dir():
        raise UserError(f"--output: {arguments.output} is a folder; name a file in it")
    print(run(FORMS[arguments.form], arguments.number, arguments.output))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _in_order(items: Iterable[rated_items.Item]) -> tuple[rated_items.Item, ...]:
    return tuple(sorted(items, key=lambda item: item.hash))


def _first_hash(unit: Unit) -> str:
    return unit.answers[0].hash


if __name__ == "__main__":
    entry_point.run_stage(main)
