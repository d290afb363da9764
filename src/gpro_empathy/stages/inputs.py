"""Note the content of a file or folder of the user's, so that the stages that read it depend on it.

DVC runs this for each entry of `inputs` in params.yaml; its arguments are the entry's name and
path.

Writes  data/inputs/<name>.json    SHA-256 by file
"""

import argparse
from pathlib import Path

from gpro_empathy import entry_point, files
from gpro_empathy.files import UserError

INPUTS = Path("data/inputs")


def hashes(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of every file in a folder by its path in it.

    Raises:
        UserError: If there is neither.
    """
    if not path.exists():
        raise UserError(f"inputs in params.yaml: there is no {path}; put it there, or correct the path")
    if not (path.is_file() or path.is_dir()):  # a device may never end
        raise UserError(f"inputs in params.yaml: {path} is neither a file nor a folder; name one that is")
    paths = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    folder = path if path.is_dir() else path.parent
    return {file.relative_to(folder).as_posix(): files.sha256(file) for file in paths}


def main() -> None:
    """Write the hashes of one input."""
    parser = argparse.ArgumentParser(description="Note the content of a file or folder of the user's.")
    parser.add_argument("name")
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    files.write_json(INPUTS / f"{arguments.name}.json", hashes(arguments.path))


if __name__ == "__main__":
    entry_point.run_stage(main)
