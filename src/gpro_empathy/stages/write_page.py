"""Write the results as one web page that needs no server and no network.

Reads   reports/reward_analysis.json        verdict and tables
        reports/ratings.json                what raters found
        reports/seeds/reward_analysis.json  the study of several trainings, where there is one
        reports/sweeps/<name>/summary.json  what sweeps of settings found, where there are any
        data/rollouts/rollouts.jsonl        every response with its scores
        reports/baseline_comparison.json    what differs from the baseline
        paper/web/page.html                 the written part, with page.css and page.js beside it
Writes  reports/index.html                  travels with the folder reports/, whose figures it links
                                            without reading them
"""

from pathlib import Path

from gpro_empathy import entry_point, files
from gpro_empathy.analysis import trainings
from gpro_empathy.report import baseline_section, sweeps, web_page

ANALYSIS = Path("reports/reward_analysis.json")
RATINGS = Path("reports/ratings.json")
COMPARISON = Path("reports/baseline_comparison.json")
STUDY = Path("reports/seeds/reward_analysis.json")
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
MARKUP = Path("paper/web/page.html")
STYLE = Path("paper/web/page.css")
SCRIPT = Path("paper/web/page.js")
PAGE = Path("reports/index.html")
# Drawn where the run was compared with a baseline, and then the first.
BASELINE_CAPTION = "Against the baseline: paired differences of the tuned policies, with their intervals."
# Every other figure that draw_figures draws, in the order of the argument.
CAPTIONS = {
    "paired_differences": "What tuning changed: paired differences by metric, with their intervals.",
    "training_curves": "The training run, step by step.",
    "reward_distributions": "Raw scores of all responses, before and after tuning.",
    "empathy_by_intensity": "Does the response grow with the need? Raw empathy by intensity of the user's turn.",
    "reward_against_audit": "Is the reward earned? Change on the reward's scorer against change on the held-out one.",
    "score_validity": "Do the scores go with the ratings? How well each tells sensible and empathetic answers from others (AUC).",
    "scorer_reliability": "The scorers: labelled against predicted empathy.",
    "temperature_effect": "What the calibration temperature changes in the advantages.",
}


def run(root: Path = Path()) -> None:
    """Write the page below `root`.

    Raises:
        UserError: If an input is missing or malformed.
    """
    template = web_page.Template(*(files.read_text(root / path) for path in (MARKUP, STYLE, SCRIPT)))
    analysis, ratings = files.read_json(root / ANALYSIS), files.read_json(root / RATINGS)
    baseline = files.read_json(root / COMPARISON)
    first = {"baseline_differences": BASELINE_CAPTION} if baseline_section.is_compared(baseline) else {}
    rows = files.read_jsonl(root / ROLLOUTS)
    try:
        study = trainings.of_report(analysis, root / STUDY)
        page = web_page.render(template, analysis, ratings, rows, first | CAPTIONS, study, baseline, sweeps.read(root))
    except KeyError as error:
        raise files.UserError(
            f"{ANALYSIS}, {RATINGS} or {ROLLOUTS}: no {error} for the page; run `make reproduce`"
        ) from error
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    files.write_text(root / PAGE, page)


def main() -> None:
    """Run the stage in the repository."""
    run()


if __name__ == "__main__":
    entry_point.run_stage(main)
