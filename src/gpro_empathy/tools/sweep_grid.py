"""The grid of a sweep: what is varied, read from one line, and the settings of each of its runs.

A grid is {key: values}, where a key is `section.name` of params.yaml, or a name within a mapping
there (`rewards.weights.length`). A setting is {key: value}, one of each. For a key that holds a
mapping, a value may be `all`, the mapping as it stands, or `-name`, the mapping without that entry.
"""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpro_empathy import params, rewards
from gpro_empathy.files import UserError

# The stages up to the rollouts read these. `prepare` is not among them: with other stories in the
# test split, runs could not be compared prompt by prompt.
SECTIONS = ("policy", "rewards", "train_scorer", "train_reader", "warm_start", "train_grpo", "rollout")
SEEDS = "train_grpo.seeds"
AS_IT_STANDS = "all"
_CLOSING = {"{": "}", "[": "]"}


def parse(text: str) -> dict[str, list[Any]]:
    """Read a grid from `key=value,value key=value`.

    Values are in YAML's short form; commas and spaces within brackets and quotes belong to a value.

    Raises:
        UserError: If there is no key, or one without a value or given twice.
    """
    grid: dict[str, list[Any]] = {}
    for item in filter(None, _split(text, " \t\n")):
        key, equals, values = item.partition("=")
        listed = [value.strip() for value in _split(values, ",")]
        if not equals or not key or not all(listed):
            raise UserError(f"SET: {item!r} is not of the form key=value,value")
        if key in grid:
            raise UserError(f"SET: {key} is given twice; list its values after one =, with commas between them")
        grid[key] = [_value(value) for value in listed]
    if not grid:
        raise UserError(
            'SET: nothing is varied; give SET="key=value,value", such as rewards.calibration_temperature=0.2,1'
        )
    return grid


def parse_seeds(text: str) -> list[int]:
    """Read training seeds, with commas or spaces between them.

    Raises:
        UserError: If there is none, or one is no whole number or given twice.
    """
    words = text.replace(",", " ").split()
    if bad := [word for word in words if not word.isdecimal()]:
        raise UserError(f"SEEDS: {bad[0]!r} is no seed; give whole numbers such as 23,24,25")
    seeds = [int(word) for word in words]
    if not seeds:
        raise UserError("SEEDS: there is none; give whole numbers such as 23,24,25")
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise UserError(f"SEEDS: {twice[0]} is given twice; the same run twice is one run")
    return seeds


def _split(text: str, separators: str) -> list[str]:
    """Split at separators outside brackets and quotes."""
    parts, open_brackets, quote = [""], [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif open_brackets and character == open_brackets[-1]:
            open_brackets.pop()
        elif not open_brackets and character in separators:
            parts.append("")
            continue
        parts[-1] += character
    if missing := quote or "".join(open_brackets[-1:]):
        raise UserError(f"SET: {text.strip()!r} lacks a closing {missing}")
    return parts


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"SET: {text!r} is not YAML: {' '.join(str(error).split())}") from None
    # YAML reads 1e-4, without a point, as a text.
    if isinstance(value, str):
        try:
            return float(value) if math.isfinite(float(value)) else value
        except ValueError:
            return value
    return value


def settings(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every setting of a grid; the last key varies fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def applied(base: Mapping, setting: Mapping[str, Any]) -> dict:
    """Return the content of params.yaml with a setting put in.

    Raises:
        UserError: If a key is none of the stages up to the rollouts, or a mapping lacks what is to
            be left out of it.
    """
    values = copy.deepcopy(dict(base))
    for key, value in setting.items():
        place, name = _place(values, key)
        place[name] = _put(key, place[name], value)
    return values


def _place(values: dict, key: str) -> tuple[dict, str]:
    """Return the mapping that holds a key, and its name there."""
    section, *inner = key.split(".")
    if key == SEEDS:
        raise UserError(f'SET: {SEEDS} are given by SEEDS="23,24,25", one run for each')
    if section not in SECTIONS or not inner:
        raise UserError(f"SET: {key}: a sweep varies settings of {', '.join(SECTIONS)}, named as section.key")
    place: Any = values[section]
    for part in inner[:-1]:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or inner[-1] not in place:
        raise UserError(f"SET: {key} is no parameter; check its spelling")
    return place, inner[-1]


def _put(key: str, present: Any, value: Any) -> Any:
    if not isinstance(present, dict) or not isinstance(value, str):
        return value
    if value == AS_IT_STANDS:
        return present
    left_out = value.removeprefix("-")
    if left_out == value or left_out not in present:
        raise UserError(
            f"SET: {key}={value}: give {AS_IT_STANDS}, a mapping in {{}}, or one of "
            + ", ".join(f"-{name}" for name in present)
        )
    return {name: inner for name, inner in present.items() if name != left_out}


def check(base: Mapping, grid: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> None:
    """Check every run of a grid, before the first of them.

    Raises:
        UserError: If a key is unknown or within another one, a value out of range, a reward term
            unknown, or two settings are the same.
    """
    for one, other in itertools.permutations(grid, 2):
        if other.startswith(f"{one}."):
            raise UserError(f"SET: {other} is part of {one}; vary one of them")
    seen: dict[str, dict] = {}
    for setting in settings(grid):
        values = applied(base, setting)
        values["train_grpo"]["seeds"] = list(seeds)
        config = params.check(values, Path(f"SET {written(setting)}"))
        params.check_inputs(config)
        rewards.load_user_terms(config.rewards)
        before = seen.setdefault(config.model_dump_json(), setting)
        if before is not setting:
            raise UserError(f"SET: {written(before)} and {written(setting)} are the same setting; leave one out")


def differences(base: Mapping, other: Mapping, grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the keys in which runs of a grid from two contents of params.yaml would differ."""
    found = set()
    for setting in settings(grid):
        ours, theirs = (dict(_leaves(_decisive(applied(values, setting)))) for values in (base, other))
        found |= {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    return sorted(found)


def decisive(base: Mapping) -> dict:
    """Return the sections that decide a run, without the training seeds."""
    return copy.deepcopy(_decisive(base))


def _decisive(values: Mapping) -> dict:
    chosen = {section: dict(values[section]) for section in (*SECTIONS, "prepare")}
    chosen["train_grpo"].pop("seeds", None)
    return chosen


def _leaves(values: Mapping, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def written(setting: Mapping[str, Any]) -> str:
    """Return a setting as it is written in SET."""
    return " ".join(f"{key}={text(value)}" for key, value in setting.items())


def label(setting: Mapping[str, Any]) -> str:
    """Return the values of a setting in words, for tables and figures."""
    return " / ".join(_words(value) for value in setting.values())


def _words(value: Any) -> str:
    if isinstance(value, str) and value.startswith("-"):
        return f"without {value[1:].replace('_', ' ')}"
    return f"{value:g}" if isinstance(value, float) else text(value)


def text(value: Any) -> str:
    """Return a value in YAML's short form, in one line."""
    line = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return line.removesuffix("\n").removesuffix("\n...")
