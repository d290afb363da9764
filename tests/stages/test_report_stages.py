import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import made_up
import made_up_sweep
from gpro_empathy import files, params
from gpro_empathy.analysis import trainings
from gpro_empathy.data import ratings as rating_files
from gpro_empathy.report import (
    figure_files,
    latex,
    latex_tables,
    page_tables,
    provenance,
    rating_verdicts,
    sentences,
    sweeps,
    typeset,
    verdicts,
)
from gpro_empathy.report import figures as draw
from gpro_empathy.stages import (
    analyse_ratings,
    analyse_rewards,
    draw_figures,
    paper,
    record_provenance,
    write_numbers,
    write_page,
)
from gpro_empathy.tools import sweep_estimates

ROOT = Path(__file__).parents[2]
PARAMS = params.load_all(ROOT / "params.yaml")
SECTIONS = [getattr(PARAMS, section.section_name()) for section in write_numbers.SECTIONS]
CONFIG = PARAMS.analyse_rewards.model_copy(update={"n_resamples": 500})
needs_tex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Draw the figures once for all tests that need them; return the folder of the report."""
    root = tmp_path_factory.mktemp("figures")
    made_up.write_reports(root)
    analyse_rewards.run(CONFIG, PARAMS.rewards, PARAMS.train_grpo, root)
    analyse_ratings.run(CONFIG, root)
    draw_figures.run(PARAMS.draw_figures, root)
    return root / "reports/figures"


def make_report(root, effect="gain", **made):
    """Run the stages up to write_numbers on made-up reports below `root`."""
    made_up.write_reports(root, effect, **made)
    (root / "paper").mkdir()
    for name in ("main.tex", "references.bib"):
        shutil.copy(ROOT / "paper" / name, root / "paper")
    shutil.copy(ROOT / "reports/protocol.yaml", root / "reports")
    grpo = PARAMS.train_grpo.model_copy(update={"seeds": list(made.get("seeds", (23,)))})
    analyse_rewards.run(CONFIG, PARAMS.rewards, grpo, root)
    analyse_ratings.run(CONFIG, root)
    write_numbers.run(SECTIONS, root)
    for path in (root / "paper/generated").glob("*.tex"):
        # Escaped twice, markup would be printed.
        assert not re.search(r"\\textbackslash\{\}(num|qty|file|stage|emph|autoref)\b", path.read_text()), path.name


def words(pdf_root):
    """Return the macro definitions, the words that the results chose among them."""
    return (pdf_root / "paper/generated/numbers.tex").read_text()


def test_analysis_is_finite_json_in_the_declared_order(tmp_path):
    made_up.write_reports(tmp_path)
    analyse_rewards.run(CONFIG, PARAMS.rewards, PARAMS.train_grpo, tmp_path)
    analysis = json.loads((tmp_path / "reports/reward_analysis.json").read_text())
    assert list(analysis["metrics"]) == sorted(CONFIG.metrics)
    assert analysis["metric_order"] == CONFIG.metrics
    glance = json.loads((tmp_path / "reports/metrics.json").read_text())
    assert glance["overlap"]["difference"] == analysis["metrics"]["overlap"]["difference"]
    assert analysis["temperature"]["configured"] == PARAMS.rewards.calibration_temperature


def test_headline_metrics_cannot_be_left_out(tmp_path):
    config = CONFIG.model_copy(update={"metrics": ["overlap"]})
    with pytest.raises(files.UserError, match=r"analyse_rewards\.metrics\b.*\bempathy_raw"):
        analyse_rewards.run(config, PARAMS.rewards, PARAMS.train_grpo, tmp_path)


def test_metric_that_would_count_twice_among_the_p_values_is_refused(tmp_path):
    config = CONFIG.model_copy(update={"metrics": [*CONFIG.metrics, "overlap"]})
    with pytest.raises(files.UserError, match=r"analyse_rewards\.metrics\b.*\boverlap\b"):
        analyse_rewards.run(config, PARAMS.rewards, PARAMS.train_grpo, tmp_path)


@pytest.mark.parametrize("metric", ["ovrelap", "answer"])
def test_metric_that_is_no_column_of_numbers_is_refused_by_its_setting(metric, tmp_path):
    made_up.write_reports(tmp_path)
    config = CONFIG.model_copy(update={"metrics": [*CONFIG.metrics, metric]})
    with pytest.raises(files.UserError, match=rf"'{metric}'.*analyse_rewards\.metrics\b.*\boverlap\b"):
        analyse_rewards.run(config, PARAMS.rewards, PARAMS.train_grpo, tmp_path)


def test_unusable_rollouts_are_refused_with_their_file(tmp_path):
    made_up.write_reports(tmp_path, rows=made_up.rollouts()[:-2])
    with pytest.raises(files.UserError, match=r"rollouts\.jsonl: .*\b30\.3\b.*'tuned'"):
        analyse_rewards.run(CONFIG, PARAMS.rewards, PARAMS.train_grpo, tmp_path)


def test_a_missing_column_of_a_table_is_named(tmp_path):
    made_up.write_reports(tmp_path)
    path = tmp_path / "reports/training/groups.csv"
    path.write_text("seed,step,sample\n1,1,0\n")
    with pytest.raises(files.UserError, match=r"groups\.csv: .*'group'"):
        analyse_rewards.run(CONFIG, PARAMS.rewards, PARAMS.train_grpo, tmp_path)


def test_figures_have_equal_bytes_for_equal_numbers(tmp_path, figures):
    assert {path.stem for path in figures.iterdir()} == set(write_page.CAPTIONS)
    assert len(list(figures.iterdir())) == 2 * len(write_page.CAPTIONS)
    with draw.style(PARAMS.draw_figures.font_size):
        curves = draw.training_curves(
            made_up.training_log(gain=0.5), made_up.groups(steps=20), width=6.3, palette="colorblind"
        )
        figure_files.save(curves, tmp_path / "training_curves")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (figures / path.name).read_bytes()


def test_unknown_palette_is_refused(tmp_path):
    made_up.write_reports(tmp_path)
    analyse_rewards.run(CONFIG, PARAMS.rewards, PARAMS.train_grpo, tmp_path)
    analyse_ratings.run(CONFIG, tmp_path)
    with pytest.raises(files.UserError, match=r"draw_figures\.palette: 'mauve'"):
        draw_figures.run(PARAMS.draw_figures.model_copy(update={"palette": "mauve"}), tmp_path)
    assert not (tmp_path / "reports/figures").exists()


def test_an_undefined_macro_is_refused(tmp_path):
    with pytest.raises(files.UserError, match=r"\\RunTypo\b"):
        write_numbers.check({"RunOne"}, latex.used_macros(r"\RunOne \RunTypo"))


def test_an_unused_macro_is_refused():
    with pytest.raises(files.UserError, match=r"\\RunTwo\b"):
        write_numbers.check({"RunOne", "RunTwo"}, latex.used_macros(r"\RunOne"))


@pytest.mark.slow
def test_report_of_a_run_without_warm_start_compares_with_the_base_model(tmp_path):
    make_report(tmp_path, warm_start=False)
    assert "There is no warm start" in words(tmp_path)
    assert "warm start" not in (tmp_path / "paper/generated/results_table.tex").read_text()


def test_no_sentence_claims_a_gain_where_there_is_none(tmp_path):
    make_report(tmp_path, "none")
    assert "no change of the raw empathy score is established" in words(tmp_path)
    assert "scores higher" not in words(tmp_path)


@pytest.mark.parametrize(("source", "word"), [("hub", r"\\stage{a/b}"), ("wassa_csv", "official files")])
def test_other_sources_of_data_are_described_as_what_they_are(tmp_path, source, word):
    make_report(tmp_path)
    data = json.loads((tmp_path / "reports/data.json").read_text())
    changed = {"source": source, "dataset": "a/b", "split": "by_turn", "test_split": "drawn"}
    files.write_json(tmp_path / "reports/data.json", data | changed)
    write_numbers.run(SECTIONS, tmp_path)
    assert re.search(word, words(tmp_path))
    assert "synthetic" not in words(tmp_path)
    assert "split is by turn" in words(tmp_path)


@pytest.mark.parametrize(
    ("split", "test_split", "stories", "shared", "said"),
    [
        ("by_story", "drawn", 9, 0, "Training, validation and test share no news story."),
        ("by_story", "drawn", None, None, "Training, validation and test share no conversation."),
        (
            "by_conversation",
            "drawn",
            9,
            2,
            r"share no conversation. Of the \\num\{3\} test stories, \\num\{2\} are also",
        ),
        ("by_story", "marked", 9, 0, "were written for the test, .* Training and validation share no story.$"),
        ("by_turn", "marked", 9, 0, "were written for the test, .* Training and validation are split by turn"),
        ("by_story", "dev_file", 9, 2, r"development file. Training .* share no story. Of the \\num\{3\} test stories"),
        ("by_story", "dev_file", None, None, "official development file. Training .* share no conversation."),
    ],
)
def test_split_is_told_as_it_was_made(split, test_split, stories, shared, said):
    data = {"split": split, "test_split": test_split, "stories": stories, "shared_stories": shared}
    assert re.search(said, sentences.split(data | {"splits": {"test": {"stories": 3}}}))


@pytest.mark.parametrize(("stories", "words_of_it"), [(42, r"about \num{42} invented"), (None, "about invented")])
def test_stories_are_counted_where_the_data_name_them(tmp_path, stories, words_of_it):
    make_report(tmp_path)
    data = json.loads((tmp_path / "reports/data.json").read_text())
    files.write_json(tmp_path / "reports/data.json", {**data, "stories": stories})
    write_numbers.run(SECTIONS, tmp_path)
    assert words_of_it in words(tmp_path)


def test_official_dev_figures_reach_the_text_and_the_table_or_are_said_to_be_missing(tmp_path):
    make_report(tmp_path)
    table = tmp_path / "paper/generated/leak_table.tex"
    assert r"a mean correlation of \num{0.660}" in words(tmp_path)
    assert "& dev" in table.read_text()
    files.write_json(tmp_path / "bench/scorer.json", {"dev": None, "folds": {}, "test": None})
    write_numbers.run(SECTIONS, tmp_path)
    assert "The official development file has not been rated" in words(tmp_path)
    assert "& dev" not in table.read_text()


def test_best_of_eight_is_told_where_it_was_tried_with_the_settings_of_the_run(tmp_path):
    make_report(tmp_path)
    assert "without training it in" not in words(tmp_path)
    one = {"difference": 0.25, "low": 0.1, "high": 0.4}
    measures = {"empathy_raw": one, "audit_empathy_raw": one | {"difference": -0.05, "low": -0.2}}
    rollout = next(section for section in SECTIONS if section.section_name() == "rollout").model_dump(mode="json")
    tried = {"draws": 8, "settings": {"rollout": rollout}, "measures": measures}
    files.write_json(tmp_path / "bench/best_of.json", {"test": tried})
    write_numbers.run(SECTIONS, tmp_path)
    assert r"keeping, of \num{8} answers of the starting policy" in words(tmp_path)
    assert r"by \num{+0.25}" in words(tmp_path)
    files.write_json(
        tmp_path / "bench/best_of.json", {"test": tried | {"settings": {"rollout": rollout | {"seed": 1}}}}
    )
    write_numbers.run(SECTIONS, tmp_path)
    assert "without training it in" not in words(tmp_path)


def test_a_benchmark_file_without_its_parts_is_refused(tmp_path):
    make_report(tmp_path)
    files.write_json(tmp_path / "bench/scorer.json", {"dev": None})
    with pytest.raises(files.UserError, match=r"bench/scorer\.json: .*'dev'.*'folds'.*`git"):
        write_numbers.run(SECTIONS, tmp_path)


def test_results_table_holds_declared_and_audited_metrics_once(tmp_path):
    make_report(tmp_path)
    text = (tmp_path / "paper/generated/results_table.tex").read_text()
    _, declared, audited = text.split(r"\midrule")
    assert [line.split(" & ")[0] for line in audited.splitlines() if " & " in line] == [
        "stock phrase in the answer",
        "share of the commonest stated intensity",
    ]
    assert declared.count(r"\\") == len(CONFIG.metrics)
    analysis = json.loads((tmp_path / "reports/reward_analysis.json").read_text())
    for metric in ("stock_phrase", "commonest_level"):
        analysis["metric_order"].append(metric)
        analysis["metrics"][metric] = analysis["audit"]["metrics"][metric]
    assert latex_tables.results_table(analysis, None).count(r"\midrule") == 1


def test_settings_without_a_value_are_left_out_of_the_table():
    table = latex_tables.setup_table(SECTIONS)
    assert PARAMS.policy.revision is None
    assert "revision" not in table
    assert r"load\_in\_4bit & yes" in table


def test_examples_hold_typical_prompts_and_responses_and_then_the_extremes(tmp_path):
    make_report(tmp_path)
    text = (tmp_path / "paper/generated/examples.tex").read_text()
    levels = {int(r["emotion"] + 0.5) for r in made_up.rollouts()}
    assert re.findall(r"Intensity (\d)", text) == [str(level) for level in sorted(levels)]
    assert text.count("Largest gain (") == 1
    assert re.findall(r"(?:Loss|Gain|No change), number (\d) from below \(", text) == ["1", "2"]
    typical, extremes = text.split("Extremes}")
    assert typical.count("Median of 120 tuned responses") == 1
    assert not re.findall("Largest|Smallest|Lowest|from below", typical)
    assert "median" not in extremes.lower()
    lowest = sorted(r["empathy_raw"] for r in made_up.rollouts() if r["model"] == "tuned")[:2]
    assert re.findall(r"Lowest empathy.*?empathy ([\d.]+)", text, re.DOTALL) == [f"{value:.2f}" for value in lowest]


def test_every_figure_and_table_names_its_stage_and_a_file_that_some_stage_writes():
    source = (ROOT / "paper/main.tex").read_text()
    floats = re.findall(r"\\begin\{(figure|table)\}(.*?)\\end\{\1\}", source, re.DOTALL)
    for _, body in floats:
        captions = body.count(r"\caption{")
        assert (
            captions
            == len(re.findall(r"\\source\{(?:draw_figures|write_numbers)\}\{(?:[\w./]+|\\RunStudyPath)\}", body))
            > 0
        )
    graph = (ROOT / "dvc.yaml").read_text()
    for path in re.findall(r"\\source\{\w+\}\{([\w./]+)\}", source):
        assert path == "params.yaml" or str(Path(path).parent) in graph or path in graph


@pytest.mark.slow
def test_report_of_several_seeds_names_them_and_gives_the_change_of_each(tmp_path):
    make_report(tmp_path, seeds=(5, 7, 9))
    assert "trained 3 times, with the seeds 5, 7 and 9" in words(tmp_path)
    assert "By training seed, the change is" in words(tmp_path)
    assert "is of one training. Its first interval" not in words(tmp_path)


def test_report_says_which_responses_of_a_group_are_trained_on():
    grpo = PARAMS.train_grpo
    some = grpo.model_copy(update={"num_generations": 8, "trained_generations": 4})
    every = grpo.model_copy(update={"num_generations": 8, "trained_generations": 8})
    assert (
        r"the \num{4} responses whose advantages together have the largest variance are kept"
        in sentences.trained_share(some)
    )
    assert sentences.trained_share(every.model_copy(update={"advantage_on": "response"})) == (
        "All of them are kept for the update. $A_{i,t}=A_i$ on all tokens."
    )


@pytest.mark.parametrize(("kl_beta", "holds"), [(0.0, False), (0.3, True)])
def test_report_says_on_which_tokens_the_advantage_acts(kl_beta, holds):
    grpo = PARAMS.train_grpo.model_copy(update={"advantage_on": "answer", "kl_beta": kl_beta})
    text = sentences.trained_share(grpo)
    assert "is $A_i$ on the tokens of the answer" in text
    assert ("held by the divergence below" in text) == holds


@pytest.mark.parametrize(
    ("aggregation", "scale_rewards", "key", "word"),
    [
        ("sum_then_normalize", "group", "group", "sum is standardised within the group"),
        ("sum_then_normalize", "batch", "batch", "scaled over the step"),
        ("sum_then_normalize", "none", "none", "sum is centred within the group"),
        ("normalize_then_sum", "none", "each term", "Each term is standardised"),
    ],
)
def test_report_describes_the_advantages_that_were_trained_on(aggregation, scale_rewards, key, word):
    rewards = PARAMS.rewards.model_copy(update={"aggregation": aggregation})
    grpo = PARAMS.train_grpo.model_copy(update={"scale_rewards": scale_rewards})
    assert sentences.standardisation(rewards, grpo) == key
    assert word in sentences.AGGREGATION[key]
    assert key in sentences.RESCALING
    assert key in sentences.ADVANTAGE_FORMULA


def test_report_of_one_seed_says_that_it_is_one(tmp_path):
    make_report(tmp_path)
    assert "is of one training. Its first interval" in words(tmp_path)
    assert "By training seed" not in words(tmp_path)


def made_study(root, seeds=(5, 7, 9)):
    """Analyse made-up rollouts of several trainings, as `make seeds` does; return the analysis."""
    made_up.write_reports(root, seeds=seeds)
    grpo = PARAMS.train_grpo.model_copy(update={"seeds": list(seeds)})
    analyse_rewards.run(CONFIG, PARAMS.rewards, grpo, root)
    return files.read_json(root / "reports/reward_analysis.json")


def test_report_leads_with_the_study_and_takes_the_spread_between_trainings_from_it(tmp_path):
    study = made_study(tmp_path / "study")
    root = tmp_path / "run"
    files.write_json(root / "reports/seeds/reward_analysis.json", study)
    make_report(root)
    analysis = files.read_json(root / "reports/reward_analysis.json")
    assert analysis["between_trainings"] == {"study": True, "trainings": 3, "other_conditions": []}
    sd = analysis["metrics"]["empathy_raw"]["between_training_sd"]
    assert sd == study["metrics"]["empathy_raw"]["between_training_sd"]
    assert "Over 3 trainings from different seeds raw empathy changed by" in words(root)
    assert r"whose training seeds are 5, 7 and 9" in words(root)
    assert r"$s$ is from the study of \num{3} trainings (\autoref{tab:study})." in words(root)
    table = (root / "paper/generated/study_table.tex").read_text()
    assert table.count(r"\\") == 1 + len(CONFIG.metrics)
    assert "Verdicts are those of the 3 trainings of the study" in words(root)
    changed = PARAMS.train_grpo.model_copy(update={"steps": 3})
    analyse_rewards.run(CONFIG, PARAMS.rewards, changed, root)
    write_numbers.run(SECTIONS, root)
    assert r"in a study under other conditions (\file{train_grpo.steps})," in words(root)
    assert r"made under other conditions: \file{train_grpo.steps}. Its spread between trainings is not used" in words(
        root
    )
    assert (
        "trainings, made under other conditions, on the reward's scorer the interval for a new training lies"
        in words(root)
    )
    alone = files.read_json(root / "reports/reward_analysis.json")
    for comparison in (
        alone["metrics"]["empathy_raw"],
        alone["audit"]["metrics"]["audit_empathy_raw"],
        alone["audit"]["gap"],
    ):
        assert (comparison["new_low"], comparison["new_high"]) == (None, None)
    assert alone["metrics"]["empathy_raw"]["between_training_sd"] is None


def test_report_has_a_section_of_sweeps_where_there_are_any(tmp_path):
    make_report(tmp_path)
    section = tmp_path / "paper/generated/sweeps.tex"
    assert "section{" not in section.read_text()
    rewards = "rewards.calibration_temperature"
    sweep = made_up_sweep.sweep({rewards: [0.6, 1.0]}, [23, 24], PARAMS.model_dump())
    rows = [made_up_sweep.row(setting, seed, setting[rewards]) for setting, seed in sweep.runs()]
    metrics = ["empathy_raw", "audit_empathy_raw"]
    summary = sweep_estimates.summary(sweep, made_up_sweep.by_key(rows), CONFIG, metrics)
    files.write_json(tmp_path / "reports/sweeps/made_up/summary.json", summary)
    write_numbers.run(SECTIONS, tmp_path)
    assert r"\subsection{Made up}" in section.read_text()
    answered = re.search(r"RunTemperatureStudy\}\{(.*)\}\n", words(tmp_path))[1]
    assert (
        r"anew under \num{2} settings of \stage{rewards.calibration_temperature} (\autoref{tab:sweep-made_up})"
        in answered
    )
    assert sweeps.verdict(summary, latex.LATEX) in answered
    assert sweeps.verdict(summary, latex.LATEX) not in section.read_text()
    assert r"RunTermsStudy}{}" in words(tmp_path)
    assert r"\input{../reports/sweeps/made_up/table}" in section.read_text()


def test_report_without_a_study_says_that_none_is_at_hand(tmp_path):
    make_report(tmp_path)
    assert r"\newcommand{\RunStudySentence}{One training was run, and no study of several is at hand.}" in words(
        tmp_path
    )
    assert "the verdicts too are about these weights" in words(tmp_path)
    own = [line for line in words(tmp_path).splitlines() if "RunProtocolSentence" not in line]
    assert "for a new training" not in "\n".join(own)
    assert "no study of several trainings is at hand" in (tmp_path / "paper/generated/study_table.tex").read_text()


def rated_report(root, *files_of, **made):
    """Make a report whose answers were rated; each of `files_of` holds the settings of one file."""
    rows = made_up.told_apart(made_up.rollouts())
    for number, settings in enumerate(files_of):
        rating_files.write(root / rating_files.FOLDER / f"{number}.csv", made_up.rate(rows, **settings))
    make_report(root, rows=rows, **made)
    return words(root)


@pytest.mark.parametrize(
    ("sensible", "said"),
    [
        (0.1, "the answers do not make sense."),
        (0.4, "Whether more than half of the tuned policy's answers are sensible replies is left open"),
        (0.9, "more than half of the tuned policy's answers are sensible"),
    ],
)
def test_report_says_whether_the_answers_that_were_rated_make_sense(tmp_path, sensible, said):
    text = rated_report(tmp_path, {"sensible": sensible})
    share = rf"the share of sensible replies is \num{{{sensible:.2f}}}"
    assert (
        f"Of 60 answers of this run's tuned policy that language models (2 readings) rated, blind to policy and score, {share}"
        in text
    )
    assert re.search(r"RunSenseSentence\}.*" + re.escape(said), text)
    assert ("do not make sense" in text) == (sensible == 0.1)
    assert "Ratings of this run's answers: 360 by language models (A, B). What a language model finds" in text
    assert "the win rate is" in text
    assert "the raters prefer the tuned policy's answers" in text
    assert re.search(
        r"between readings by language models it is .* on sense \(120 answers\), .* on choices \(60 pairs\)", text
    )
    table = (tmp_path / "paper/generated/ratings_table.tex").read_text()
    assert rf"tuned & language models (2 readings) & 60 & \num{{{sensible:.2f}}} " in table
    scores = (tmp_path / "paper/generated/validity_table.tex").read_text()
    assert "empathy, held-out scorer & " in scores


def test_people_lead_and_are_counted_and_models_are_named(tmp_path):
    people = {"raters": ("Ann", "Bob", "Eve"), "kind": "person", "pairs": False, "seed": 7}
    text = rated_report(tmp_path, {"raters": ("gpt_x",), "sensible": 0.2}, people)
    assert "Of 60 answers of this run's tuned policy that 3 people rated" in text
    assert "360 by 3 people and 180 by a language model (gpt\\_x). They are not pooled" in text
    assert "says on answers what people found and on pairs what language models found. What a language model" in text
    assert "Ann" not in text
    assert "between a language model and a person it is" in text
    assert "choices over 60 of these pairs, by a language model," in text
    table = (tmp_path / "paper/generated/ratings_table.tex").read_text()
    assert table.index("3 people") < table.index("a language model")


def test_people_who_rated_pairs_alone_leave_the_sense_open(tmp_path):
    rows = made_up.told_apart(made_up.rollouts())
    pairs = [one for one in made_up.rate(rows, raters=("Ann",), kind="person") if one.form == "pair"]
    rating_files.write(tmp_path / rating_files.FOLDER / "ann.csv", pairs)
    make_report(tmp_path, rows=rows)
    text = words(tmp_path)
    assert (
        "No ratings of the tuned policy's answers, one by one, are at hand, so that whether they make sense is not known."
        in text
    )
    assert "Ratings of this run's answers: 60 by one person." in text
    assert "choices over 60 of these pairs, by one person," in text
    assert "no evidence about people" not in text
    assert "Nothing was rated twice" in text
    assert "tab:validity} has how every score orders the pairs" in text
    assert "RunSenseKept}{what became of the sense of the answers cannot be told" in text
    assert "no ratings of single answers of this run" in (tmp_path / "paper/generated/ratings_table.tex").read_text()
    scores = (tmp_path / "paper/generated/validity_table.tex").read_text()
    assert re.search(r"answer length & -- & -- & -- & -- & \\num", scores)


def test_report_without_ratings_says_that_none_are_at_hand(tmp_path):
    make_report(tmp_path)
    assert "No ratings of the tuned policy's answers, one by one, are at hand" in words(tmp_path)
    assert not re.search("answers were rated|raters? prefer|has the policies|reading [0-9]", words(tmp_path))
    assert "do not make sense" not in words(tmp_path)
    for table, of in (("ratings_table", "of single answers of this run"), ("validity_table", "of this run's answers")):
        assert f"no ratings {of}" in (tmp_path / f"paper/generated/{table}.tex").read_text()


def test_ratings_of_another_run_are_counted_and_told(tmp_path):
    rows = made_up.told_apart(made_up.rollouts("none", seed=9))
    other = [row | {"answer": row["answer"] + "!"} for row in rows]
    rating_files.write(tmp_path / rating_files.FOLDER / "old.csv", made_up.rate(other))
    make_report(tmp_path, rows=rows)
    assert "Ratings of other answers, which are not counted here: 360." in words(tmp_path)
    assert "No ratings of the tuned policy's answers, one by one, are at hand" in words(tmp_path)


def test_ratings_that_cannot_be_read_stop_the_stage_with_their_place(tmp_path):
    made_up.write_reports(tmp_path)
    files.write_text(tmp_path / "data/ratings/ann.csv", "rater,kind\n")
    with pytest.raises(files.UserError, match=r"data/ratings/ann\.csv: .*'form'"):
        analyse_ratings.run(CONFIG, tmp_path)


@pytest.mark.parametrize("verdict", verdicts.AUDIT)
@pytest.mark.parametrize("signs", [[], ["self_bleu"]])
@pytest.mark.parametrize("sensible", [None, (0.3, 0.49), (0.3, 0.6), (0.55, 0.9), (None, None)])
def test_discussion_is_of_what_was_found(verdict, signs, sensible):
    low, high = sensible or (None, None)
    tuned = {"shares": {"sensible": {"estimate": 0.4, "low": low, "high": high}}}
    policies = {} if sensible is None else {"tuned": tuned}
    leading = {"single": None if sensible is None else "person", "pair": None}
    ratings = {"leading": leading, "by_kind": {"person": {"policies": policies}}}
    audit = {"verdict": verdict, "templates": {"signs": signs, "starting_signs": signs}}
    source = {"study": False, "trainings": 0, "other_conditions": []}
    found = {"audit": audit, "metrics": {}, "training_seeds": [1], "between_trainings": source}
    text = sentences.gains(found, None, ratings)
    assert ("finds a sign of one, which the starting policy shows too, so" in text) == bool(signs)
    found["audit"]["templates"]["starting_signs"] = []
    assert ("finds a sign of one, so" in sentences.gains(found, None, ratings)) == bool(signs)
    assert ("most of the tuned answers do not make sense" in text) == (sensible == (0.3, 0.49))
    assert ("leave open whether most" in text) == (sensible in [(0.3, 0.6), (None, None)])
    assert text.startswith(sentences.GAINS[verdict])


def test_discussion_goes_by_the_study_and_sets_the_reward_beside_the_ratings(tmp_path):
    study = made_study(tmp_path)
    study["audit"]["verdict"] = "not confirmed"
    estimate = {"estimate": 0.02, "low": -0.05, "high": 0.09}
    change = {"sensible": estimate, "empathetic": estimate}
    tuned = {"shares": {"sensible": estimate}}
    ratings = {
        "leading": {"single": "person", "pair": None},
        "by_kind": {"person": {"policies": {"tuned": tuned}, "difference": change}},
    }
    source = {"study": True, "trainings": 3, "other_conditions": []}
    one = study | {
        "training_seeds": [1],
        "between_trainings": source,
        "audit": study["audit"] | {"verdict": "confirmed"},
    }
    text = sentences.gains(one, study, ratings)
    assert text.startswith(sentences.GAINS["not confirmed"])
    reward = sentences.COMBINED[study["metrics"]["combined_reference"]["verdict"]]
    assert (
        f"the reward itself {reward}, while by the ratings of this run's answers the share of sensible ones changed by"
        in text
    )
    assert sentences.audit(study, one).startswith(verdicts.STUDY_AUDIT["not confirmed"])
    other = one | {"between_trainings": source | {"other_conditions": ["policy.model"]}}
    assert sentences.gains(other, study, ratings).startswith(sentences.GAINS["confirmed"])
    assert sentences.audit(study, other).startswith(verdicts.AUDIT["confirmed"])


def test_report_of_a_run_beside_a_study_has_the_verdicts_of_the_study(tmp_path):
    study = made_study(tmp_path)
    source = {"study": True, "trainings": 3, "other_conditions": []}
    empathy = study["metrics"]["empathy_raw"] | {"difference": -0.4, "verdict": "worsened", "p_holm": 0.01}
    audit = study["audit"] | {"verdict": "no gain to audit", "drifts": ["stock_phrase"]}
    one = study | {
        "training_seeds": [5],
        "between_trainings": source,
        "metrics": study["metrics"] | {"empathy_raw": empathy},
        "audit": audit,
    }
    assert verdicts.decided(study, one) == "Verdicts are those of the 3 trainings of the study"
    assert verdicts.headline(study, one) == f"over 3 trainings, {verdicts.HEADLINE['improved']}"
    assert verdicts.audit(study, one) == verdicts.STUDY_AUDIT[study["audit"]["verdict"]]
    assert "Confirmed drift" not in sentences.audit(study, one)
    assert verdicts.similarity(study, one, latex.LATEX, "0.05").startswith("By the study, ")
    assert "this report's run, one training, the change" in sentences.result_of_run(study, one)
    assert sentences.conclusion(study, one) == ""
    assert "the change in empathy, reward's scorer lies outside the study's interval" in verdicts.outside(study, one)
    assert verdicts.outside(study, one | {"metrics": study["metrics"]}) == ""
    assert "verdict" not in latex_tables.results_table(one, study)
    assert "worsened" in latex_tables.results_table(one, None)
    assert sentences.combined(study, one).startswith(
        "The combined score, the reward itself against the frozen reference, rose in"
    )
    analyse_ratings.run(CONFIG, tmp_path)
    ratings = files.read_json(tmp_path / "reports/ratings.json")
    page = page_tables.findings(one, ratings, study)
    assert {"what": "Held-out scorer", "text": verdicts.audit(study, one)} in page
    assert {"what": "Beside the study", "text": verdicts.outside(study, one)} in page
    (declared,) = (part for part in page_tables.tables(one, ratings, study) if part["title"] == "Declared metrics")
    assert declared["header"][-1] == "adjusted p"
    # Without it, or with other declared metrics, they are the run's own.
    for of, run in ((None, one), (study, one | {"confidence": 0.9}), (study | {"metric_order": ["x"]}, one)):
        assert verdicts.decided(of, run) == "Verdicts go by the adjusted p and the interval for a new training"
        assert verdicts.headline(of, run) == verdicts.HEADLINE["worsened"]
        assert verdicts.audit(of, run) == verdicts.AUDIT["no gain to audit"]
        assert sentences.conclusion(of, run) == f"In this run, {verdicts.HEADLINE['worsened']}."
    assert verdicts.outside(None, one) == ""


@pytest.mark.parametrize(
    ("source", "decides"),
    [
        ({"study": True, "trainings": 3, "other_conditions": []}, True),
        ({"study": True, "trainings": 3, "other_conditions": ["policy.model"]}, False),
        ({"study": False, "trainings": 3, "other_conditions": []}, False),
    ],
)
def test_a_study_decides_for_a_run_of_its_conditions_alone(tmp_path, source, decides):
    study = made_study(tmp_path)
    assert (trainings.deciding(study, study | {"between_trainings": source}) is study) == decides


@pytest.mark.parametrize(
    ("p", "low", "new_low", "said"),
    [
        (0.01, 0.05, -0.1, "these weights score higher"),
        (0.2, 0.05, -0.1, "no change of the raw empathy score is established"),
        (0.01, -0.05, -0.1, "no change of the raw empathy score is established"),
        (0.01, 0.05, None, "no change of the raw empathy score is established"),
    ],
)
def test_a_change_of_these_weights_alone_is_called_one(p, low, new_low, said):
    found = {"verdict": "no evidence of a change", "p_holm": p, "low": low, "high": 0.3, "new_low": new_low}
    run = {
        "training_seeds": [1],
        "confidence": 0.95,
        "metrics": {"empathy_raw": found | {"difference": 0.2}},
        "audit": {"metrics": {}, "gap": {}},
        "between_trainings": {"study": False, "other_conditions": []},
    }
    assert verdicts.headline(None, run).startswith(said)


def test_a_score_is_called_best_only_where_its_interval_leaves_one_half_out():
    def auc(low, high):
        return {"estimate": (low + high) / 2, "low": low, "high": high, "reason": None}

    nothing = {"estimate": None, "low": None, "high": None, "reason": "no pair was decided"}
    scores = {
        name: {"sensible": auc(*ends), "sense": auc(0.1, 0.3), "empathy": nothing, "ordered": nothing}
        for name, ends in (("empathy_raw", (0.45, 0.9)), ("overlap", (0.2, 0.4)), ("distinct_2", (0.52, 0.56)))
    }
    ratings = {"leading": {"single": "person", "pair": None}, "by_kind": {"person": {"validity": scores}}}
    text = rating_verdicts.validity(ratings, latex.LATEX)
    assert "the reward's scorer goes with rated empathy at not defined (no pair was decided)" in text
    assert (
        "Of 3 scores with an AUC for sense, 2 have an interval that excludes one half; farthest from it is that of overlap with the user's words"
        in text
    )
    assert "so that less of it goes with sense" in text
    assert "GRPO compares" not in text
    ratings["leading"]["pair"] = "person"
    for ends, said in (((0.6, 0.8), "more often"), ((0.4, 0.6), "not shown to differ"), ((0.2, 0.4), "less often")):
        scores["combined_reference"] = {"sensible": nothing, "ordered": auc(*ends)}
        told = rating_verdicts.validity(ratings, latex.LATEX)
        assert f"of the decided choices, {said}" in told
        assert ("Of 1 scores this one does so" in told) == (said == "more often")
        assert "Of 3 scores with an AUC" in told
    scores["overlap"]["ordered"] = auc(0.55, 0.7)
    told = rating_verdicts.validity(ratings, latex.LATEX)
    assert "Of 2 scores this one does so more often than by chance: overlap with the user's words" in told
    del scores["combined_reference"]
    del scores["overlap"], scores["distinct_2"]
    assert "No score is shown to tell sensible answers from others" in rating_verdicts.validity(ratings, latex.LATEX)


def test_study_says_of_which_scores_it_settles_the_sign(tmp_path):
    study = made_study(tmp_path)
    same = study["between_trainings"]
    assert (
        "on the reward's scorer the interval for a new training lies above zero and that for the mean does too; on the held-out one"
        in sentences.study_verdict(study, same)
    )
    study["metrics"]["audit_empathy_raw"] |= {"new_low": -0.1, "new_high": 0.3}
    assert (
        "on the held-out one the interval for a new training includes zero and that for the mean lies above zero."
        in sentences.study_verdict(study, same)
    )
    other = same | {"other_conditions": ["policy.model"]}
    assert sentences.study_verdict(study, other).startswith(
        "In the study of 3 trainings, made under other conditions, on"
    )
    assert sentences.study_verdict(None, same) == "One training cannot say what the next one would give."


def test_study_says_of_which_scores_the_mean_over_trainings_is_told_from_zero(tmp_path):
    study = made_study(tmp_path)
    study["metrics"]["empathy_raw"] |= {"low": 0.1, "high": 0.3}
    study["metrics"]["audit_empathy_raw"] |= {"low": -0.1, "high": 0.3}
    assert sentences.study_verdict(study, study["between_trainings"]) == (
        "In the study of 3 trainings, on the reward's scorer the interval for a new training lies above zero and that for the mean does too; "
        "on the held-out one the interval for a new training lies above zero and that for the mean includes zero."
    )


@pytest.mark.parametrize(
    ("seeds", "difference", "within"),
    [([1], 0.25 + 1e-14, True), ([9], 0.25, False), ([1], 0.26, False), ([1, 2, 3], 0.25, False)],
)
def test_a_run_that_is_one_of_the_studys_trainings_is_said_to_be(tmp_path, seeds, difference, within):
    study = made_study(tmp_path)
    study["training_seeds"] = [1, 2, 3]
    study["metrics"]["empathy_raw"]["by_seed"] = {"1": 0.25, "2": 0.5, "3": 0.0}
    run = {"training_seeds": seeds, "metrics": {"empathy_raw": {"difference": difference}}}
    text = sentences.study_seeds(study, run)
    assert "training seeds are 1, 2 and 3." in text
    assert ("no independent evidence" in text) == within


def test_change_of_the_reward_is_split_by_terms_each_prompt_counting_alike():
    rows = [
        {"prompt_id": prompt, "model": model, "empathy_reference": empathy, "length_raw": length}
        for prompt, model, empathy, length in (
            ("a", "base", 0.1, 1.0), ("a", "tuned", 0.5, 1.0), ("a", "tuned", 0.5, 1.0), ("b", "base", 0.3, 1.0),
            ("b", "tuned", 0.3, 0.5),
        )
    ]  # fmt: skip
    text = sentences.reward_parts(pd.DataFrame(rows), {"length": 1.0, "empathy": 3.0}, "base")
    # Means 0.2 and 0.4 of the one, 1 and 0.75 of the other.
    assert text.endswith(r"is empathy \num{+0.150}, length \num{-0.062}.")
    assert sentences.reward_parts(pd.DataFrame(rows), {"unknown": 1.0}, "base") == ""


def test_agreement_of_one_level_for_everybody_is_told():
    table = pd.DataFrame({"prompt_id": ["a", "a", "b", "c", "d"], "level": [2.0, 2.0, 2.0, 3.0, 0.0]})
    assert sentences.stated_constant(table) == (
        r"Always stating 2 would agree for \qty{50}{\percent} of the prompts and be at most one level away for \qty{75}{\percent}."
    )
    assert sentences.stated_constant(table.assign(level=None)) == ""


def test_base_model_is_told_where_a_warm_start_stands_before_it(tmp_path):
    make_report(tmp_path)
    analysis = files.read_json(tmp_path / "reports/reward_analysis.json")
    score = analysis["metrics"]["empathy_raw"]["means"]["base"]
    assert f"is not compared, scores {latex.number(score, 2)} and " in sentences.base_model(analysis)
    assert sentences.base_model(analysis | {"starting_policy": "base"}) == ""


def test_authors_are_those_of_the_citation_file():
    names = re.findall(r"name: (.*)", (ROOT / "CITATION.cff").read_text())
    assert re.findall(r"\\author\{(.*)\}", (ROOT / "paper/main.tex").read_text()) == [" and ".join(names)]


def test_changes_are_told_in_the_scorers_own_spread_where_they_have_one():
    audit = {
        "metrics": {"empathy_raw": {"difference": 0.2}, "audit_empathy_raw": {"difference": -0.1}},
        "start_sd": {"empathy_raw": 0.8, "audit_empathy_raw": 0.4},
    }
    text = sentences.spread(audit)
    for told in (latex.number(0.25, 2, signed=True), latex.number(-0.25, 2, signed=True), latex.number(0.8, 2)):
        assert told in text
    assert sentences.spread(audit | {"start_sd": {"empathy_raw": 0.8, "audit_empathy_raw": 0.0}}) == ""


@pytest.mark.parametrize("verdict", verdicts.AUDIT)
@pytest.mark.parametrize("drifts", [[], ["overlap"]])
def test_verdict_on_reward_hacking_says_whether_the_style_drifted(verdict, drifts):
    templates = {"signs": ["self_bleu"], "starting_signs": ["self_bleu"]}
    text = sentences.hacking({"verdict": verdict, "drifts": drifts, "templates": templates})
    assert ("no drift of style is confirmed" in text) == (not drifts)
    assert ("reward hacking" in text) == (verdict != "no gain to audit")


@pytest.mark.parametrize("verdict", verdicts.AUDIT)
def test_sign_of_a_template_that_the_starting_policy_lacks_is_a_drift_of_style(verdict):
    templates = {"signs": ["self_bleu", "modal_advice_rise"], "starting_signs": ["self_bleu"]}
    text = sentences.hacking({"verdict": verdict, "drifts": [], "templates": templates})
    assert text == sentences.HACKING[verdict][1]


@pytest.mark.parametrize(
    ("tuned", "change", "expected"),
    [
        (
            (0.4, 0.01),
            (-0.3, 0.01),
            "The tuned policy's raw empathy score grows with the intensity; the change by tuning falls",
        ),
        (
            (None, 1.0),
            (0.1, 0.5),
            "There is no evidence that the tuned policy's raw empathy score follows the intensity; there",
        ),
        (
            (-0.4, 0.01),
            (0.1, 0.05),
            "The tuned policy's raw empathy score falls with the intensity; there is no evidence that",
        ),
    ],
)
def test_trend_is_claimed_only_where_the_test_finds_it(tuned, change, expected):
    of_both = {
        name: {"trend": {"spearman": spearman, "p": p}}
        for name, (spearman, p) in (("tuned", tuned), ("change", change))
    }
    source = {"study": False, "trainings": 0, "other_conditions": []}
    run = {"by_intensity": {"values": {"empathy_raw": of_both}}, "confidence": 0.95, "between_trainings": source}
    assert sentences.trend(None, run).startswith(expected)


def test_effect_of_the_temperature_is_told_in_numbers():
    rows = [
        {"temperature": 0.6, "correlation": 1.0, "reversed_pairs": 0.0},
        {"temperature": 0.2, "correlation": 0.97, "reversed_pairs": 0.01},
        {"temperature": 1.0, "correlation": 0.999, "reversed_pairs": 0.031},
    ]
    text = sentences.temperature_effect("batch", rows, 0.6)
    assert text == r"\num{0.970} (at $T=0.2$) and \qty{3.1}{\percent} in batch calibration"


def test_temperature_of_rewards_without_spread_has_no_effect_to_tell():
    rows = [{"temperature": t, "correlation": None, "reversed_pairs": None} for t in (0.2, 0.6)]
    assert "undefined in batch calibration" in sentences.temperature_effect("batch", rows, 0.6)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"empathy": 1.0, "semantic_similarity": 1.0}, ""),
        ({"empathy": 1.0, "overlap": 1.0}, "Further terms of the reward ask for words other than the user's."),
        (
            {"well_formed": 1.0, "empathy": 1.0, "length": 1.0},
            "Further terms of the reward ask for the response format and short answers.",
        ),
        ({"my_own:Ω": 1.0, "a:f$": 1.0}, r"Further terms of the reward ask for my own:{[}U+03A9{]} and a:f\$."),
    ],
)
def test_further_terms_are_named_where_the_reward_has_any(weights, text):
    assert sentences.further_terms(weights) == text


@pytest.mark.parametrize(
    ("terms", "named", "described"),
    [
        (["empathy", "semantic_similarity"], "similarity of answer and utterance and the score of a learned", False),
        (["likelihood", "empathy", "length"], "the score of a learned empathy regressor and the likelihood of", True),
        (["empathy", "overlap"], "The reward holds the score of a learned empathy regressor, calibrated to", False),
        (["overlap"], "No term of the reward is a calibrated score.", False),
        (
            ["relative_empathy", "overlap"],
            "The reward holds the score of a learned empathy regressor, less what is usual for the kind of answer; the score is",
            False,
        ),
        (
            ["approach_match", "relative_empathy", "relative_reader_sense"],
            "in the answer, each less what is usual for the kind of answer, with whether message and answer are of one kind; each of",
            False,
        ),
    ],
)
def test_calibrated_terms_of_the_reward_are_named(terms, named, described):
    weights = dict.fromkeys(terms, 1.0)
    assert named in sentences.scored_terms(weights)
    assert ("mean log-probability" in sentences.likelihood(weights)) == described
    assert "likel" not in sentences.further_terms(weights)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (["semantic_similarity", "empathy"], "The reward here has the same two terms."),
        (
            ["empathy", "likelihood", "well_formed"],
            "The reward here leaves out the semantic similarity and adds likelihood and well formed.",
        ),
        (["semantic_similarity", "empathy", "length"], "The reward here adds length."),
        (["semantic_similarity"], "The reward here leaves out the learned score."),
        (
            ["relative_empathy", "length"],
            "The reward here leaves out the semantic similarity, takes the learned score against what is usual for the "
            "kind of answer and adds length.",
        ),
    ],
)
def test_departure_from_the_reported_reward_is_told_by_the_weights(terms, said):
    assert sentences.reward_departure(dict.fromkeys(terms, 1.0)) == said


@pytest.mark.parametrize(
    ("drifts", "asked", "text"),
    [
        ([], [], "bigrams, stock phrases or stated intensity is confirmed."),
        (["answer_words"], [], "Confirmed drift: answer length (up)."),
        (
            [],
            ["overlap"],
            "is confirmed beyond what the reward asks for. Changed as the reward asks: overlap with the user's",
        ),
        (
            ["answer_words"],
            ["overlap"],
            "answer length (up). Changed as the reward asks: overlap with the user's words (down).",
        ),
    ],
)
def test_drift_is_told_apart_from_what_the_reward_asks_for(drifts, asked, text):
    metrics = {"answer_words": {"difference": 2.0}, "overlap": {"difference": -0.1}}
    assert text in verdicts.drift({"drifts": drifts, "asked_changes": asked, "metrics": metrics})


def test_a_latex_error_is_told_in_one_line(tmp_path):
    assert typeset.find_problem("blah\n! Undefined control sequence.\nl.12 \\foo\n") == (
        "LaTeX: Undefined control sequence. (line 12)"
    )


def test_a_missing_tex_package_says_what_to_install():
    problem = typeset.find_problem("! LaTeX Error: File `siunitx.sty' not found.\n")
    assert problem.startswith("LaTeX: siunitx.sty is missing; on Debian, `apt-get install latexmk")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("LaTeX Warning: Reference `tab:x' on page 1 undefined on input line 3.", "reference 'tab:x' is undefined"),
        ("Package natbib Warning: Citation `x' on page 1 undefined on input line 3.", "citation 'x' is undefined"),
        ("Overfull \\hbox (12.3pt too wide) in paragraph at lines 3--4", "a line is 12.3 pt too wide"),
        ("Overfull \\hbox (4.9pt too wide) in paragraph at lines 3--4", None),
    ],
)
def test_a_blemished_report_is_refused(line, problem):
    found = typeset.find_problem(line)
    assert found is None if problem is None else problem in found


def test_missing_latexmk_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/main.tex").write_text("x")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(files.UserError, match=r"latexmk: .*`apt-get install latexmk"):
        paper.run(tmp_path)


@needs_tex
@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(23,), (5, 7, 9)])
@pytest.mark.parametrize(
    ("effect", "word"), [("gain", "scores higher"), ("none", "there is no evidence that"), ("harm", "scores lower")]
)
def test_paper_is_built_from_made_up_reports_with_the_verdict_of_the_run(tmp_path, figures, effect, word, seeds):
    rows = made_up.rollouts(effect, seeds=seeds)
    for row in rows:
        row["answer"] += " \N{GRINNING FACE} \\input{x} 100% _ & " + "a" * 80
    make_report(tmp_path, effect, rows=rows, seeds=seeds)
    shutil.copytree(figures, tmp_path / "reports/figures")
    record = files.read_json(ROOT / "reports/provenance.json")
    files.write_text(tmp_path / "paper/provenance/provenance.tex", provenance.report(record, record_provenance.LINKS))
    paper.run(tmp_path)
    first = (tmp_path / "reports/paper.pdf").read_bytes()
    assert word in words(tmp_path)
    log = (tmp_path / "paper/build/main.log").read_text(errors="replace")
    assert 9 <= int(re.search(r"Output written on .*\((\d+) pages", log)[1]) <= 15
    labels = (tmp_path / "paper/build/main.aux").read_text(errors="replace")
    assert int(re.search(r"newlabel\{sec:examples\}\{\{[^}]*\}\{(\d+)\}", labels)[1]) <= 7
    if effect == "gain":
        paper.run(tmp_path)
        assert (tmp_path / "reports/paper.pdf").read_bytes() == first
    assert not list((tmp_path / "reports").glob(".paper*"))


@needs_tex
def test_a_failing_build_leaves_the_old_report(tmp_path):
    (tmp_path / "paper").mkdir()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/paper.pdf").write_bytes(b"old")
    (tmp_path / "paper/main.tex").write_text("\\documentclass{article}\\begin{document}\\nonsense\\end{document}")
    with pytest.raises(files.UserError, match=r"Undefined control sequence\b.*\bline 1\b"):
        paper.run(tmp_path)
    assert (tmp_path / "reports/paper.pdf").read_bytes() == b"old"


def test_rehearsals_on_gpus_are_quoted_with_what_failed(tmp_path):
    make_report(tmp_path)
    assert "No profile for a GPU has been rehearsed" in words(tmp_path)
    found = {
        "gpu": {"name": "NVIDIA H200"}, "profile": "llama_big", "seconds_per_step": {"step": 6.92, "generation": 6.5},
        "peak_memory_gib": {"train": 19.83}, "versions": {"torch": "2.11.0+cu130", "vllm": "0.26.0"},
        "failed": {"rollout": "why"}, "adapter": None, "scorer": {"turns_per_second": 9.0},
    }  # fmt: skip
    files.write_json(tmp_path / "reports/gpu/nvidia-h200.json", {"llama_big": found})
    write_numbers.run(SECTIONS, tmp_path)
    quoted = (
        r"on one NVIDIA H200 a step of \file{llama\_big} took \qty{6.9}{\second}, \qty{6.5}{\second} of it sampling, and "
        r"19.8\,GiB of memory, with torch 2.11.0, vllm 0.26.0 (rollout did not pass; reload gave no result)"
    )
    assert quoted in words(tmp_path)
