import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import LABELS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("scorer_benchmark", ROOT / "bench/scorer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up(conversations=40, size=6):
    """Return turns with labels, and predictions that follow them, of a good scorer and of a worse one."""
    rng = np.random.default_rng(0)
    label_B3 = rng.uniform([0, 0, 0], [5, 2, 5], (conversations * size, 3))
    turns = [
        Turn(f"c{i // size}", i % size, "text", (), *map(float, labels)) for i, labels in enumerate(label_B3)
    ]  # fmt: skip
    good, worse = (label_B3 + rng.normal(0, spread, label_B3.shape) for spread in (0.5, 2.0))
    return turns, label_B3, good, worse


def test_conversations_stay_in_one_fold_and_folds_are_of_one_size(bench):
    turns = made_up()[0]
    fold_B = bench.folds(turns)
    folds = {turn.conversation: set() for turn in turns}
    for turn, fold in zip(turns, fold_B, strict=True):
        folds[turn.conversation].add(int(fold))
    assert all(len(own) == 1 for own in folds.values())
    assert np.bincount(fold_B).tolist() == [len(turns) // bench.N_FOLDS] * bench.N_FOLDS


def test_accuracy_agrees_with_scipy_and_its_interval_holds_it(bench):
    turns, label_B3, good, _ = made_up()
    found = bench.accuracy(turns, good)
    expected = [stats.pearsonr(label_B3[:, k], good[:, k]).statistic for k in range(3)]
    for name, value in zip((*LABELS, "mean"), (*expected, np.mean(expected)), strict=True):
        assert found["pearson"][name]["estimate"] == pytest.approx(value)
        assert found["pearson"][name]["low"] < value < found["pearson"][name]["high"]
    assert found["mae"]["empathy"] == pytest.approx(np.abs(good - label_B3)[:, 2].mean())


def test_difference_is_of_the_two_recipes_and_its_interval_tells_them_apart(bench):
    turns, label_B3, good, worse = made_up()
    found = bench.compare(turns, {"published": worse, "context": good})
    means = [np.mean([stats.pearsonr(label_B3[:, k], p[:, k]).statistic for k in range(3)]) for p in (good, worse)]
    assert found["context"]["difference"]["mean"]["estimate"] == pytest.approx(means[0] - means[1])
    assert found["context"]["difference"]["mean"]["low"] > 0
    assert found["published"]["difference"]["mean"]["estimate"] == 0


def test_turns_without_a_label_do_not_count(bench):
    turns, _, good, _ = made_up()
    odd = Turn("c0", 99, "text", (), None, 1.0, 1.0)
    with_odd = bench.accuracy([*turns, odd], np.vstack([good, [[9.0, 9.0, 9.0]]]))
    assert with_odd["mae"] == bench.accuracy(turns, good)["mae"]


def test_tables_show_every_recipe_and_the_dev_file(bench):
    turns, _, good, worse = made_up()
    folds = bench.compare(turns, {"published": worse, "context": good})
    dev = {"recipe": "context", "train_seconds": 600, "turns_per_second": 321} | bench.accuracy(turns, good)
    text = bench.tables({"folds": folds, "dev": dev}, {"published": {"epochs": 5}, "context": {"context_turns": 4}})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows if "[" in row] == ["| published", "| context", "| Pearson"]
    assert "context_turns 4" in text
    assert "Training took 10 min, and the scorer rates 321 turns a second." in text


def test_every_recipe_is_valid_and_one_is_the_baseline(bench, monkeypatch):
    import yaml

    monkeypatch.chdir(ROOT)
    recipes = yaml.safe_load((ROOT / "bench/scorer.yaml").read_text())
    assert recipes.pop("benchmark") in recipes
    assert recipes[bench.BASELINE]["context_turns"] == 0
    for name in recipes:
        assert {config.encoder for config in bench.members(recipes, name)} == {"all-minilm-l6-v2"}
    assert bench.members(recipes, "average") == [
        config for name in recipes["average"]["average"] for config in bench.members(recipes, name)
    ]


def test_folds_are_of_scorers_that_did_not_see_them_and_are_averaged_and_kept(bench, monkeypatch, tmp_path):
    turns, _, good, worse = made_up()
    fold_B = bench.folds(turns)
    asked = []

    def predict(turns, held_out_B, config):
        asked.append((config.context_turns, int(held_out_B.sum())))
        assert len(set(fold_B[held_out_B])) == 1
        return (good if config.context_turns else worse)[held_out_B]

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(bench, "predict_fold", predict)
    monkeypatch.setattr(bench, "FOLDS", tmp_path)
    recipes = {"alone": {"context_turns": 0}, "after": {"context_turns": 2}, "both": {"average": ["alone", "after"]}}
    first = bench.out_of_fold(turns, bench.members(recipes, "alone"), 1)
    assert (first[fold_B == 0] == worse[fold_B == 0]).all()
    assert np.isnan(first[fold_B == 1]).all()
    assert bench.out_of_fold(turns, bench.members(recipes, "both"), 2) == pytest.approx((good + worse) / 2)
    assert asked == [(0, 120), (0, 120), (2, 120), (2, 120)]
    compared = bench.compare(turns, {"published": good, "alone": first})
    assert (compared["published"]["turns"], compared["alone"]["turns"]) == (240, 120)
    same = bench.accuracy(turns, np.where(np.isnan(first), np.nan, good))["pearson"]["mean"]["estimate"]
    assert compared["alone"]["difference"]["mean"]["estimate"] == pytest.approx(
        compared["alone"]["pearson"]["mean"]["estimate"] - same
    )
