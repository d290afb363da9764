"""Write the results as one web page that needs no server and no network.

Reads   reports/reward_analysis.json    verdict and tables
        data/rollouts/rollouts.jsonl    every response with its scores
        reports/figures/*.png           linked, not copied
        paper/web/page.html             the written part, with paper/web/page.css and paper/web/page.js
Writes  reports/index.html              travels with the folder reports/
"""

import struct
from pathlib import Path

from gpro_empathy import files, results_page

ANALYSIS = Path("reports/reward_analysis.json")
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
FIGURES = Path("reports/figures")
MARKUP = Path("paper/web/page.html")
STYLE = Path("paper/web/page.css")
SCRIPT = Path("paper/web/page.js")
PAGE = Path("reports/index.html")
# Figures in the order of the argument; any other follows, under its own name.
CAPTIONS = {
    "paired_differences": "What tuning changed: paired differences by metric, with their intervals.",
    "training_curves": "The training run, step by step.",
    "reward_distributions": "Raw scores of all responses, before and after tuning.",
    "empathy_by_intensity": "Does the response grow with the need? Raw empathy by intensity of the user's turn.",
    "reward_against_audit": "Is the reward earned? Change on the reward's scorer against change on the second one.",
    "scorer_reliability": "The scorers: labelled against predicted empathy.",
    "temperature_effect": "What the calibration temperature changes in the advantages.",
}
# Figures are drawn at this many dots per inch; a browser counts 96 pixels to the inch.
_PNG_DPI, _CSS_DPI = 150, 96
_PNG = b"\x89PNG\r\n\x1a\n"


def run(root: Path = Path()) -> None:
    """Write the page below `root`.

    Raises:
        UserError: If an input is missing or malformed.
    """
    template = results_page.Template(*(files.read_text(root / path) for path in (MARKUP, STYLE, SCRIPT)))
    analysis, rows = files.read_json(root / ANALYSIS), files.read_jsonl(root / ROLLOUTS)
    try:
        page = results_page.render(template, analysis, rows, pictures(root / FIGURES))
    except KeyError as error:
        raise files.UserError(f"{ANALYSIS} or {ROLLOUTS}: no {error} for the page; run `make reproduce`") from error
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    files.write_text(root / PAGE, page)


def pictures(folder: Path) -> list[results_page.Figure]:
    """Return the PNG files of a folder, the known ones first.

    Raises:
        UserError: If there is none, or one is no PNG.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.png"))}
    names = [name for name in CAPTIONS if name in paths] + [name for name in paths if name not in CAPTIONS]
    if not names:
        raise files.UserError(f"{folder}: no figures; run `make reproduce`, which draws them")
    result = []
    for name in names:
        width, height = (round(dots * _CSS_DPI / _PNG_DPI) for dots in size(paths[name]))
        caption = CAPTIONS.get(name, f"{name.replace('_', ' ').capitalize()}.")
        result.append(results_page.Figure(f"{folder.name}/{name}.png", caption, width, height))
    return result


def size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG file in pixels, so that the page can leave room for it.

    Raises:
        UserError: If the file is no PNG.
    """
    head = path.read_bytes()[:24]
    if len(head) < 24 or not head.startswith(_PNG):
        raise files.UserError(f"{path}: no PNG file; draw it anew with `dvc repro --force draw_figures`")
    return struct.unpack(">II", head[16:24])


def main() -> None:
    """Run the stage in the repository."""
    run()


if __name__ == "__main__":
    files.run_stage(main)
