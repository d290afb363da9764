"""The advantages that the analysis computes from a run's scores, against those TRL trained on."""

import itertools

import numpy as np
import pandas as pd
import pytest

from gpro_empathy import calibration, params, rewards
from gpro_empathy.analysis import temperature_effect
from gpro_empathy.response_format import messages
from gpro_empathy.training import grpo_run, training_log
from short_run import GROUP, UTTERANCES, config, make_run, reward_config, reward_model  # noqa: F401  Fixtures.

RAW = {
    "empathy": np.array([1.0, 2.5, 4.0, 2.0, 2.2, 2.9]),
    "semantic_similarity": np.array([0.9, 0.2, 0.4, 0.3, 0.8, 0.1]),
    "well_formed": np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
}
WEIGHTS = {"empathy": 2.0, "semantic_similarity": 0.5, "well_formed": 1.0}
REFERENCE = {"empathy": (1.0, 0.8), "semantic_similarity": (0.3, 0.2)}


def choices(section, name):
    """Return what params.yaml offers for a setting."""
    return section.model_fields[name].annotation.__args__


EVERY_COMBINATION = list(
    itertools.product(
        choices(params.Rewards, "calibration"),
        choices(params.Rewards, "aggregation"),
        choices(params.TrainGrpo, "scale_rewards"),
    )
)


def test_every_combination_is_compared():
    assert len(EVERY_COMBINATION) == 12


@pytest.mark.parametrize(("mode", "aggregation", "scale_rewards"), EVERY_COMBINATION)
def test_analysis_has_the_advantages_of_training(
    make_run, reward_config, tmp_path, mode, aggregation, scale_rewards
):  # fmt: skip
    """TRL divides by the sample standard deviation plus 1e-4, the analysis by the population's.

    So they differ by a factor that the number of samples gives, and by less than three thousandths
    of the largest, as no spread comes near 1e-4.
    """
    chosen = reward_config.model_copy(
        update={"weights": WEIGHTS, "calibration": mode, "aggregation": aggregation, "calibration_temperature": 0.8}
    )
    terms = {name: lambda utterances, responses, raw_B=raw_B: raw_B for name, raw_B in RAW.items()}
    model = rewards.RewardModel(chosen, terms, REFERENCE)
    recorder = training_log.Recorder(model, GROUP)
    run = make_run(model, completions_per_forward=2 * GROUP, scale_rewards=scale_rewards)
    trainer = grpo_run._trainer(run, recorder, tmp_path / "checkpoints")
    trainer.model.train()
    step = [{"prompt": messages(text)} for text in UTTERANCES[:2] for _ in range(GROUP)]
    trained_B = trainer._generate_and_score_completions(step)["advantages"].numpy()

    table = pd.DataFrame(recorder.groups).assign(seed=23)
    reward = temperature_effect.Reward(chosen.weights, aggregation, scale_rewards, REFERENCE)
    _, analysed_B = temperature_effect.score(table, reward, chosen.calibration_temperature, mode)
    divided_over = {"group": GROUP, "batch": 2 * GROUP, "none": None}[scale_rewards]
    if aggregation == "normalize_then_sum":
        divided_over = 2 * GROUP
    factor = np.sqrt((divided_over - 1) / divided_over) if divided_over else 1.0
    assert trained_B == pytest.approx(factor * analysed_B, rel=0, abs=3e-3 * np.abs(analysed_B).max())


def test_combinations_that_differ_give_other_advantages():
    """Else the comparison could not tell a wrong one. Compared by their shape: the largest is 1."""
    shapes = []
    for mode, aggregation, scale_rewards in EVERY_COMBINATION:
        scores = calibration.calibrated(RAW, 0.8, None if mode == "batch" else REFERENCE)
        advantage_B = calibration.advantages(
            scores, WEIGHTS, [0] * GROUP + [1] * GROUP, [0] * 6, aggregation=aggregation, scale_rewards=scale_rewards
        )
        shape_B = advantage_B / np.abs(advantage_B).max()
        if not any(np.allclose(shape_B, other_B, atol=5e-3) for other_B in shapes):
            shapes.append(shape_B)
    # batch and none differ by a factor; for terms standardised one by one scale_rewards is nothing.
    assert len(shapes) == 2 * (2 + 1)
