"""Typeset the report.

Reads   paper/main.tex, paper/references.bib, paper/generated/, paper/provenance/,
        reports/figures/*.pdf, reports/sweeps/*/figure.pdf, reports/sweeps/*/table.tex
Writes  reports/paper.pdf    the same bytes for the same inputs; LaTeX works in paper/build/
"""

import shutil
from pathlib import Path

from gpro_empathy import entry_point, files
from gpro_empathy.report import typeset

PDF = Path("reports/paper.pdf")


def run(root: Path = Path()) -> None:
    """Typeset the report below `root`.

    Raises:
        UserError: As `typeset.typeset`.
    """
    build = typeset.typeset(root)
    with files.atomic_path(root / PDF) as temporary:
        shutil.copyfile(build / "main.pdf", temporary)


def main() -> None:
    """Run the stage in the repository."""
    run()


if __name__ == "__main__":
    entry_point.run_stage(main)
