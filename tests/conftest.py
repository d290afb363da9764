"""Share fixtures among test files: a tiny random policy, and the settings that go with it."""

import os
import sys

# Before transformers is imported: a test that reached for a hub would hang or pass by luck.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

# A busy machine may let an example wait; no test asserts a time.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def on_the_processor(request, monkeypatch):
    """Let tests of small models run on the processor on a machine with a GPU too.

    Tests that are marked for the GPU are left as they are.
    """
    if request.node.get_closest_marker("gpu") is None and "torch" in sys.modules:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture(scope="session")
def settings():
    """Return params.yaml of the repository, validated."""
    from gpro_empathy import params

    return params.load_all(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def tiny_policy(settings):
    """Return the policy section of a two-layer Llama with random weights.

    It is not quantised, and in float32 on any machine.
    """
    return settings.policy.model_copy(
        update={
            "model": "random", "load_in_4bit": False, "dtype": "float32", "lora_rank": 4, "lora_alpha": 8.0,
            "max_completion_tokens": 8,
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def policy_folder(tiny_policy, tmp_path_factory):
    """Convert the tiny policy once; return its folder."""
    import torch

    from gpro_empathy.policy import conversion

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "policy"
    conversion.convert(tiny_policy, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(policy_folder):
    from gpro_empathy.policy import loading

    return loading.load_tokenizer(policy_folder)


@pytest.fixture
def base(tiny_policy, policy_folder):
    """Load the tiny policy's base model, anew for each test, as LoRA is put into it in place."""
    from gpro_empathy.policy import loading

    return loading.load_base(tiny_policy, policy_folder).eval()


@pytest.fixture
def lora(base, tiny_policy):
    """Return the tiny policy with LoRA matrices that do change its outputs."""
    from gpro_empathy.policy import loading

    model = loading.add_lora(base, tiny_policy, None)
    randomise(model)
    return model.eval()


@pytest.fixture(scope="session")
def context_scorer(settings):
    """Return an untrained scorer with a random encoder that reads turns after those before them."""
    import torch

    from gpro_empathy.scorer import empathy_scorer

    torch.manual_seed(0)
    config = settings.train_scorer.model_copy(update={"encoder": "random", "context_turns": 2, "max_tokens": 24})
    return empathy_scorer.build(config).eval()


def randomise(model, seed=0, scale=0.1):
    """Fill the LoRA matrices with small random numbers.

    New ones have B = 0, which hides most mistakes.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
