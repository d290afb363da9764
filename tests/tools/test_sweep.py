"""Sweeps from end to end, with runs that are made up: what is run, kept, refused and told."""

import multiprocessing
import re
import time

import pytest
import yaml

import made_up_sweep
from conftest import ROOT
from gpro_empathy import csv_table, files
from gpro_empathy.files import UserError
from gpro_empathy.tools import sweep, sweep_folder, sweep_results

T = "rewards.calibration_temperature"
SET = f"{T}=0.2,0.6"


class Runner:
    """Makes runs up; counts them, and can fail or be interrupted in one of them."""

    def __init__(self, fails=(), interrupted_in=None, gains=None):
        self.runs, self.fails, self.interrupted_in, self.gains = [], fails, interrupted_in, gains or {}

    def __call__(self, values, setting, seed):
        assert values["rewards"]["calibration_temperature"] == setting[T]
        if len(self.runs) == self.interrupted_in:
            raise KeyboardInterrupt
        self.runs.append((setting[T], seed))
        if (setting[T], seed) in self.fails:
            return made_up_sweep.failed(setting, seed)
        return made_up_sweep.row(setting, seed, self.gains.get(setting[T], 0.3))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Make a folder to sweep in, in which drawing, which takes long, is left out."""
    made_up_sweep.write_tree(tmp_path)
    monkeypatch.setattr(sweep_results, "draw", lambda summary, look, folder: None)
    return tmp_path


def read(root, name):
    return (root / f"reports/sweeps/t/{name}").read_text(encoding="utf-8")


def test_every_setting_is_run_from_every_seed_and_collected(root, capsys):
    runner = Runner()
    sweep.run("t", SET, "23,24", root, runner)
    assert runner.runs == [(0.2, 23), (0.2, 24), (0.6, 23), (0.6, 24)]
    table = csv_table.read(root / "reports/sweeps/t/results.csv", [T, *sweep_results.COLUMNS])
    assert len(table) == 4 * 3
    assert set(table["status"]) == {"done"}
    assert list(table.loc[table["metric"] == "empathy_raw", "seed"]) == [23, 24, 23, 24]
    summary = files.read_json(root / "reports/sweeps/t/summary.json")
    assert [arm["label"] for arm in summary["arms"]] == ["0.2", "0.6"]
    assert summary["reference"] == 1  # the setting of params.yaml
    printed = capsys.readouterr().out
    assert len(re.findall(r"raw empathy changed by \+0\.[23]\d", printed)) == 4
    assert re.findall(r"(\d)/4 runs, about (\d) min left", printed) == [("1", "3"), ("2", "2"), ("3", "1")]


def test_a_second_call_runs_nothing_and_one_with_more_runs_what_is_new(root):
    sweep.run("t", SET, "23,24", root, Runner())
    before = read(root, "runs.jsonl")
    again = Runner()
    sweep.run("t", "", "", root, again)
    assert again.runs == []
    assert read(root, "runs.jsonl") == before
    more = Runner()
    sweep.run("t", f"{T}=1", "25", root, more)
    assert more.runs == [(0.2, 25), (0.6, 25), (1, 23), (1, 24), (1, 25)]


def test_an_interrupted_sweep_goes_on_with_what_is_missing(root):
    with pytest.raises(KeyboardInterrupt):
        sweep.run("t", SET, "23,24", root, Runner(interrupted_in=2))
    assert len(read(root, "runs.jsonl").splitlines()) == 2
    assert sweep.listing(root).startswith(f"t: {SET}, seeds 23,24: 2 done, 0 failed, 2 missing\n")
    runner = Runner()
    sweep.run("t", SET, "23,24", root, runner)
    assert runner.runs == [(0.6, 23), (0.6, 24)]


def test_a_failed_run_stops_no_other_stands_in_every_table_and_is_tried_again(root):
    with pytest.raises(
        UserError, match=rf"^1 of 4 runs failed, the first \({T}=0.2, seed 24\) by: the machine's memory ran"
    ):
        sweep.run("t", SET, "23,24", root, Runner(fails=[(0.2, 24)]))
    assert sweep.listing(root).startswith(f"t: {SET}, seeds 23,24: 3 done, 1 failed, 0 missing\n")
    assert "0.2,24,failed,the machine's memory ran out,,,," in read(root, "results.csv")
    table = read(root, "table.tex")
    assert "0.2 & 1 (1 failed) & " in table
    assert "0.2, seed 24, failed: the machine's memory ran out" in table
    again = Runner()
    sweep.run("t", "", "", root, again)
    assert again.runs == [(0.2, 24)]
    assert "failed" not in read(root, "table.tex")
    assert len(read(root, "runs.jsonl").splitlines()) == 4


def test_a_sweep_whose_runs_have_all_failed_is_collected(root):
    with pytest.raises(UserError, match="4 of 4 runs failed"):
        sweep.run("t", SET, "23,24", root, Runner(fails=[(t, s) for t in (0.2, 0.6) for s in (23, 24)]))
    assert read(root, "table.tex").count("failed: ") == 4


def test_seeds_are_by_default_those_of_params(root):
    runner = Runner()
    sweep.run("t", SET, "", root, runner)
    seeds = yaml.safe_load((ROOT / "params.yaml").read_text())["train_grpo"]["seeds"]
    assert runner.runs == [(t, seed) for t in (0.2, 0.6) for seed in seeds]


@pytest.mark.parametrize(
    ("name", "text", "seeds", "message"),
    [
        ("a/b", SET, "23", "NAME: 'a/b' is no name for a sweep; use letters, digits"),
        ("..", SET, "23", "is no name for a sweep"),
        ("t", "", "23", "SET: nothing is varied"),
        ("t", SET, "23,23", "SEEDS: 23 is given twice"),
        ("t", f"{T}=0.2,0", "23", "input should be greater than 0, got 0"),
        ("t", "rewards.temperature=1", "23", "is no parameter"),
        ("t", SET, "99999999999", "train_grpo.seeds.0: input should be less than"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(root, name, text, seeds, message):
    runner = Runner()
    with pytest.raises(UserError, match=message):
        sweep.run(name, text, seeds, root, runner)
    assert runner.runs == []
    assert not (root / "reports").exists()


def test_other_keys_under_the_same_name_are_refused(root):
    sweep.run("t", SET, "23", root, Runner())
    with pytest.raises(
        UserError, match=rf"reports/sweeps/t: varies {T}; give another NAME to vary rewards.calibration"
    ):
        sweep.run("t", "rewards.calibration=batch,reference", "23", root, Runner())


def test_runs_of_other_settings_or_code_are_not_mixed_with_those_that_are_there(root):
    sweep.run("t", SET, "23", root, Runner())
    values = yaml.safe_load((root / "params.yaml").read_text())
    changed = values | {"train_grpo": values["train_grpo"] | {"steps": 3}}
    (root / "params.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match=r"were made with another train_grpo\.steps than params.yaml has now"):
        sweep.run("t", "", "24", root, Runner())
    # What is varied may stand otherwise there: every run sets it.
    values["rewards"]["calibration_temperature"] = 0.2
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    sweep.run("t", "", "24", root, Runner())
    assert files.read_json(root / "reports/sweeps/t/summary.json")["reference"] == 1
    (root / "src/gpro_empathy/rewards.py").write_text("other code")
    sweep.run("t", "", "", root, Runner())  # which lacks nothing
    with pytest.raises(UserError, match=r"were made with another src/gpro_empathy/rewards.py; .* delete `code`"):
        sweep.run("t", "", "25", root, Runner())
    path = root / "reports/sweeps/t/settings.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["code"]
    path.write_text(yaml.safe_dump(settings))
    runner = Runner()
    sweep.run("t", "", "25", root, runner)
    assert len(runner.runs) == 2


def test_a_sweep_without_a_finished_run_takes_the_tree_as_it_is_now(root):
    with pytest.raises(UserError, match="2 of 2 runs failed"):
        sweep.run("t", SET, "23", root, Runner(fails=[(0.2, 23), (0.6, 23)]))
    (root / "src/gpro_empathy/rewards.py").write_text("mended code")
    runner = Runner()
    sweep.run("t", "", "", root, runner)
    assert len(runner.runs) == 2
    assert sweep_folder.read("t", root).code == sweep_folder.code(
        root, yaml.safe_load((root / "params.yaml").read_text())
    )


def test_a_working_tree_with_changes_is_told(capsys):
    begun = sweep_folder.Sweep("t", {}, [], {}, {}, "c", ["params.yaml", "a", "b", "c"])
    sweep.tell_changes(begun)
    assert (
        "sweep t: params.yaml, a, b and 1 more differ from the last commit; the runs take them"
        in capsys.readouterr().out
    )


def hold(root, held):
    with sweep.locked(root):
        held.set()
        time.sleep(600)


def test_two_sweeps_at_once_are_refused_and_the_lock_goes_with_its_process(root):
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    holder = fork.Process(target=hold, args=(root, held))
    holder.start()
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match=f"another sweep, or a run of one, works in this folder, .* {holder.pid};"):
            sweep.run("other", SET, "23", root, Runner())
        assert not (root / "reports").exists()
    finally:
        holder.kill()
        holder.join()
    sweep.run("t", SET, "23", root, Runner())


def test_listing_without_a_sweep_says_how_to_make_one(tmp_path):
    text = sweep.listing(tmp_path)
    assert text.startswith("reports/sweeps holds no sweep\n")
    assert "make sweep SET=" in text


@pytest.mark.parametrize("content", ["grid: {a.b: [1]}", "[]", "a: : b"])
def test_broken_settings_of_a_sweep_are_named(root, content):
    files.write_text(root / "reports/sweeps/t/settings.yaml", content)
    with pytest.raises(UserError, match=r"reports/sweeps/t/settings.yaml: (is no sweep|not YAML)"):
        sweep.listing(root)
