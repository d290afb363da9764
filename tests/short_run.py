"""The settings and models of a short GRPO run on a tiny policy, as fixtures."""

import pytest
import torch

from conftest import randomise
from gpro_empathy import rewards
from gpro_empathy.policy import loading
from gpro_empathy.scorer import empathy_scorer
from gpro_empathy.training import grpo_run

UTTERANCES = [
    "My dog died last night and I cannot sleep.", "the rent went up again", "I lost it all in the flood",
    "They closed the only hospital we had", "he never called back", "My gran lives alone near a canal",
]  # fmt: skip
GROUP = 3


@pytest.fixture
def config(settings):
    """Return settings of a run of 2 steps of 2 groups of 3, in two forward passes each.

    The steps do move the policy.
    """
    return settings.train_grpo.model_copy(
        update={
            "steps": 2, "prompts_per_step": 2, "num_generations": GROUP, "trained_generations": GROUP,
            "completions_per_forward": 3, "save_steps": 1, "advantage_on": "response",
            "learning_rate": 1e-2, "lr_scheduler": "constant", "warmup_ratio": 0.0, "optimizer": "adamw_torch",
            "kl_beta": 0.0, "clip_epsilon": 0.2, "loss_type": "dapo", "scale_rewards": "group", "temperature": 1.0,
            "top_p": 1.0, "max_grad_norm": 0.5, "weight_decay": 0.0,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def reward_config(settings):
    return settings.rewards.model_copy(
        update={
            "weights": {"empathy": 1.0, "semantic_similarity": 1.0, "length": 0.5}, "calibration": "batch",
            "calibration_temperature": 0.6, "aggregation": "sum_then_normalize", "free_words": 1, "limit_words": 20,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def reward_model(reward_config, settings, tmp_path_factory):
    """Load real terms: MiniLM for the similarity, and an untrained scorer for the empathy."""
    folder = tmp_path_factory.mktemp("models") / "scorer"
    stated = {"encoder": "random", "revision": None, "max_tokens": 32}
    torch.manual_seed(0)
    empathy_scorer.save(
        empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"})), folder, stated
    )
    return rewards.load(reward_config, folder.parent)


@pytest.fixture
def make_run(tiny_policy, policy_folder, tokenizer, config, reward_model):
    """Return a function that makes a fresh run, with some settings changed."""

    def make(reward_model=reward_model, policy_changes=None, seed=23, **changes):
        policy_config = tiny_policy.model_copy(update=policy_changes or {})
        model = loading.add_lora(loading.load_base(policy_config, policy_folder), policy_config, None)
        randomise(model)
        changed = config.model_copy(update=changes)
        return grpo_run.Run(model, tokenizer, reward_model, UTTERANCES, UTTERANCES[:2], changed, policy_config, seed)

    return make
