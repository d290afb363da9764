"""Typeset the report with latexmk: equal bytes for equal sources, no flaw that the log names."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

from gpro_empathy import files

MAIN = Path("paper/main.tex")
CHANGES = Path("paper/diff.tex")
BUILD = Path("paper/build")
# Wider boxes than this stick out visibly into the margin.
LARGEST_OVERFULL_PT = 5.0
# Characters in a line of a page that holds one message.
_MESSAGE_WIDTH = 76
_PACKAGES = "latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended texlive-science lmodern"


def typeset(root: Path) -> Path:
    """Typeset the report below `root` in a fresh build folder; return that folder.

    Raises:
        UserError: If latexmk is missing, LaTeX fails, or the report has undefined references or
            overfull lines.
    """
    if not (root / MAIN).is_file():
        raise files.UserError(f"{MAIN}: no such file")
    # A build that failed, or one from other figures, must not leak into this one.
    shutil.rmtree(root / BUILD, ignore_errors=True)
    compile_tex(root, MAIN, BUILD)
    return root / BUILD


def typeset_changes(root: Path) -> Path:
    """Typeset the report with the baseline's words beside the changed ones; return the PDF.

    It goes into the build folder of `typeset`, which comes first. Words of another run may refer to
    what this text lacks, and make long lines: that is no flaw of this copy.

    Raises:
        UserError: If latexmk is missing, or LaTeX fails.
    """
    compile_tex(root, CHANGES, BUILD, strict=False)
    return root / BUILD / f"{CHANGES.stem}.pdf"


def compile_tex(root: Path, source: Path, build: Path, *, strict: bool = True) -> None:
    """Compile a LaTeX source below `root` into a folder beside it, or in place.

    It is compiled in place if that folder is the current one.

    Args:
        strict: Refuse undefined references and overfull lines too.

    Raises:
        UserError: As `typeset`.
    """
    if shutil.which("latexmk") is None:
        raise files.UserError(f"latexmk: not found; install TeX, on Debian with `apt-get install {_PACKAGES}`")
    options = ["-cd", "-pdf", "-halt-on-error", "-interaction=nonstopmode", f"-outdir={build.name or '.'}"]
    done = subprocess.run(
        ["latexmk", *options, str(source)],
        cwd=root,
        # Without a clock in the file, and with lines of the log that are not cut.
        env={**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "1000"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    log_file = root / build / f"{source.stem}.log"
    log = log_file.read_text(encoding="utf-8", errors="replace") if log_file.is_file() else done.stdout
    problem = find_problem(log) if strict else find_error(log)
    if problem or done.returncode:
        reason = problem or _bibtex_problem(root / build, source.stem) or f"latexmk ended with status {done.returncode}"
        raise files.UserError(f"{source}: {reason}; see {build / log_file.name}")


def find_problem(log: str) -> str | None:
    """Return the first thing in a LaTeX log that the report must not have, in one line."""
    if error := find_error(log):
        return error
    if undefined := re.search(r"(Citation|Reference) [`'](.+?)'.* undefined", log):
        return f"{undefined[1].lower()} {undefined[2]!r} is undefined"
    for width, place in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\) (.*)", log):
        if float(width) > LARGEST_OVERFULL_PT:
            return f"a line is {width} pt too wide ({place.strip()})"
    return None


def find_error(log: str) -> str | None:
    """Return the first error in a LaTeX log, in one line."""
    # TeX starts a line with "! " for an error; the line that it read is given below as "l.12 ...".
    if error := re.search(r"^! (.+)$", log, re.MULTILINE):
        if package := re.search(r"File [`'](.+?)' not found", error[1]):
            return f"LaTeX: {package[1]} is missing; on Debian, `apt-get install {_PACKAGES}`"
        place = re.search(r"^l\.(\d+)", log[error.end() :], re.MULTILINE)
        return f"LaTeX: {error[1].strip()}" + (f" (line {place[1]})" if place else "")
    return None


def message_page(text: str) -> bytes:
    """Return a PDF of one page that says one thing, made without TeX.

    Characters that no letter of Latin-1 stands for become question marks.
    """
    lines = "".join(f"({_pdf_text(line)}) Tj T* " for line in textwrap.wrap(text, _MESSAGE_WIDTH))
    stream = f"BT /F 12 Tf 15 TL 72 770 Td {lines}ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        f"<</Length {len(stream)}>>\nstream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    page, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(page))
        page += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    page += f"xref\n0 {count}\n0000000000 65535 f \n{table}trailer<</Size {count}/Root 1 0 R>>\nstartxref\n{len(page)}\n%%EOF\n"
    return page.encode("latin-1")


def _pdf_text(line: str) -> str:
    shown = line.encode("latin-1", "replace").decode("latin-1")
    return re.sub(r"([\\()])", r"\\\1", shown)


def _bibtex_problem(build: Path, name: str) -> str | None:
    record = build / f"{name}.blg"
    if not record.is_file():
        return None
    problem = re.search(
        r"^(.*---line \d+ of file .*|I couldn't open .*)$", record.read_text(errors="replace"), re.MULTILINE
    )
    return f"BibTeX: {problem[1].strip()}" if problem else None
