"""Pack the report as a source archive that compiles by itself, in an empty folder, without BibTeX.

`python -m gpro_empathy.report.arxiv` writes tmp/arxiv.tar.gz: the text, what the stages generated
for it, its figures and its bibliography as LaTeX. The archive has been compiled before the command
ends; equal sources give equal bytes.
"""

import gzip
import io
import re
import tarfile
import tempfile
from pathlib import Path

from gpro_empathy import entry_point, files
from gpro_empathy.report import typeset

ARCHIVE = Path("tmp/arxiv.tar.gz")
_REPORTS = "../reports/"


def run(root: Path = Path(), archive: Path = ARCHIVE) -> None:
    """Write the archive of the report below `root`, after compiling it by itself.

    Raises:
        UserError: As `typeset.typeset`; or if the packed sources do not compile.
    """
    build = typeset.typeset(root)
    packed = pack(sources(root, build))
    with tempfile.TemporaryDirectory() as folder:
        unpack(packed, Path(folder))
        typeset.compile_tex(Path(folder), Path("main.tex"), Path())
    with files.atomic_path(root / archive) as temporary:
        temporary.write_bytes(packed)


def sources(root: Path, build: Path) -> dict[str, bytes]:
    """Return the archive's files by name.

    They are what LaTeX says it read from this repository, and main.bbl.

    What lies in reports/, such as figures/, lies beside the text there, which is changed to say so.
    """
    record = files.read_text(build / "main.fls")
    folder = (root / typeset.MAIN).parent
    contents = {"main.bbl": (build / "main.bbl").read_bytes()}
    for name in sorted(set(re.findall(r"^INPUT (?:\./)?(.+)$", record, re.MULTILINE))):
        # Absolute paths are those of the TeX distribution; the build folder holds what the
        # archive's own run makes.
        if name.startswith(("/", build.name + "/")):
            continue
        content = (folder / name).read_bytes()
        if name.endswith(".tex"):
            content = content.replace(_REPORTS.encode(), b"")
        contents[name.removeprefix(_REPORTS)] = content
    return contents


def pack(contents: dict[str, bytes]) -> bytes:
    """Return a gzipped tar archive of files by name.

    It holds no times, owners or modes of this machine.

    Raises:
        UserError: If a name would leave the folder that the archive is unpacked in.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(contents):
            if name.startswith("/") or ".." in Path(name).parts:
                raise files.UserError(f"paper: {name} lies outside of paper/ and reports/; move it into one of them")
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(contents[name]), 0o644
            archive.addfile(entry, io.BytesIO(contents[name]))
    return gzip.compress(plain.getvalue(), mtime=0)


def unpack(packed: bytes, folder: Path) -> None:
    """Unpack an archive into a folder."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        # Python before 3.11.4 knows no filter; the archive is our own.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def main() -> None:
    """Write the archive and say where it lies."""
    run()
    print(f"The sources of the report, compiled by themselves: {ARCHIVE}")


if __name__ == "__main__":
    entry_point.run_stage(main)
