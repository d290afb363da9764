import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy.report import latex

HOSTILE = [
    r"\input{/etc/passwd} \write18{rm -rf /} \end{document}",
    "100% & $5 #1 _x_ ^y~z {a} [b] \\\\ <reasoning> | ` ' '' -- --- ,, << >> ?` !`",
    "\N{GRINNING FACE} \u4f60\u597d \u05e9\u05dc\u05d5\u05dd \x00\x07\u200d \ufb01ne \uff21 e\u0301 \xdf \xd8 \xd7 \xa7",
    "a" * 300 + " " + "\N{GRINNING FACE}" * 40 + " " + "_" * 100,
    "%\n%comment\n\n\\par",
    "[first in a row] & [second]",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% of $5 & #1", r"50\% of \$5 \& \#1"),
        ("a_b^c~d", r"a\_b\textasciicircum{}c\textasciitilde{}d"),
        (r"\x{y}", r"\textbackslash{}x\{y\}"),
        ("so -- it's ''odd''", "so -{}- it's '{}'odd'{}'"),
        ("caf\xe9 e\u0301", "caf\xe9 \xe9"),
        ("\N{GRINNING FACE}", "{[}U+1F600{]}"),
        ("\x00", "{[}U+0000{]}"),
        ("two\n\n lines\t", "two lines"),
        ("\ufb01t", "fit"),
        ("\u2018a\u2019", r"\textquoteleft{}a\textquoteright{}"),
    ],
)
def test_text_is_escaped(text, expected):
    assert latex.escape(text) == expected


@given(st.text())
def test_escaped_text_holds_no_bare_special_and_balanced_braces(text):
    escaped = latex.escape(text)
    bare = re.sub(r"\\(?:[a-zA-Z]+\{\}|[{}$&#%_])", "", escaped)
    assert not re.search(r"[\\$&#%_^~\"<>|]", bare)
    assert set(re.findall(r"\{[^}]*\}?", bare)) <= {"{[}", "{]}", "{}"}
    assert all(ord(c) < 0x100 and c.isprintable() for c in escaped)


def test_long_words_can_be_broken():
    assert latex.escape("a" * 40).count(r"\allowbreak{}") == 2


def test_shortened_text_ends_at_a_word_and_says_so():
    assert latex.shorten("one two  three four", 11) == "one two [...]"
    assert latex.shorten("one two", 11) == "one two"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (latex.number(0.4567, 2), r"\num{0.46}"),
        (latex.number(0.4567, 2, signed=True), r"\num{+0.46}"),
        (latex.number(-0.001, 2), r"\num{0.00}"),
        (latex.number(0.0004, 2, signed=True), r"\num{0.00}"),
        (latex.number(None, 2), "--"),
        (latex.percent(0.956), r"\qty{96}{\percent}"),
        (latex.p_value(0.00001), r"\num{<0.001}"),
        (latex.p_value(0.0456), r"\num{0.046}"),
        (latex.p_statement(0.0004), r"$p < \num{0.001}$"),
        (latex.interval(-0.1, 0.25, 1), r"{[}\num{-0.1}, \num{0.2}{]}"),
    ],
)
def test_numbers_are_formatted(written, expected):
    assert written == expected


def test_macro_names_have_letters_only():
    with pytest.raises(ValueError, match="'RunDistinct2'"):
        latex.definitions({"RunDistinct2": "1"})


def test_macros_in_comments_are_not_used():
    assert latex.used_macros("\\RunOne{} 5\\% \\RunTwo\n% \\RunThree\n\\Running \\newcommand") == {"RunOne", "RunTwo"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_hostile_text_is_typeset(tmp_path):
    body = "\n\n".join(latex.escape(text) for text in HOSTILE)
    cells = latex.tabular("lp{5cm}", ["a", "b"], [[latex.escape("[x"), latex.escape(text[:20])] for text in HOSTILE])
    source = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{lmodern,textcomp,booktabs,siunitx}"
        f"\\begin{{document}}\\raggedright {body}\n\n{cells}\\end{{document}}"
    )
    (tmp_path / "hostile.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "hostile.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
    assert "Overfull" not in done.stdout
