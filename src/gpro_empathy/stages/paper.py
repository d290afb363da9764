"""Typeset the report, and beside it a copy that shows what changed against the baseline.

Reads   paper/main.tex, paper/diff.tex, paper/references.bib, paper/generated/, paper/provenance/,
        reports/figures/*.pdf, reports/sweeps/*/figure.pdf, reports/sweeps/*/table.tex
Writes  reports/paper.pdf       the same bytes for the same inputs; LaTeX works in paper/build/
        reports/paper-diff.pdf  every changed number beside the baseline's; where nothing is to be
                                shown, a page that says so, which needs no typesetting
"""

import shutil
import sys
from pathlib import Path

from gpro_empathy import entry_point, files
from gpro_empathy.report import changes, typeset

PDF = Path("reports/paper.pdf")
DIFFERENCE = Path("reports/paper-diff.pdf")
CHANGES = Path("paper/generated/changes.tex")


def run(root: Path = Path()) -> None:
    """Typeset the report below `root`, and what changed.

    Raises:
        UserError: As `typeset.typeset`.
    """
    build = typeset.typeset(root)
    with files.atomic_path(root / PDF) as temporary:
        shutil.copyfile(build / "main.pdf", temporary)
    content = what_changed(root)
    with files.atomic_path(root / DIFFERENCE) as temporary:
        temporary.write_bytes(content)


def what_changed(root: Path) -> bytes:
    """Return the PDF of what changed.

    It is a page with the reason where nothing is to be shown, or LaTeX cannot set the words of the
    baseline: they may be those of another version, and must not cost an experiment its report.
    """
    if reason := changes.reason_for_nothing(files.read_text(root / CHANGES)):
        return typeset.message_page(f"Nothing to show beside the report: {reason}.")
    try:
        return typeset.typeset_changes(root).read_bytes()
    except files.UserError as error:
        print(f"paper: {DIFFERENCE} shows no changes: {error}", file=sys.stderr)
        return typeset.message_page(f"The words of the baseline and of this run could not be typeset together: {error}")


def main() -> None:
    """Run the stage in the repository."""
    run()


if __name__ == "__main__":
    entry_point.run_stage(main)
