import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import made_up
from gpro_empathy import files, params
from gpro_empathy.report import arxiv
from gpro_empathy.stages import analyse_ratings, analyse_rewards, draw_figures, write_numbers

ROOT = Path(__file__).parents[2]
PARAMS = params.load_all(ROOT / "params.yaml")
needs_tex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
DOCUMENT = r"""\documentclass{article}
\usepackage{graphicx}
\newcommand{\fig}[1]{\includegraphics[width=5cm]{../reports/figures/#1.pdf}}
\begin{document}
\input{generated/numbers}\fig{a} \cite{x2020}

\includegraphics[width=5cm]{../reports/sweeps/t/figure.pdf} \input{../reports/sweeps/t/table}
\bibliographystyle{plain}\bibliography{references}
\end{document}
"""


@pytest.fixture
def root(tmp_path):
    """Make a small report in the layout of the repository."""
    figures = tmp_path / "reports/figures"
    figures.mkdir(parents=True)
    for name in ("a", "unused"):
        shutil.copy(ROOT / "reports/figures/paired_differences.pdf", figures / f"{name}.pdf")
    sweep = tmp_path / "reports/sweeps/t"
    sweep.mkdir(parents=True)
    shutil.copy(ROOT / "reports/figures/paired_differences.pdf", sweep / "figure.pdf")
    (sweep / "table.tex").write_text("A table.\n")
    (tmp_path / "paper/generated").mkdir(parents=True)
    (tmp_path / "paper/main.tex").write_text(DOCUMENT)
    (tmp_path / "paper/generated/numbers.tex").write_text("Forty-two.\n")
    (tmp_path / "paper/references.bib").write_text("@misc{x2020, title={A Title}, author={Some One}, year={2020}}\n")
    return tmp_path


def members(packed):
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {entry.name: (entry, archive.extractfile(entry).read()) for entry in archive}


def test_packed_files_carry_no_time_owner_or_mode_of_this_machine():
    packed = arxiv.pack({"b/c.tex": b"x", "a.tex": b"yy"})
    found = members(packed)
    assert list(found) == ["a.tex", "b/c.tex"]
    for entry, _ in found.values():
        assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (0, 0, 0, "", "", 0o644)
    assert packed[4:8] == bytes(4)
    assert packed == arxiv.pack({"a.tex": b"yy", "b/c.tex": b"x"})


@pytest.mark.parametrize("name", ["../data/a.csv", "/etc/passwd", "a/../../b"])
def test_a_file_outside_of_the_archives_folder_is_refused(name):
    with pytest.raises(files.UserError, match="outside of paper/ and reports/"):
        arxiv.pack({name: b""})


@needs_tex
@pytest.mark.slow
def test_archive_holds_what_is_used_and_compiles_in_an_empty_folder(root, tmp_path_factory):
    arxiv.run(root, Path("tmp/first.tar.gz"))
    packed = (root / "tmp/first.tar.gz").read_bytes()
    found = members(packed)
    swept = {"sweeps/t/figure.pdf", "sweeps/t/table.tex"}
    assert set(found) == {"main.tex", "main.bbl", "generated/numbers.tex", "figures/a.pdf"} | swept
    assert b"../" not in found["main.tex"][1]
    assert b"Some One" in found["main.bbl"][1]
    empty = tmp_path_factory.mktemp("empty")
    arxiv.unpack(packed, empty)
    # Without latexmk, as a server does it.
    for _ in range(2):
        subprocess.run(["pdflatex", "-halt-on-error", "main.tex"], cwd=empty, check=True, capture_output=True)
    log = (empty / "main.log").read_text(errors="replace")
    assert "undefined" not in log
    arxiv.run(root, Path("tmp/second.tar.gz"))
    assert (root / "tmp/second.tar.gz").read_bytes() == packed


@needs_tex
@pytest.mark.slow
def test_report_of_the_repository_is_packed_whole(tmp_path):
    """From made-up results: the committed ones need not fit a text that has changed since."""
    made_up.write_reports(tmp_path)
    (tmp_path / "paper").mkdir()
    for name in ("main.tex", "references.bib"):
        shutil.copy(ROOT / "paper" / name, tmp_path / "paper")
    shutil.copy(ROOT / "reports/protocol.yaml", tmp_path / "reports")
    config = PARAMS.analyse_rewards.model_copy(update={"n_resamples": 200})
    analyse_rewards.run(config, PARAMS.rewards, PARAMS.train_grpo, tmp_path)
    analyse_ratings.run(config, tmp_path)
    draw_figures.run(PARAMS.draw_figures, tmp_path)
    write_numbers.run([getattr(PARAMS, section.section_name()) for section in write_numbers.SECTIONS], tmp_path)
    (tmp_path / "paper/provenance").mkdir()
    (tmp_path / "paper/provenance/provenance.tex").write_text("\\section{Provenance}\n")
    arxiv.run(tmp_path)
    found = members((tmp_path / "tmp/arxiv.tar.gz").read_bytes())
    figures = {f"figures/{path.name}" for path in (tmp_path / "reports/figures").glob("*.pdf")}
    assert {"main.tex", "main.bbl", "generated/numbers.tex", "provenance/provenance.tex", *figures} <= set(found)
    assert not [name for name in found if name.startswith("build/")]


@needs_tex
def test_a_figure_from_elsewhere_stops_the_command_with_its_name(root):
    shutil.copy(ROOT / "reports/figures/paired_differences.pdf", root / "elsewhere.pdf")
    text = (root / "paper/main.tex").read_text()
    (root / "paper/main.tex").write_text(text.replace("../reports/figures/#1.pdf", "../elsewhere.pdf"))
    with pytest.raises(files.UserError, match=r"\.\./elsewhere\.pdf\b.*outside of paper/ and reports/"):
        arxiv.run(root)
    assert not (root / "tmp/arxiv.tar.gz").exists()
