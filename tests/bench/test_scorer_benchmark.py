import csv
import importlib.util
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpro_empathy import __main__ as command_line
from gpro_empathy import files, packaged_models
from gpro_empathy.data import wassa
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import empathy_scorer

ROOT = Path(__file__).parents[2]
OFFICIAL = """id,article_id,conversation_id,turn_id,speaker,text,person_id_1,person_id_2,Emotion,EmotionalPolarity,Empathy
0,35,1,0,"Person 1","my dog died","p019","p012",3,2,1
1,35,1,1,"Person 2","Oh \\"no\\", I am so sorry","p019","p012",4,1.6667,4
2,35,1,2,"Person 1","thanks","p019","p012",1,0,2
3,35,2,0,"Person 1","hi","p001","p002",0.3333,0.6667,0
4,35,2,1,"Person 2","hello, did you read it?","p001","p002",0,1,0.3333
"""
SCORES = ("Emotion", "EmotionalPolarity", "Empathy")


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("scorer_benchmark", ROOT / "bench/scorer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up(conversations=40, size=6):
    """Return turns with labels, and predictions of a good and of a worse scorer.

    The predictions follow the labels.
    """
    rng = np.random.default_rng(0)
    label_B3 = rng.uniform([0, 0, 0], [5, 2, 5], (conversations * size, 3))
    turns = [
        Turn(f"c{i // size}", i % size, "text", (), *map(float, labels)) for i, labels in enumerate(label_B3)
    ]  # fmt: skip
    good, worse = (label_B3 + rng.normal(0, spread, label_B3.shape) for spread in (0.5, 2.0))
    return turns, label_B3, good, worse


@pytest.mark.parametrize("named", [False, True])
def test_stories_stay_in_one_fold_and_folds_are_of_one_size(bench, named):
    turns = made_up()[0]
    if named:  # four conversations on each of ten stories, next to each other or not
        turns = [replace(turn, story=f"article {int(turn.conversation[1:]) % 10}") for turn in turns]
    fold_B = bench.folds(turns)
    folds = {turn.story: set() for turn in turns}
    for turn, fold in zip(turns, fold_B, strict=True):
        folds[turn.story].add(int(fold))
    assert len(folds) == (10 if named else 40)
    assert all(len(own) == 1 for own in folds.values())
    assert np.bincount(fold_B).tolist() == [len(turns) // bench.N_FOLDS] * bench.N_FOLDS
    assert bench.folds_over(turns) == ("stories" if named else "conversations")


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
    found = bench.compare(turns, {"published": worse, "context": good}, "published")
    means = [np.mean([stats.pearsonr(label_B3[:, k], p[:, k]).statistic for k in range(3)]) for p in (good, worse)]
    assert found["context"]["difference"]["mean"]["estimate"] == pytest.approx(means[0] - means[1])
    assert found["context"]["difference"]["mean"]["low"] > 0
    assert found["published"]["difference"]["mean"]["estimate"] == 0
    assert {row["less"] for row in found.values()} == {"published"}


def test_intervals_resample_stories(bench):
    """Forty turns stand ten times each, which tells nothing more where copies are of one story."""
    turns, _, _, worse = made_up(conversations=40, size=1)
    many = [
        replace(turn, conversation=f"{turn.conversation}-{i}", story=turn.story) for turn in turns for i in range(10)
    ]
    apart = [replace(turn, story=f"article {i}") for i, turn in enumerate(many)]
    width = {}
    for name, copies in (("together", many), ("apart", apart)):
        mean = bench.accuracy(copies, worse.repeat(10, axis=0))["pearson"]["mean"]
        width[name] = mean["high"] - mean["low"]
    assert width["together"] > 2 * width["apart"]


def test_turns_without_a_label_do_not_count(bench):
    turns, _, good, _ = made_up()
    odd = Turn("c0", 99, "text", (), None, 1.0, 1.0)
    with_odd = bench.accuracy([*turns, odd], np.vstack([good, [[9.0, 9.0, 9.0]]]))
    assert with_odd["mae"] == bench.accuracy(turns, good)["mae"]


def test_tables_show_every_recipe_and_the_dev_file(bench):
    turns, _, good, worse = made_up()
    folds = bench.compare(turns, {"published": worse, "context": good}, "published")
    dev = {
        "recipe": "context", "train_seconds": 600, "turns_per_second": 321, "bfloat16": False, "resampled": "stories",
    }  # fmt: skip
    test = {"recipe": "alone", "dev_mean": 0.64, "pearson": {"emotion": 0.6, "polarity": 0.65, "empathy": 0.55}}
    results = {"folds": {"stories": folds}, "dev": dev | bench.accuracy(turns, good), "test": None}
    text = bench.tables(results, {"published": {"epochs": 5}, "context": {"context_turns": 4}})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows if "[" in row] == ["| published", "| context", "| Pearson"]
    assert "context_turns 4" in text
    assert "less `published`: +0." in rows[3]
    assert "less `published`" not in rows[2]
    assert (
        "240 turns; intervals resample stories. Training took 10 min, and the scorer rates 321 turns a second." in text
    )
    assert "over the stories of the official train file" in text
    assert "half of the stories, which intervals resample" in text
    assert "test file" not in text
    assert "| Pearson | 0.600 | 0.650 | 0.550 | 0.600 |" in bench.tables(results | {"test": test}, {})
    both = bench.tables(results | {"folds": {"stories": folds, "conversations": folds}}, {"context": {}})
    assert both.index("over the stories of") < both.index("over the conversations of")
    results["dev"]["bfloat16"] = True
    assert "10 min, in part in bfloat16, and" in bench.tables(results, {})


def test_every_recipe_is_valid_and_the_quick_one_takes_the_small_encoder(bench, monkeypatch):
    import yaml

    monkeypatch.chdir(ROOT)
    recipes = yaml.safe_load((ROOT / "bench/scorer.yaml").read_text())
    full, quick = recipes.pop("benchmark"), recipes.pop("quick")
    assert "all-mpnet-base-v2" in {config.encoder for config in bench.members(recipes, full)}
    assert {config.encoder for config in bench.members(recipes, quick)} == {"all-minilm-l6-v2"}
    for name in recipes:
        assert {config.encoder for config in bench.members(recipes, name)} <= set(packaged_models.ENCODERS)
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
    compared = bench.compare(turns, {"published": good, "alone": first}, "published")
    assert (compared["published"]["turns"], compared["alone"]["turns"]) == (240, 120)
    same = bench.accuracy(turns, np.where(np.isnan(first), np.nan, good))["pearson"]["mean"]["estimate"]
    assert compared["alone"]["difference"]["mean"]["estimate"] == pytest.approx(
        compared["alone"]["pearson"]["mean"]["estimate"] - same
    )


def test_predictions_that_were_kept_are_not_taken_for_those_of_other_folds(bench, monkeypatch, tmp_path):
    turns, _, good, _ = made_up()
    asked = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(bench, "predict_fold", lambda turns, held_B, config: asked.append(held_B) or good[held_B])
    monkeypatch.setattr(bench, "FOLDS", tmp_path)
    configs = bench.members({"alone": {"context_turns": 0}}, "alone")
    bench.out_of_fold(turns, configs, 2)
    bench.out_of_fold(turns, configs, 2)
    assert len(asked) == 2
    bench.out_of_fold([replace(turn, story=f"article {turn.turn}") for turn in turns], configs, 2)
    assert len(asked) == 4


@pytest.fixture
def official(bench, monkeypatch, tmp_path):
    """Put official files, recipes and an empty package of MPNET's into a folder, and go there.

    Returns a function that runs the benchmark's command line.
    """
    for name in (bench.TRAIN, bench.DEV):
        (tmp_path / name).write_text(OFFICIAL)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    small = {"encoder": "random", "layers": None, "epochs": 1, "max_tokens": 32, "lora_rank": 4}
    recipes = {
        "published": small,
        "large": {"encoder": packaged_models.MPNET},
        "benchmark": "large",
        "quick": "published",
    }
    files.write_json(tmp_path / "scorer.yaml", recipes)
    for name, file in (("RECIPES", "scorer.yaml"), ("RESULTS", "scorer.json"), ("TABLES", "scorer.md")):
        monkeypatch.setattr(bench, name, tmp_path / file)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["scorer.py", arguments[0], str(tmp_path), *arguments[1:]])
        bench.main()
        return files.read_json(tmp_path / "scorer.json")

    return run


def test_quick_benchmark_asks_for_no_large_encoder_and_the_full_one_before_it_trains(bench, official, monkeypatch):
    monkeypatch.setattr(packaged_models, "SHARED", Path("share"))
    monkeypatch.setattr(packaged_models, "PARTS", (("no_such_part", "x", ""),))
    monkeypatch.setattr(bench, "MEMORY", {packaged_models.MPNET: 0})
    assert official("benchmark", "--quick")["dev"]["recipe"] == "published"
    monkeypatch.setattr(bench.fitting, "train", lambda *arguments, **named: pytest.fail("it trained"))
    for arguments in (["benchmark"], ["cross-validate", "published", "large"]):
        with pytest.raises(UserError, match="no_such_part is not installed; run `make mpnet`"):
            official(*arguments)


def test_a_machine_of_6_gib_is_refused_the_large_encoder_alone(bench, official, monkeypatch):
    memory = type("Memory", (), {"available": 6 * 2**30})
    monkeypatch.setattr(bench.psutil, "virtual_memory", memory)
    with pytest.raises(UserError, match=r"^all-mpnet-base-v2: .* 8 GiB .* 6\.0 are free.*ARGS=--quick.*$"):
        official("benchmark")
    assert not Path("models").exists()
    assert official("benchmark", "--quick")["dev"]["turns"] == 5


def test_recipes_that_were_compared_over_conversations_stand_apart_from_others(official):
    Path("trac2_CONVT_train.csv").write_text(OFFICIAL.replace(",35,", ",NULL,"))
    assert set(official("cross-validate", "published")["folds"]) == {"conversations"}
    Path("trac2_CONVT_train.csv").write_text(OFFICIAL.replace("3,35,2", "3,36,2").replace("4,35,2", "4,36,2"))
    found = official("cross-validate", "published")["folds"]
    assert {over: list(compared) for over, compared in found.items()} == {
        "conversations": ["published"], "stories": ["published"],
    }  # fmt: skip


# The command that uses what the benchmark saves


def kinds(settings):
    """Return the settings of every kind of scorer that a recipe can name, small, by name."""
    base = {"encoder": "random", "layers": None, "epochs": 1, "batch_size": 4, "max_tokens": 32, "lora_rank": 4}
    alone, after, whole = (
        settings.train_scorer.model_copy(update=base | changes)
        for changes in ({"context_turns": 0}, {"context_turns": 2}, {"context_turns": 1, "lora_rank": 0})
    )
    return {
        "alone": [alone],
        "context": [after],
        "whole": [whole],
        "average of single turns": [alone, alone.model_copy(update={"seed": 1})],
        "average of contexts": [after, whole],
        "average of all": [alone, after, whole],
    }


def saved(bench, configs, folder, monkeypatch):
    """Let the benchmark train and save a scorer in `folder`; return the turns it was trained on."""
    monkeypatch.chdir(folder)
    (folder / "turns.csv").write_text(OFFICIAL)
    (folder / "texts.csv").write_text("text\nmy dog died\nthanks\n")
    turns = wassa.read_labelled(folder / "turns.csv")
    measured = bench.benchmark(turns, turns, configs)
    assert measured["turns_per_second"] > 0
    return turns


def rated(text):
    return np.array([[float(row[name]) for name in SCORES] for row in csv.DictReader(io.StringIO(text))])


@pytest.mark.parametrize("kind", range(6))
def test_every_scorer_that_the_benchmark_saves_rates_the_official_layout_and_plain_texts(
    bench, settings, kind, tmp_path, monkeypatch, capsys
):
    name, configs = list(kinds(settings).items())[kind]
    turns = saved(bench, configs, tmp_path, monkeypatch)
    model = empathy_scorer.load(bench.MODEL)
    expected = {
        "turns.csv": empathy_scorer.score_turns(model, turns),
        "texts.csv": model.score(["my dog died", "thanks"], [(), ()]),
    }
    for source, scores_B3 in expected.items():
        arguments = ["gpro_empathy", "score", source, "--output", "out.csv", "--model", str(bench.MODEL)]
        monkeypatch.setattr(sys, "argv", arguments)
        command_line.main()
        assert rated(Path("out.csv").read_text()) == pytest.approx(scores_B3, abs=2e-4), (name, source)
        noted = "every turn is scored without context" in capsys.readouterr().err
        assert noted == (source == "texts.csv" and any(config.context_turns for config in configs))


@pytest.mark.slow
def test_average_of_the_benchmark_is_used_from_a_shell(bench, settings, tmp_path, monkeypatch):
    turns = saved(bench, kinds(settings)["average of all"], tmp_path, monkeypatch)
    command = [sys.executable, "-m", "gpro_empathy", "score", "turns.csv", "--output", "-", "--model", bench.MODEL]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert rated(done.stdout) == pytest.approx(
        empathy_scorer.score_turns(empathy_scorer.load(bench.MODEL), turns), abs=2e-4
    )
