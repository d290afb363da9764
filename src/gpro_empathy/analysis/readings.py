"""Do the answers make sense? What readers found in this run's responses, counted.

No score of the project tells a sensible answer from nonsense, so responses are read. The rules of
reading and the columns of the table are in data/ratings/README.md. A reading is of one text; it
counts for a run that gave this very text to the same prompt.
"""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from gpro_empathy import files
from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import Estimate, PolicyReadings, ReaderAgreement, Readings

COLUMNS = ("set", "policy", "prompt_id", "text", "sense", "empathetic", "reader")
NONSENSE, OFF, SENSIBLE = 0, 1, 2


@dataclass(frozen=True)
class Reading:
    """What one reader found in one text; `seed` is the training seed, where the table names one."""

    policy: str
    seed: int | None
    prompt_id: str
    text: str
    sense: int
    empathetic: int
    reader: str


def read(path: Path) -> list[Reading]:
    """Read a table of readings; no file, no readings.

    Raises:
        UserError: If it is no CSV table with the columns, or a mark or a policy is unknown; names
            the line's reading and the column.
    """
    if not path.is_file():
        return []
    try:
        table = csv.DictReader(io.StringIO(files.read_text(path, newline=""), newline=""), strict=True)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise files.UserError(f"{path}: column {missing[0]!r} is missing; its README lists the columns")
        return [_reading(row, f"{path}: reading {number}") for number, row in enumerate(table, 1)]
    except csv.Error as error:
        raise files.UserError(f"{path}: not a CSV table: {error}") from None


def _reading(row: Mapping[str, str | None], place: str) -> Reading:
    if None in row or None in row.values():
        raise files.UserError(f"{place}: has not as many cells as the header; quote texts that hold a comma")
    policy, _, seed = row["policy"].partition("-")
    if policy not in metric_names.POLICIES or not (seed.isdigit() or "-" not in row["policy"]):
        raise files.UserError(
            f"{place}: policy: {row['policy']!r} is none of {', '.join(metric_names.POLICIES)}, with a training seed "
            "behind a hyphen or without"
        )
    marks = {"sense": ("0", "1", "2"), "empathetic": ("0", "1")}
    for column, allowed in marks.items():
        if row[column] not in allowed:
            raise files.UserError(f"{place}: {column}: {row[column]!r} is none of {', '.join(allowed)}")
    return Reading(
        policy=policy,
        seed=int(seed) if seed else None,
        prompt_id=row["prompt_id"],
        text=row["text"].strip(),
        sense=int(row["sense"]),
        empathetic=int(row["empathetic"]),
        reader=row["reader"],
    )


def summary(readings: Sequence[Reading], rows: Sequence[Mapping], confidence: float) -> Readings:
    """Count what was read of a run's responses.

    An answer that was read twice counts once, with the lower of its marks, as the rules say for
    doubt. The intervals are Wilson's and take the answers as independent.

    Args:
        rows: Rollout rows, one per response.
        confidence: Two-sided coverage of the intervals, in (0, 1).
    """
    stories = _stories(rows)
    policies = [name for name in metric_names.POLICIES if any(row["model"] == name for row in rows)]
    ours = [one for one in readings if _key(one) in stories]
    return {
        "readings": len(ours),
        "of_another_run": len(readings) - len(ours),
        "readers": sorted({one.reader for one in ours}),
        "policies": {
            policy: _of_policy([one for one in ours if one.policy == policy], stories, confidence)
            for policy in policies
            if any(one.policy == policy for one in ours)
        },
        "agreement": _agreement(ours),
    }


def _key(reading: Reading) -> tuple:
    return reading.policy, reading.seed, reading.prompt_id, reading.text


def _stories(rows: Sequence[Mapping]) -> dict[tuple, str]:
    """Return the story of each response that was given, by policy, seed, prompt and text.

    A reading may leave the seed out.
    """
    stories = {}
    for row in rows:
        seed = None if row["seed"] is None else int(row["seed"])
        for named in {None, seed}:
            stories[row["model"], named, str(row["prompt_id"]), row["text"].strip()] = str(row["story"])
    return stories


def _of_policy(readings: Sequence[Reading], stories: Mapping[tuple, str], confidence: float) -> PolicyReadings:
    lower: dict[tuple, tuple[int, int]] = {}
    for one in readings:
        # The same text to the same prompt is the same answer, whichever seed gave it.
        key = (one.prompt_id, one.text)
        sense, empathetic = lower.get(key, (one.sense, one.empathetic))
        lower[key] = min(sense, one.sense), min(empathetic, one.empathetic)
    sense = [marks[0] for marks in lower.values()]
    counts = {
        "sensible": sense.count(SENSIBLE),
        "off": sense.count(OFF),
        "nonsense": sense.count(NONSENSE),
        "empathetic": sum(marks[1] for marks in lower.values()),
    }
    return {
        "answers": len(lower),
        "stories": len({stories[_key(one)] for one in readings}),
        **counts,
        "shares": {name: _share(count, len(lower), confidence) for name, count in counts.items()},
    }


def _share(count: int, of: int, confidence: float) -> Estimate:
    """Return a share with its interval.

    Source:
        Wilson (1927), as scipy computes it.
    """
    interval = binomtest(count, of).proportion_ci(confidence, method="wilson")
    return {"estimate": count / of, "low": float(interval.low), "high": float(interval.high)}


def _agreement(readings: Sequence[Reading]) -> list[ReaderAgreement]:
    """Return how every two readers agree on what is sensible, over the answers that both read."""
    marks: dict[str, dict[tuple, bool]] = {}
    for one in readings:
        of_reader = marks.setdefault(one.reader, {})
        key = (one.policy, one.prompt_id, one.text)
        of_reader[key] = of_reader.get(key, True) and one.sense == SENSIBLE
    found = []
    for first, second in itertools.combinations(sorted(marks), 2):
        if both := sorted(marks[first].keys() & marks[second].keys()):
            pairs = [(marks[first][key], marks[second][key]) for key in both]
            found.append({"readers": [first, second], "answers": len(both), "kappa": kappa(pairs)})
    return found


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Return Cohen's kappa of two readers' yes or no; None if both always say the same one thing.

    Source:
        Cohen (1960), A Coefficient of Agreement for Nominal Scales.
    """
    n = len(pairs)
    first, second = (sum(pair[k] for pair in pairs) / n for k in (0, 1))
    by_chance = first * second + (1 - first) * (1 - second)
    agreed = sum(one == other for one, other in pairs) / n
    return None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)
