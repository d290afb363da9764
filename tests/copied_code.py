"""Copies of the package that hold one made-up stage, for tests of which code it is that runs."""

import shutil
from pathlib import Path

import gpro_empathy


def copy_with_stage(folder, prints):
    """Make a copy of a repository with a stage that runs `prints` and the modules that it needs."""
    package = folder / "src/gpro_empathy"
    (package / "stages").mkdir(parents=True)
    for name in ("__init__.py", "entry_point.py", "files.py", "params.py"):
        shutil.copy(Path(gpro_empathy.__file__).parent / name, package / name)
    (package / "stages/__init__.py").write_text("")
    (package / "stages/try_out.py").write_text(
        f"import os, sys, time\nfrom gpro_empathy import entry_point\n\ndef main():\n    {prints}\n\nentry_point.run_stage(main)\n"
    )
    return folder
