"""Compare this run's numbers with the committed ones, each with a stated tolerance.

`python -m gpro_empathy.report.reproduction` compares with HEAD, `--revision` with another commit.
Another processor, GPU or library version rounds differently, so that sampling takes other tokens
and training takes another course: settings, counts and labels must repeat exactly, scores within
what their own uncertainty allows. A number that does not agree is a finding, no failure: the status
is 0 whenever there was something to compare.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from gpro_empathy import entry_point, files
from gpro_empathy.files import UserError
from gpro_empathy.report import repository, tolerances
from gpro_empathy.report.tolerances import RULES, Rule, is_compared, rule_of

# metrics.json repeats numbers of reward_analysis.json, ratings.json is about the texts of one run,
# provenance.json and timing.csv are those of a machine.
COMPARED = (
    "reports/data.json",
    "reports/scorer.json",
    "reports/reader.json",
    "reports/warm_start.json",
    "reports/training/settings.json",
    "reports/training/reference.json",
    "reports/reward_analysis.json",
)
# Seconds of each training step: never twice the same.
TIMING = "reports/training/timing.csv"
PARAMS = "params.yaml"
_MISSING = "missing"
_LISTED = 40


@dataclass(frozen=True)
class Comparison:
    """One value of a report: where it stands, both values, the rule, the outcome.

    A value is `missing` where there is none.
    """

    place: str
    committed: object
    current: object
    rule: Rule
    agrees: bool


def compare(name: str, committed: object, current: object) -> list[Comparison]:
    """Compare every number, word and truth value of a report with the committed one.

    They come in the order of their keys.
    """
    old, new = dict(leaves(committed)), dict(leaves(current))
    comparisons = []
    for path in sorted(old.keys() | new.keys(), key=_natural):
        if not is_compared(path, committed):
            continue
        rule = rule_of(name, path)
        a, b = old.get(path, _MISSING), new.get(path, _MISSING)
        agrees = path in old and path in new and _agree(rule, path, a, b, committed)
        comparisons.append(Comparison(f"{name}: {'.'.join(map(str, path))}", a, b, rule, agrees))
    return comparisons


def leaves(value: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """Yield the path and value of everything in a JSON value that is neither object nor list."""
    if isinstance(value, Mapping):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def changed_sections(committed: str, current: str) -> list[str]:
    """Return the sections of params.yaml that differ, sorted."""
    old, new = (yaml.safe_load(text) or {} for text in (committed, current))
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def summary(comparisons: list[Comparison]) -> str:
    """Return how many values agree, in all and by rule, and a table of those that do not.

    Each rule is named with its tolerance.
    """
    wrong = [comparison for comparison in comparisons if not comparison.agrees]
    if not wrong:
        lines = [f"All {len(comparisons)} numbers agree with the committed ones."]
    else:
        lines = [f"{len(comparisons) - len(wrong)} of {len(comparisons)} numbers agree with the committed ones."]
    for rule in RULES:
        judged = [comparison for comparison in comparisons if comparison.rule is rule]
        if judged:
            lines.append(
                f"  {sum(comparison.agrees for comparison in judged):>4} of {len(judged):<4} {rule.what}: {rule.tolerance}"
            )
    if wrong:
        lines.append("These do not:")
        rows = [("", "committed", "this run", "tolerance")]
        rows += [
            (comparison.place, _show(comparison.committed), _show(comparison.current), comparison.rule.tolerance)
            for comparison in wrong[:_LISTED]
        ]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines += ["  " + "  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]
        if len(wrong) > _LISTED:
            lines.append(f"  and {len(wrong) - _LISTED} more")
    return "\n".join(lines)


def verify(revision: str = "HEAD", root: Path = Path()) -> str:
    """Return what there is to say about the run below `root`, as text.

    Raises:
        UserError: If there is nothing to compare: no git, no such revision, no report of this run
            or none at the revision.
    """
    commit = repository.head(root)
    comparisons, notes, identical = [], [], 0
    for name in COMPARED:
        old = repository.committed(name, revision, root)
        if old is None:
            notes.append(f"{name} is not at {revision}, and not compared.")
            continue
        current = files.read_json(root / name)
        identical += old == (root / name).read_bytes()
        comparisons += compare(name, json.loads(old), current)
    if not comparisons:
        raise UserError(f"{revision} holds no reports to compare with")
    place = f"{revision} ({commit[:10]})" if revision == "HEAD" else revision
    notes.insert(0, f"Compared with {place}: {identical} of {len(COMPARED)} reports are the same byte for byte.")
    return "\n".join([*notes, *_expectations(revision, root), summary(comparisons)])


def _expectations(revision: str, root: Path) -> Iterator[str]:
    timing = root / TIMING
    if timing.is_file() and repository.committed(TIMING, revision, root) == timing.read_bytes():
        yield (
            f"{TIMING} is the committed one: the training was not run here since, and its numbers agree as the same files do."
        )
    old = repository.committed(PARAMS, revision, root)
    try:
        sections = [] if old is None else changed_sections(old.decode("utf-8"), files.read_text(root / PARAMS))
    except yaml.YAMLError as error:
        raise UserError(f"{PARAMS}, here or at {revision}: not YAML: {' '.join(str(error).split())}") from None
    if sections:
        yield f"params.yaml differs from {revision} in {', '.join(sections)}: numbers that depend on them are expected to differ."


def _agree(rule: Rule, path: tuple, old: object, new: object, report: object) -> bool:
    if rule.agrees is tolerances.anything:
        return True
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new)]
    if not all(numbers) or not (math.isfinite(old) and math.isfinite(new)):
        return type(old) is type(new) and old == new
    return rule.agrees(path, old, new, report)


def _natural(path: tuple) -> tuple:
    # Positions in a list are numbers, keys are words: a tuple of both kinds has no order of its
    # own.
    return tuple((isinstance(part, str), part) for part in path)


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def main() -> None:
    """Print the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(description="Compare this run's numbers with the committed ones.")
    parser.add_argument("--revision", default="HEAD", help="a commit to compare with (default: HEAD)")
    revision = parser.parse_args().revision
    try:
        print(verify(revision))
    except UserError as error:
        raise UserError(f"verify: nothing was compared: {error}") from error


if __name__ == "__main__":
    entry_point.run_stage(main)
