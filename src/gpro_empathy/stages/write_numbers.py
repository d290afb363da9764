"""Write every number, table and example of the report as LaTeX.

Reads   reports/*.json, reports/training/  what the other stages found
        reports/seeds/reward_analysis.json the study of several trainings, where there is one
        reports/sweeps/<name>/summary.json what sweeps of settings found, where there are any
        data/rollouts/rollouts.jsonl       for the examples
        reports/protocol.yaml              when metrics and settings were frozen, and which
        reports/gpu/*.json                 what rehearsals measured on GPUs
        bench/scorer.json                  the scorer's recipes on the official WASSA files
        bench/best_of.json                 what choosing by the reward gives without training
        reports/baseline_comparison.json   what differs from the baseline
        reports/baseline/                  its numbers, to show beside those that changed
        params.yaml                        for the table of settings
        paper/main.tex                     to check that it uses each number, and no other
Writes  paper/generated/*.tex              macros (numbers.tex), tables, examples; changes.tex, with
                                           the baseline's words beside what changed
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpro_empathy import csv_table, entry_point, files, params
from gpro_empathy.analysis import baseline, response_table, trainings
from gpro_empathy.report import (
    baseline_section,
    baseline_tables,
    changes,
    gpu_table,
    latex,
    latex_examples,
    latex_tables,
    protocol,
    scorer_section,
    sweeps,
)
from gpro_empathy.report import macros as report_macros

REPORTS = Path("reports")
TRAINING = Path("reports/training")
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
STUDY = Path("reports/seeds/reward_analysis.json")
GPUS = Path("reports/gpu")
BENCHMARK = Path("bench/scorer.json")
BEST_OF = Path("bench/best_of.json")
COMPARISON = Path("reports/baseline_comparison.json")
BASELINE = Path("reports/baseline")
MAIN = Path("paper/main.tex")
GENERATED = Path("paper/generated")
# Why nothing is shown beside the baseline's words, by the state of the comparison.
NOTHING = {
    "none": "there is no baseline; make baseline freezes a finished run",
    "same": "the scores of this run are those of the baseline",
    "refused": "the baseline cannot be compared with this run, and the report says why",
}
# All that results depend on; how figures look is no setting of the experiment.
SECTIONS = (
    params.Policy,
    params.Rewards,
    params.Prepare,
    params.TrainScorer,
    params.TrainReader,
    params.WarmStart,
    params.TrainGrpo,
    params.Rollout,
    params.AnalyseRewards,
)


def run(sections: list[params.Section], root: Path = Path()) -> None:
    """Write paper/generated below `root`; the folder is replaced as a whole.

    Raises:
        UserError: If an input is missing or lacks a number, or macros and text do not match.
    """
    try:
        inputs = read_inputs(sections, root)
        macros = report_macros.macros(inputs)
        texts = {
            "numbers": latex.definitions(macros),
            "setup_table": latex_tables.setup_table(sections),
            "data_table": latex_tables.data_table(inputs.data),
            "scorer_table": latex_tables.scorer_table(inputs.scorer),
            "leak_table": scorer_section.leak_table(inputs.scorer["leak"], inputs.benchmark["dev"]),
            "calibration_table": scorer_section.calibration_table(inputs.scorer),
            "phrases_table": scorer_section.phrases_table(inputs.scorer),
            "ratings_table": latex_tables.ratings_table(inputs.ratings),
            "validity_table": latex_tables.validity_table(inputs.ratings),
            "study_table": latex_tables.study_table(inputs.study),
            "results_table": latex_tables.results_table(inputs.analysis, inputs.study),
            "effects_table": latex_tables.effects_table(inputs.analysis),
            "intensity_table": latex_tables.intensity_table(inputs.analysis),
            "templates_table": latex_tables.templates_table(inputs.analysis),
            "prompts_table": latex_tables.prompts_table(inputs.analysis),
            "sweeps": sweeps.latex_section(inputs.sweeps),
            "examples": latex_examples.examples(inputs.responses),
            **baseline_tables.latex_tables(inputs.baseline),
        }
        texts |= changed_words(inputs.baseline, macros, texts, root / BASELINE)
    except KeyError as error:
        raise files.UserError(f"{REPORTS}: no number {error} for the report; run `make reproduce`") from error
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    check(set(macros), latex.used_macros(files.read_text(root / MAIN)))
    with files.atomic_path(root / GENERATED) as folder:
        folder.mkdir()
        for name, text in texts.items():
            (folder / f"{name}.tex").write_text(text, encoding="utf-8", newline="\n")


def read_inputs(sections: list[params.Section], root: Path) -> report_macros.Inputs:
    """Read what the report is written from.

    Raises:
        UserError: If a file is missing or malformed.
    """
    analysis = files.read_json(root / REPORTS / "reward_analysis.json")
    return report_macros.Inputs(
        data=files.read_json(root / REPORTS / "data.json"),
        scorer=files.read_json(root / REPORTS / "scorer.json"),
        reader=files.read_json(root / REPORTS / "reader.json"),
        benchmark=read_benchmark(root / BENCHMARK),
        best_of=files.read_json(root / BEST_OF),
        warm_start=files.read_json(root / REPORTS / "warm_start.json"),
        analysis=analysis,
        responses=response_table.responses(files.read_jsonl(root / ROLLOUTS)),
        ratings=files.read_json(root / REPORTS / "ratings.json"),
        study=trainings.of_report(analysis, root / STUDY),
        settings=files.read_json(root / TRAINING / "settings.json"),
        log=csv_table.read(root / TRAINING / "log.csv", ["step", "empathy_raw", "semantic_similarity_raw"]),
        timing=csv_table.read(root / TRAINING / "timing.csv", ["step_s", "generation_s"]),
        protocol=protocol.read(root / protocol.PATH),
        baseline=files.read_json(root / COMPARISON),
        sweeps=sweeps.read(root),
        gpus=gpu_table.read(root / GPUS),
        sections={section.section_name(): section for section in sections},
    )


def read_benchmark(path: Path) -> dict:
    """Read what the scorer's benchmark found on the official WASSA files.

    Raises:
        UserError: If the file is missing or malformed.
    """
    benchmark = files.read_json(path)
    if not isinstance(benchmark, dict) or not {"dev", "folds", "test"} <= set(benchmark):
        raise files.UserError(
            f"{path}: has no 'dev', 'folds' and 'test'; restore it with `git checkout -- {BENCHMARK}`"
        )
    return benchmark


def changed_words(
    found: Mapping[str, Any], macros: Mapping[str, str], texts: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """Return what the baseline's report says beside what changed, by the name of the file.

    `changes` has the macros, or why nothing is shown; each table that changed has a file too.

    Args:
        texts: The generated files, by name.

    Raises:
        UserError: If the baseline's numbers are missing or malformed.
    """
    if not baseline_section.is_compared(found):
        return {"changes": changes.nothing(NOTHING[found["state"]])}
    numbers, tables = (_read_texts(folder / f"{name}.json") for name in ("numbers", "tables"))
    marks = files.read_json(folder / "examples.json")
    if not isinstance(marks, list) or not all(isinstance(mark, str) and mark.isalnum() for mark in marks):
        raise files.UserError(f"{folder}/examples.json: no list of marks; {baseline.REMEDY}")
    return {
        "changes": changes.definitions(macros, numbers, marks),
        **changes.tables(changes.kept_tables(texts), tables),
    }


def _read_texts(path: Path) -> dict[str, str]:
    texts = files.read_json(path)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise files.UserError(f"{path}: no texts by name; {baseline.REMEDY}")
    return texts


def check(defined: set[str], used: set[str]) -> None:
    """Refuse a text that uses an undefined macro or leaves one unused.

    Raises:
        UserError: Naming the macros.
    """
    if missing := sorted(used - defined):
        raise files.UserError(f"{MAIN}: uses \\{missing[0]}, which write_numbers does not define")
    if unused := sorted(defined - used):
        raise files.UserError(
            f"{MAIN}: does not use \\{unused[0]}, which write_numbers defines; use it or delete it there"
        )


def main() -> None:
    """Run the stage with the settings of params.yaml."""
    run([params.load(section) for section in SECTIONS])


if __name__ == "__main__":
    entry_point.run_stage(main)
