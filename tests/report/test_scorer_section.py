import copy

import pytest

import made_up
from gpro_empathy.report import scorer_section


def report(**mean):
    """Return the made-up report with other mean reactions to stock phrases, of both scorers."""
    found = copy.deepcopy(made_up.scorer())
    found["reward"]["stock_phrases"]["mean"] |= mean
    return found


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (made_up.estimate(0.1, 0.05), "a split by turn makes the scorer look better"),
        (made_up.estimate(0.1, 0.2), "no evidence, on these data"),
        (made_up.estimate(-0.1, 0.05), "makes the scorer look worse"),
        (made_up.estimate(0.1, None), "too few stories"),
    ],
)
def test_leak_is_claimed_only_where_the_interval_shows_it(difference, verdict):
    found = copy.deepcopy(made_up.scorer()["leak"])
    found["mean"]["difference"] = difference
    text = scorer_section.leak(found)
    assert [v for v in scorer_section.LEAK.values() if v in text] == [
        v for v in scorer_section.LEAK.values() if verdict in v
    ]
    assert r"\num{60} turns, about half of each" in text


def test_leak_that_was_not_measured_is_said_not_to_be():
    assert "cannot be measured" in scorer_section.leak(None)
    assert scorer_section.leak_table(None).count("--") == 12
    nothing = {"grouped": 0.5, "by_turn": None, "difference": made_up.estimate(None, None)}
    assert "not defined" in scorer_section.leak(made_up.scorer()["leak"] | {"mean": nothing})


def test_official_dev_figures_stand_beside_the_leak_where_they_are_known():
    dev = made_up.benchmark()["dev"]
    dev["pearson"]["empathy"]["estimate"] = 0.73
    lines = scorer_section.leak_table(made_up.scorer()["leak"], dev).splitlines()
    assert next(line for line in lines if line.startswith("empathy")).endswith(r"& \num{0.730} \\")
    assert lines[3].endswith(r"& dev \\")
    assert "dev" not in scorer_section.leak_table(made_up.scorer()["leak"])


def test_dev_figures_are_said_to_be_of_another_scorer_than_the_runs():
    text = scorer_section.dev_column(made_up.benchmark()["dev"])
    assert r"no scorer of this run, but the benchmark's (recipe \stage{long_context}), trained on the official" in text


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (made_up.estimate(0.1, 0.05), "it does better."),
        (made_up.estimate(0.1, 0.2), "no evidence of a difference."),
        (made_up.estimate(-0.1, 0.05), "it does worse."),
        (made_up.estimate(0.1, None), "too few stories to judge it."),
    ],
)
def test_a_recipe_is_said_to_beat_another_only_where_the_interval_shows_it(difference, verdict):
    found = made_up.benchmark()
    found["folds"]["stories"]["long_context"]["difference"]["mean"] = difference
    text = scorer_section.benchmark(found)
    assert f"{verdict} Rated by others" in text
    assert "over the stories of the training file" in text
    assert r"a mean correlation of \num{0.660} {[}\num{0.630}, \num{0.690}{]}; cross-validated" in text
    assert r"it reaches \num{0.720} {[}\num{0.700}, \num{0.740}{]} and the recipe \stage{published} \num{0.710}" in text


def test_benchmark_without_a_cross_validation_of_its_recipe_makes_no_comparison():
    found = made_up.benchmark()
    del found["folds"]["stories"]["long_context"]
    assert r"a mean correlation of \num{0.660} {[}\num{0.630}, \num{0.690}{]}. Rated by" in scorer_section.benchmark(
        found
    )
    found["dev"]["recipe"] = "published"
    assert "cross-validated" not in scorer_section.benchmark(found)


def test_unit_that_the_benchmarks_intervals_resample_is_said_where_it_is_not_stories():
    assert (
        scorer_section.benchmark_unit({"resampled": "conversations"})
        == "; those of the benchmark resample conversations"
    )
    assert scorer_section.benchmark_unit({"resampled": "stories"}) == ""
    assert scorer_section.benchmark_unit(None) == ""


def test_what_is_known_of_the_test_file_is_of_the_recipe_that_was_rated_there():
    found = made_up.benchmark()
    text = scorer_section.benchmark(found)
    assert (
        r"the recipe \stage{alone} reaches a mean of \num{0.600}, where on the development file it has \num{0.640}"
        in text
    )
    found["test"]["recipe"] = "long_context"
    assert r"not public, it reaches a mean of \num{0.600}" in scorer_section.benchmark(found)
    assert "figures on the development file flatter" in text
    found["test"]["dev_mean"] = 0.5
    assert "flatter" not in scorer_section.benchmark(found)
    assert "nothing is known" in scorer_section.benchmark(found | {"test": None})


def test_a_dev_file_that_was_not_rated_is_said_not_to_be():
    found = made_up.benchmark() | {"dev": None}
    assert "has not been rated" in scorer_section.benchmark(found)
    assert scorer_section.dev_column(None) == scorer_section.benchmark(found)


@pytest.mark.parametrize(
    ("change", "difference", "verdict"),
    [
        (made_up.estimate(0.4, 0.1), made_up.estimate(0.5, 0.1), "had by a habit of speech"),
        (made_up.estimate(0.0, 0.1), made_up.estimate(0.5, 0.1), "is not shown to raise the score"),
        (made_up.estimate(0.4, 0.1), made_up.estimate(0.0, 0.1), "no evidence that it is worth more"),
        (made_up.estimate(0.4, 0.1), made_up.estimate(-0.5, 0.1), "worth less than the neutral sentence"),
        (made_up.estimate(0.4, None), made_up.estimate(0.5, None), "too few stories"),
    ],
)
def test_verdict_on_stock_phrases_follows_the_intervals(change, difference, verdict):
    assert verdict in scorer_section.stock_phrases(report(change=change, difference=difference))


@pytest.mark.parametrize(
    ("slope", "verdict"), [(1.5, "spread too little"), (1.1, "no evidence"), (0.5, "spread too far"), (None, "too few")]
)
def test_verdict_on_the_slope_follows_its_interval(slope, verdict):
    found = copy.deepcopy(made_up.scorer())
    found["reward"]["calibration"]["slope"] = made_up.estimate(
        1.1 if slope is None else slope, None if slope is None else 0.2
    )
    assert verdict in scorer_section.slopes(found).partition("Whatever")[2].split("held-out scorer")[0]


def test_mean_bias_is_that_of_the_groups_by_length():
    found = copy.deepcopy(made_up.scorer())
    assert r"is \num{+0.03} for the reward's scorer and" in scorer_section.slopes(found)
    found["audit"]["calibration"]["by_words"] = []
    assert "and not defined for the held-out scorer" in scorer_section.slopes(found)


def test_biases_are_named_where_their_interval_excludes_zero():
    calibration = copy.deepcopy(made_up.scorer()["reward"]["calibration"])
    assert scorer_section.biases(calibration).endswith(r"for turns of 3\textendash{}9 words (\num{+0.20}).")
    for row in calibration["by_words"]:
        row["bias"]["low"] = -1.0
    assert scorer_section.biases(calibration).startswith("No group by length or polarity")


def test_tables_have_a_row_for_every_group_and_phrase():
    scorer = made_up.scorer()
    rows = [line for line in scorer_section.calibration_table(scorer).splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 9
    assert rows[1] == r"empathy 0 & \num{40} & \num{+1.40} & \num{0.50} & \num{+1.40} & \num{0.50} \\"
    rows = [line for line in scorer_section.phrases_table(scorer).splitlines() if line.endswith(r"\\")]
    assert rows[1].startswith("I'm so sorry to hear that. & ")
    assert rows[-1].startswith("mean & ")


@pytest.mark.parametrize(
    ("layers", "lora_rank", "words"),
    [
        (4, 8, r", of which the first \num{4} layers are kept, with low-rank adapters"),
        (None, 0, " with its layers trained further"),
    ],
)
def test_what_is_kept_and_trained_of_the_encoder_is_said(settings, layers, lora_rank, words):
    config = settings.train_scorer.model_copy(update={"layers": layers, "lora_rank": lora_rank})
    assert scorer_section.trained(config) == words
