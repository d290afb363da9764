"""Check what README and docs/ say of the repository.

This covers paths, functions, commands, links, and figures of the committed runs.
"""

import ast
import re
from pathlib import Path

import pytest

from gpro_empathy import files
from gpro_empathy.data import ratings
from gpro_empathy.report import number_format, rating_verdicts

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/gpro_empathy"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# First parts of paths that a run makes or a user brings, which git does not hold.
MADE = {"models", "work", "tmp", ".venv", "turns.csv", "scores.csv"}
MADE_BELOW = ("data/prepared", "data/rollouts", "reports/gpu/<", "reports/scorer_predictions")
METRICS = {
    "empathy, the reward's scorer": "empathy_raw",
    "semantic similarity": "semantic_similarity_raw",
    "combined score": "combined_reference",
    "empathy, the held-out scorer": "audit_empathy_raw",
    "well-formed": "well_formed",
    "answer length": "answer_words",
    "overlap with the user's words": "overlap",
    "distinct bigrams": "distinct_2",
    "stated intensity agrees": "intensity_agreement",
}


def prose(page):
    """Return the lines of a page outside of code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE).splitlines()


def rows(heading):
    """Return the cells of the first table below a heading of docs/measurements.md.

    The table's head is left out.
    """
    text = (ROOT / "docs/measurements.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def metric(cell):
    return METRICS[next(name for name in METRICS if cell.startswith(name))]


def rounded(value, like, signed=False):
    """Return a number with as many digits after the point as a text has."""
    return f"{value:{'+' if signed else ''}.{len(like.partition('.')[2])}f}"


def interval(values, like, which=""):
    digits = like.strip("[]").split(", ")[0]
    return f"[{rounded(values[f'{which}low'], digits)}, {rounded(values[f'{which}high'], digits)}]"


def test_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_wrapped(page):
    assert [line for line in prose(page) if len(line) > 120 and not line.startswith(("|", "!"))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = [line.lstrip("# ").lower() for line in prose(file) if line.startswith("#")]
            assert anchor in {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page):
    for code in re.findall(r"`([^`\s]+)`", "\n".join(prose(page))):
        if not re.fullmatch(
            r"[\w.-]+(?:/[\w.-]*)*(?:/|\.(?:py|md|json|jsonl|yaml|csv|pdf|html|png|tex|in|lock|cff))", code
        ):
            continue
        if code.partition("/")[0] in MADE or code.startswith(MADE_BELOW):
            continue
        assert (ROOT / code).exists() or (PACKAGE / code).exists(), code


def test_each_of_the_ten_questions_names_a_function_that_is_there():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    questions = re.findall(r"^\| (Where .*?\?) \| (.*) \|$", text, re.MULTILINE)
    assert len(questions) == 10
    for question, answer in questions:
        path = PACKAGE / re.match(r"`([^`]+\.py)`", answer)[1]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        defined |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
        named = re.match(r"`[^`]+`: `(\w+)`(?: and `(\w+)`)?", answer)
        assert named is None or set(filter(None, named.groups())) <= defined, question


def test_figures_of_the_committed_run_are_those_of_its_report():
    analysis = files.read_json(ROOT / "reports/reward_analysis.json")
    table = rows("The committed run")
    assert [metric(row[0]) for row in table] == analysis["metric_order"]
    for name, start, tuned, change, between, p, new in table:
        found = analysis["metrics"][metric(name)]
        assert start == rounded(found["means"][analysis["starting_policy"]], start), name
        assert tuned == rounded(found["means"]["tuned"], tuned), name
        assert change == rounded(found["difference"], change, signed=True), name
        assert between == interval(found, between), name
        assert p == ("< 0.001" if found["p_holm"] < 0.001 else f"{found['p_holm']:.3f}"), name
        assert new == interval(found, new, "new_"), name


def test_figures_by_seed_are_those_of_their_report():
    analysis = files.read_json(ROOT / "reports/seeds/reward_analysis.json")
    for name, *by_seed, change, between, new in rows("Five trainings"):
        found = analysis["metrics"][metric(name)]
        for seed, value in zip(analysis["training_seeds"], by_seed, strict=True):
            assert value == rounded(found["by_seed"][str(seed)], value), (name, seed)
        assert change == rounded(found["difference"], change, signed=True), name
        assert between == interval(found, between), name
        assert new == interval(found, new, "new_"), name


def test_figures_of_the_readme_are_those_of_the_study():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    study = files.read_json(ROOT / "reports/seeds/reward_analysis.json")
    found = study["metrics"]
    for name in ("empathy_raw", "audit_empathy_raw", "intensity_agreement"):
        change, low, high, new_low, new_high = (
            found[name][key] for key in ("difference", "low", "high", "new_low", "new_high")
        )
        interval_of_mean = f"{change:+.2f} [{low:.2f}, {high:.2f}]"
        assert f": {interval_of_mean}, for a new training [{new_low:.2f}, {new_high:.2f}]" in text
    assert f"on {study['prompts']} prompts about {study['stories']} news stories" in text
    words = found["answer_words"]["difference"]
    assert f"answers are {abs(words):.1f} words {'longer' if words > 0 else 'shorter'}" in text
    assert f"{100 * found['well_formed']['means']['tuned']:.1f} % of the responses keep to the format" in text


def test_readme_says_of_the_ratings_what_the_report_does():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert rating_verdicts.sense(files.read_json(ROOT / "reports/ratings.json"), number_format.MARKDOWN) in text


def test_readme_of_the_ratings_names_every_file_and_column():
    text = (ROOT / ratings.FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / ratings.FOLDER).glob("*.csv") if f"`{path.name}`" not in text] == []
    assert [name for name in ratings.COLUMNS if f"`{name}`" not in text] == []
