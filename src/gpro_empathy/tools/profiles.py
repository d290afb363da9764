"""Lay a profile over params.yaml, keeping its comments, so that git shows the change and undoes it.

`python -m gpro_empathy.tools.profiles NAME` applies profiles/NAME.yaml to params.yaml.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import yaml
from ruamel.yaml import YAML, YAMLError

from gpro_empathy import entry_point, files, params
from gpro_empathy.files import UserError

PROFILES = Path("profiles")
NULL_TAG = "tag:yaml.org,2002:null"


def apply(name: str, folder: Path = PROFILES, target: Path = params.PARAMS) -> list[str]:
    """Change `target` as the profile says, check the result, and return one line per changed key.

    Raises:
        UserError: If there is no such profile, or it names a key that params.yaml lacks; if either
            file is no YAML of sections.
    """
    profile, path = _read(name, folder)
    params.load_all(target)  # so that what is wrong further on is the profile's
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 120
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar(NULL_TAG, "null"))
    try:
        values = editor.load(files.read_text(target))
    except YAMLError as error:  # two keys of one value, such as 1 and 0x1, which load_all lets pass
        raise UserError(f"{target}: not YAML: {' '.join(str(error).split())}") from None
    changes = _overlay(values, profile, path)
    with files.atomic_path(target) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            editor.dump(values, file)
        # As the stages will read it.
        params.check(yaml.safe_load(files.read_text(temporary)), path)
    return changes


def preview(name: str, folder: Path = PROFILES, target: Path = params.PARAMS) -> params.Params:
    """Return the parameters that the profile would make of `target`, and change nothing.

    Raises:
        UserError: As `apply`.
    """
    return params.check(values(name, folder, target), folder / f"{name}.yaml")


def values(name: str, folder: Path = PROFILES, target: Path = params.PARAMS) -> dict:
    """Return the content of `target` with the profile laid over it, not checked yet.

    Raises:
        UserError: As `apply`.
    """
    profile, path = _read(name, folder)
    result = _load(target)
    _overlay(result, profile, path)
    return result


def _read(name: str, folder: Path) -> tuple[dict, Path]:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(profile.stem for profile in folder.glob("*.yaml")))
        raise UserError(f"{path}: no such profile; there are {known}")
    return _load(path), path


def _load(path: Path) -> dict:
    try:
        content = yaml.load(files.read_text(path), params.KeysOnce)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return _sections(content, path)


def _sections(content: object, path: Path) -> dict:
    """Return what a YAML file holds, if that is sections with settings below them."""
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise UserError(f"{path}: expected sections, as in params.yaml, got {found}")
    for section, settings in content.items():
        if not isinstance(settings, dict):
            raise UserError(f"{path}: {section} has no settings below it; give it some, or delete it")
    return content


def _overlay(values: dict, profile: Mapping, path: Path) -> list[str]:
    changes = []
    for section, settings in profile.items():
        if section not in values:
            raise UserError(f"{path}: {section} is no section of params.yaml")
        for key, new in settings.items():
            if key not in values[section]:
                raise UserError(f"{path}: {section}.{key} is no parameter; check its spelling")
            old = values[section][key]
            if old != new:
                values[section][key] = new
                changes.append(f"{section}.{key}: {old} -> {new}")
    return changes


def main() -> None:
    """Apply the profile named on the command line."""
    parser = argparse.ArgumentParser(description="Lay a profile over params.yaml.")
    parser.add_argument("name", help="a file of profiles/, without .yaml")
    name = parser.parse_args().name
    for change in apply(name):
        print(f"params.yaml: {change}")
    print(f"profile {name} is applied; `git diff params.yaml` shows it, `git checkout params.yaml` undoes it")


if __name__ == "__main__":
    entry_point.run_stage(main)
