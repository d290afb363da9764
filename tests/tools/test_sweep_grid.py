"""What SET and SEEDS say, and the settings that come of them."""

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conftest import ROOT
from gpro_empathy.files import UserError
from gpro_empathy.tools import sweep_grid

BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
BASE["rewards"]["weights"] = {"empathy": 1.0, "likelihood": 1.0, "well_formed": 2.0, "length": 0.5}
TEMPERATURE = "rewards.calibration_temperature"


def test_values_and_keys_make_a_grid_whose_last_key_varies_fastest():
    grid = sweep_grid.parse(f" {TEMPERATURE}=0.2,1  rewards.calibration=batch,reference ")
    assert grid == {TEMPERATURE: [0.2, 1], "rewards.calibration": ["batch", "reference"]}
    assert [list(setting.values()) for setting in sweep_grid.settings(grid)] == [
        [0.2, "batch"], [0.2, "reference"], [1, "batch"], [1, "reference"],
    ]  # fmt: skip


def test_commas_and_spaces_in_brackets_and_quotes_belong_to_a_value():
    grid = sweep_grid.parse('rewards.weights={empathy: 1.0, length: 2},all,-length policy.model="a b",c')
    assert grid == {"rewards.weights": [{"empathy": 1.0, "length": 2}, "all", "-length"], "policy.model": ["a b", "c"]}


def test_numbers_without_a_point_are_numbers_and_words_of_yaml_are_what_they_are():
    assert sweep_grid.parse("train_grpo.learning_rate=1e-4,3.0e-5")["train_grpo.learning_rate"] == [1e-4, 3e-5]
    assert sweep_grid.parse("warm_start.enabled=true,false")["warm_start.enabled"] == [True, False]
    assert sweep_grid.parse("policy.revision=null,nan")["policy.revision"] == [None, "nan"]


@hypothesis_settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from([TEMPERATURE, "rewards.weights", "policy.model"]),
        st.lists(st.one_of(st.floats(0.01, 9), st.booleans(), st.integers(0, 99), st.dictionaries(
            st.sampled_from("abc"), st.floats(0.1, 3), min_size=1)), min_size=1, max_size=4),
        min_size=1,
    )
)  # fmt: skip
def test_a_grid_comes_back_from_how_it_is_written(grid):
    text = " ".join(f"{key}={','.join(map(sweep_grid.text, values))}" for key, values in grid.items())
    assert sweep_grid.parse(text) == grid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "SET: nothing is varied; give SET="),
        ("  ", "SET: nothing is varied"),
        (TEMPERATURE, r"SET: 'rewards\.calibration_temperature' is not of the form key=value,value"),
        (f"{TEMPERATURE}=", "is not of the form key=value"),
        (f"{TEMPERATURE}=0.2,,1", "is not of the form key=value"),
        ("=0.2", "is not of the form key=value"),
        ("a.b=1 a.b=2", "SET: a.b is given twice; list its values"),
        ("a.b={x: 1", "SET: 'a.b={x: 1' lacks a closing }"),
        ("a.b='x", "lacks a closing '"),
        ("a.b={x: 1: 2}", "is not YAML"),
    ],
)
def test_a_line_that_is_no_grid_is_refused(text, message):
    with pytest.raises(UserError, match=message) as refused:
        sweep_grid.parse(text)
    assert "\n" not in str(refused.value)


def test_seeds_are_read_with_commas_or_spaces():
    assert sweep_grid.parse_seeds("23,24 25") == [23, 24, 25]


@pytest.mark.parametrize(
    ("text", "message"),
    [(" , ", "SEEDS: there is none"), ("23,x", "SEEDS: 'x' is no seed"), ("-1", "'-1' is no seed"), ("5,6,5", "5 is given twice")],
)  # fmt: skip
def test_seeds_that_are_none_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        sweep_grid.parse_seeds(text)


def test_an_entry_is_left_out_a_mapping_replaced_or_kept_and_one_weight_set():
    def weights(value, key="rewards.weights"):
        return sweep_grid.applied(BASE, {key: value})["rewards"]["weights"]

    whole = BASE["rewards"]["weights"]
    assert weights("-empathy") == {name: weight for name, weight in whole.items() if name != "empathy"}
    assert weights("all") == whole
    assert weights({"empathy": 1.0}) == {"empathy": 1.0}
    assert weights(9.0, "rewards.weights.length") == {**whole, "length": 9.0}
    assert "empathy" in whole


def check(text, seeds=(23, 24)):
    sweep_grid.check(BASE, sweep_grid.parse(text), list(seeds))


def test_each_term_left_out_in_turn_can_be_written():
    terms = BASE["rewards"]["weights"]
    check("rewards.weights=all," + ",".join(f"-{term}" for term in terms))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rewards.temprature=0.2", "SET: rewards.temprature is no parameter; check its spelling"),
        ("rewards.weights.lenght=1", "SET: rewards.weights.lenght is no parameter"),
        ("rewards.aggregation.x=1", "is no parameter"),
        ("reward.calibration=batch", "a sweep varies settings of policy, rewards, "),
        ("prepare.seed=1,2", "a sweep varies settings of"),
        ("rewards=1", "named as section.key"),
        ("train_grpo.seeds=[1],[2]", "train_grpo.seeds are given by SEEDS="),
        (f"{TEMPERATURE}=0.2,-1,1", rf"SET {TEMPERATURE}=-1: {TEMPERATURE}: input should be greater than 0, got -1"),
        (f"rewards.calibration=batch {TEMPERATURE}=.inf", "input should be a finite number"),
        ("rewards.weights=-lenght", "SET: rewards.weights=-lenght: give all, a mapping in {}, or one of -empathy"),
        ("rewards.weights={empathy: 1},{sense: 1}", "'sense' is no reward term"),
        (f"{TEMPERATURE}=0.6,.6", "are the same setting; leave one out"),
        ("rewards.weights=all rewards.weights.length=1,2", "rewards.weights.length is part of rewards.weights"),
    ],
)
def test_a_bad_setting_anywhere_in_a_grid_is_refused_before_any_run(text, message):
    with pytest.raises(UserError, match=message) as refused:
        check(text)
    assert "\n" not in str(refused.value)


def test_settings_are_told_in_words():
    assert sweep_grid.label({"rewards.weights": "-well_formed", TEMPERATURE: 0.2}) == "without well formed / 0.2"
    assert sweep_grid.written({"rewards.weights": {"a": 1.0}}) == "rewards.weights={a: 1.0}"


def test_runs_differ_by_what_is_not_varied_and_by_no_seed():
    grid = sweep_grid.parse(f"{TEMPERATURE}=0.2,0.6")
    other = sweep_grid.applied(BASE, {TEMPERATURE: 9})
    other["train_grpo"]["seeds"] = [1]
    assert sweep_grid.differences(BASE, other, grid) == []
    other["train_grpo"]["steps"] = 3
    assert sweep_grid.differences(BASE, other, grid) == ["train_grpo.steps"]
    left_out = {"rewards.weights": ["-length"]}
    heavier = sweep_grid.applied(BASE, {"rewards.weights.empathy": 9.0})
    assert sweep_grid.differences(BASE, heavier, left_out) == ["rewards.weights.empathy"]
