import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import made_up
from gpro_empathy import params
from gpro_empathy.files import UserError
from gpro_empathy.report import reproduction, tolerances
from gpro_empathy.report.tolerances import RULES, is_compared, rule_of
from gpro_empathy.stages import analyse_rewards

ROOT = Path(__file__).parents[2]
PARAMS = params.load_all(ROOT / "params.yaml")
ANALYSIS = "reports/reward_analysis.json"
METRIC = {
    "difference": 0.4, "low": 0.2, "high": 0.7, "means": {"base": 1.0, "tuned": 1.4}, "p_holm": 0.03, "d_z": 0.5,
    "standard_error": 0.1, "verdict": "improved",
}  # fmt: skip


def analysis(**changes):
    """Return a small analysis of one metric, with some of its values changed."""
    metric = copy.deepcopy(METRIC)
    for key, value in changes.items():
        target = metric["means"] if key in metric["means"] else metric
        target[key] = value
    return {"confidence": 0.95, "prompts": 24, "metrics": {"empathy_raw": metric}}


def wrong(name, committed, current):
    return [one.place.split(": ")[1] for one in reproduction.compare(name, committed, current) if not one.agrees]


def git(root, *arguments):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=root, check=True)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Make the reports of a run of two training seeds."""
    root = tmp_path_factory.mktemp("reports")
    made_up.write_reports(root, seeds=(23, 24))
    analyse_rewards.run(
        PARAMS.analyse_rewards.model_copy(update={"n_resamples": 200}), PARAMS.rewards, PARAMS.train_grpo, root
    )
    return {name: json.loads((root / name).read_text(encoding="utf-8")) for name in reproduction.COMPARED}


def compared(report):
    """Return the paths and values that are compared."""
    return [(path, x) for path, x in reproduction.leaves(report) if is_compared(path, report)]


def count(reports):
    return sum(len(compared(report)) for report in reports.values())


@pytest.fixture
def root(tmp_path, reports):
    """Make a repository that holds the reports, committed."""
    for name, report in reports.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(report))
    (tmp_path / "params.yaml").write_text("rewards: {temperature: 0.6}\nrollout: {seed: 1}\n")
    (tmp_path / reproduction.TIMING).write_text("step,step_s\n1,20.5\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    return tmp_path


# One number at a time


@pytest.mark.parametrize("name", reproduction.COMPARED)
def test_a_report_agrees_with_itself(name, reports):
    found = reproduction.compare(name, reports[name], copy.deepcopy(reports[name]))
    assert found
    assert all(one.agrees for one in found)


@pytest.mark.parametrize("name", reproduction.COMPARED)
def test_every_value_that_moves_far_is_found(name, reports):
    """Refuse a number that is half as large again and 100 away, and another word, by any rule."""
    report = copy.deepcopy(reports[name])
    for path, value in compared(reports[name]):
        parent = report
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            new = f"not {value}"
        elif rule_of(name, path).what == "p-values":
            new = 1.0 if value < 0.05 else 0.0
        else:
            new = 1.5 * value + 100
        parent[path[-1]] = new
    places = [
        ".".join(map(str, path))
        for path, _ in compared(reports[name])
        if rule_of(name, path).agrees is not tolerances.anything
    ]
    assert sorted(wrong(name, reports[name], report)) == sorted(places)


def test_number_format_and_device_are_those_of_the_machine():
    old, new = {"dtype": "bfloat16", "device": "cpu"}, {"dtype": "float32", "device": "NVIDIA H100"}
    assert wrong("reports/training/settings.json", old, new) == []
    assert wrong("reports/training/settings.json", old | {"steps": 12}, new | {"steps": 13}) == ["steps"]


@pytest.mark.parametrize(
    ("committed", "current", "agrees"), [(0.61, 0.6399, True), (0.61, 0.6401, False), (0.61, 0.5799, False)]
)
def test_correlations_of_scorers_may_move_by_three_hundredths(committed, current, agrees):
    reports = [{"reward": {"test": {"empathy": {"pearson": value}}}} for value in (committed, current)]
    assert (wrong("reports/scorer.json", *reports) == []) == agrees


@pytest.mark.parametrize(
    ("difference", "agrees"),
    [
        (0.4 - math.sqrt(2) * 0.2 + 1e-9, True),
        (0.4 - math.sqrt(2) * 0.2 - 1e-9, False),
        (0.4 + math.sqrt(2) * 0.3 - 1e-9, True),
        (0.4 + math.sqrt(2) * 0.3 + 1e-9, False),
    ],
)
def test_a_change_may_move_within_its_interval_times_the_root_of_two(difference, agrees):
    expected = [] if agrees else ["metrics.empathy_raw.difference"]
    assert wrong(ANALYSIS, analysis(), analysis(difference=difference)) == expected


@pytest.mark.parametrize(("key", "place"), [("tuned", "means.tuned"), ("low", "low"), ("high", "high")])
def test_means_and_ends_may_move_as_far_as_the_change(key, place):
    old = METRIC["means"].get(key, METRIC.get(key))
    reach = math.sqrt(2) * 0.3
    for value in (old + reach - 1e-9, old - reach + 1e-9):
        assert wrong(ANALYSIS, analysis(), analysis(**{key: value})) == []
    for value in (old + reach + 1e-9, old - reach - 1e-9):
        assert wrong(ANALYSIS, analysis(), analysis(**{key: value})) == [f"metrics.empathy_raw.{place}"]


def test_scores_by_intensity_may_move_within_their_level():
    def report(mean, low=1.8, high=2.4):
        levels = {"tuned": {"levels": [{"mean": mean, "low": low, "high": high}]}}
        return {"metrics": {"x": {"sd_of_differences": 0.5}}, "by_intensity": {"values": {"x": levels}}}

    reach = math.sqrt(2) * 0.4
    place = ["by_intensity.values.x.tuned.levels.0.mean"]
    assert wrong(ANALYSIS, report(2.0), report(2.0 + reach - 1e-9)) == []
    assert wrong(ANALYSIS, report(2.0), report(2.0 + reach + 1e-9)) == place
    assert wrong(ANALYSIS, report(2.0, None, None), report(3.999, None, None)) == []
    assert wrong(ANALYSIS, report(2.0, None, None), report(4.001, None, None)) == place


def test_counts_of_replies_may_move_by_their_share_of_all():
    def report(n):
        return {"intensity_agreement": {"tuned": {"n": n, "missing": 40 - n}}}

    assert wrong(ANALYSIS, report(20), report(26)) == []
    assert wrong(ANALYSIS, report(20), report(27)) == [f"intensity_agreement.tuned.{key}" for key in ("missing", "n")]


@pytest.mark.parametrize(("key", "reach"), [("d_z", 0.8), ("cliffs_delta", 0.8), ("probability_of_improvement", 0.4)])
def test_effect_sizes_may_move_by_what_few_prompts_allow(key, reach):
    def report(value):
        return {"prompts": 12.5, "metrics": {"x": {key: value}}}

    assert wrong(ANALYSIS, report(0.1), report(0.1 + reach - 1e-9)) == []
    assert wrong(ANALYSIS, report(0.1), report(0.1 + reach + 1e-9)) == [f"metrics.x.{key}"]


def test_examples_are_not_compared():
    old, new = ({"audit": {"best_prompts": [{"prompt_id": name}]}} for name in ("1.2", "3.4"))
    assert reproduction.compare(ANALYSIS, old, new) == []


@pytest.mark.parametrize(
    "source",
    [None, {"study": False, "other_conditions": []}, {"study": True, "other_conditions": ["policy.model"]}],
)
def test_tests_and_verdicts_of_a_run_are_compared_where_no_study_has_the_verdicts(source):
    def run(p, verdict):
        return analysis(p_holm=p, verdict=verdict) | {"audit": {"drifts": []}, "between_trainings": source}

    old, new = run(0.03, "improved"), run(0.9, "no evidence of a change") | {"audit": {"drifts": ["overlap"]}}
    places = ["audit.drifts.0", "metrics.empathy_raw.p_holm", "metrics.empathy_raw.verdict"]
    assert wrong(ANALYSIS, old, new) == places
    beside = {"between_trainings": {"study": True, "other_conditions": []}}
    assert wrong(ANALYSIS, old | beside, new | beside) == []


@pytest.mark.parametrize(("p", "agrees"), [(0.0001, True), (0.0499, True), (0.051, False), (1.0, False)])
def test_a_p_value_must_stay_on_its_side(p, agrees):
    assert (wrong(ANALYSIS, analysis(), analysis(p_holm=p)) == []) == agrees


def test_counts_and_words_must_be_equal():
    current = analysis(verdict="worsened") | {"prompts": 25}
    assert wrong(ANALYSIS, analysis(), current) == ["metrics.empathy_raw.verdict", "prompts"]
    assert wrong("reports/data.json", {"splits": {"test": {"turns": 360}}}, {"splits": {"test": {"turns": 361}}})
    assert wrong("reports/data.json", {"mean": 2.0}, {"mean": 2.0 + 1e-10}) == []
    assert wrong("reports/data.json", {"mean": 2.0}, {"mean": 2.001}) == ["mean"]


@pytest.mark.parametrize(("old", "new"), [(True, 1), (0, False), (None, 0.0), (1.0, None), (1, "1"), (True, False)])
def test_values_of_another_kind_do_not_agree(old, new):
    assert wrong("reports/training/settings.json", {"x": old}, {"x": new}) == ["x"]


def test_whole_and_broken_numbers_of_one_value_agree():
    assert wrong("reports/training/settings.json", {"x": 2}, {"x": 2.0}) == []


def test_what_stands_on_one_side_alone_does_not_agree():
    found = reproduction.compare("reports/data.json", {"a": 1, "b": [1, 2], "d": "missing"}, {"b": [1], "c": None})
    assert [(one.place, one.committed, one.current) for one in found if not one.agrees] == [
        ("reports/data.json: a", 1, "missing"),
        ("reports/data.json: b.1", 2, "missing"),
        ("reports/data.json: c", "missing", None),
        ("reports/data.json: d", "missing", "missing"),
    ]


def test_every_rule_judges_something(reports):
    # Beside a study, a run's own tests are not compared.
    alone = reports[ANALYSIS] | {"between_trainings": {"study": False, "trainings": 0, "other_conditions": []}}
    reports = reports | {ANALYSIS: alone}
    used = {rule_of(name, path).what for name, report in reports.items() for path, _ in compared(report)}
    assert {rule.what for rule in RULES} == used


# The whole


def test_unchanged_reports_all_agree_and_are_said_to_be_the_same_files(root, reports):
    text = reproduction.verify(root=root)
    total = count(reports)
    assert f"All {total} numbers agree with the committed ones." in text
    assert "7 of 7 reports are the same byte for byte" in text
    assert "the training was not run here since" in text
    assert "params.yaml" not in text
    assert "do not" not in text


def test_what_does_not_agree_is_listed_with_both_values_and_the_tolerance(root, reports):
    report = copy.deepcopy(reports["reports/scorer.json"])
    old = report["reward"]["test"]["empathy"]["pearson"]
    report["reward"]["test"]["empathy"]["pearson"] = old - 0.1
    (root / "reports/scorer.json").write_text(json.dumps(report))
    (root / reproduction.TIMING).write_text("step,step_s\n1,19.9\n")
    text = reproduction.verify(root=root)
    total = count(reports)
    assert f"{total - 1} of {total} numbers agree with the committed ones." in text
    line = next(
        line for line in text.splitlines() if line.startswith("  reports/scorer.json: reward.test.empathy.pearson")
    )
    assert line.split()[2:] == [f"{old:.4g}", f"{old - 0.1:.4g}", "0.03"]
    assert "6 of 7 reports are the same" in text
    assert "was not run here" not in text


def test_a_long_list_is_cut_and_counted(root, reports):
    (root / "reports/data.json").write_text(json.dumps({f"key_{k}": k for k in range(45)}))
    text = reproduction.verify(root=root)
    gone = len(list(reproduction.leaves(reports["reports/data.json"])))
    assert text.endswith(f"  and {gone + 45 - 40} more")


def test_changed_settings_are_named_as_a_reason(root):
    (root / "params.yaml").write_text("rewards: {temperature: 0.8}\nrollout: {seed: 1}\nadded: {}\n")
    text = reproduction.verify(root=root)
    assert (
        "params.yaml differs from HEAD in added, rewards: numbers that depend on them are expected to differ." in text
    )


def test_a_comment_in_the_settings_is_no_difference(root):
    (root / "params.yaml").write_text("# note\nrollout: {seed: 1}\nrewards: {temperature: 0.60}\n")
    assert "params.yaml" not in reproduction.verify(root=root)


def test_settings_that_are_no_yaml_are_named(root):
    (root / "params.yaml").write_text("rewards:\n\ttemperature: 0.6\n")
    with pytest.raises(UserError, match=r"params\.yaml\b.*YAML"):
        reproduction.verify(root=root)


def test_another_revision_can_be_named(root):
    (root / "reports/warm_start.json").write_text('{"enabled": false}')
    git(root, "commit", "-qam", "y")
    assert "All " in reproduction.verify("HEAD", root)
    assert "These do not:" in reproduction.verify("HEAD~1", root)


def test_a_report_that_is_not_committed_is_said_to_be_left_out(root):
    git(root, "rm", "-q", "--cached", "reports/data.json")
    git(root, "commit", "-qm", "y")
    assert "reports/data.json is not at HEAD, and not compared." in reproduction.verify(root=root)


def test_a_revision_without_reports_is_refused(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "x", "--allow-empty")
    with pytest.raises(UserError, match=r"\bHEAD\b.*reports"):
        reproduction.verify(root=tmp_path)


def test_a_missing_report_of_this_run_is_named(root):
    (root / "reports/scorer.json").unlink()
    with pytest.raises(UserError, match=r"scorer\.json: .*`make reproduce`"):
        reproduction.verify(root=root)


def command(root, *arguments):
    environment = {
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": "/usr/bin:/bin",
        "GIT_CEILING_DIRECTORIES": str(root.parent),
    }
    return subprocess.run(
        [sys.executable, "-m", "gpro_empathy.report.reproduction", *arguments],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_command_ends_well_although_a_number_differs(root):
    (root / "reports/warm_start.json").write_text('{"enabled": false}')
    done = command(root)
    assert done.returncode == 0
    assert "These do not:" in done.stdout


def test_command_says_plainly_that_there_is_no_git(tmp_path):
    done = command(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: verify: nothing was compared: ")
    assert "git clone" in done.stderr
    assert "Traceback" not in done.stderr


def test_command_refuses_an_unknown_revision(root):
    assert "nothing was compared: " in command(root, "--revision", "nowhere").stderr
