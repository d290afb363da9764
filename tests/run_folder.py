"""What a finished run leaves on disk, made up: for tests of the tools that use it."""

import yaml

import made_up
from conftest import randomise
from gpro_empathy import calibration, files


def write_run(root, config, *, seeds):
    """Write params.yaml and what the training reports of a run with these settings; no model."""
    files.write_text(root / "params.yaml", yaml.safe_dump(config.model_dump()))
    files.write_json(root / "reports/training/settings.json", {"model": config.policy.model, "seeds": seeds})
    reference = {
        "empathy": {"mean": 2.0, "sd": 0.5},
        "likelihood": {"mean": -1.2, "sd": 0.3},
        "reader_empathy": {"mean": 0.5, "sd": 0.3},
        "reader_sense": {"mean": 0.6, "sd": 0.2},
        "semantic_similarity": {"mean": 0.3, "sd": 0.1},
        **{term: {"mean": 0.0, "sd": 0.3} for term in made_up.AROUND_ZERO},
    }
    scored = {*calibration.ALWAYS_SCORED, *config.rewards.weights}
    reference = {term: statistics for term, statistics in reference.items() if term in scored}
    files.write_json(root / "reports/training/reference.json", reference)


def write_adapter(config, base, folder, seed):
    """Write an adapter with random LoRA matrices for a converted policy."""
    from gpro_empathy.policy import adapters, loading

    model = loading.add_lora(loading.load_base(config, base), config, None)
    randomise(model, seed=seed, scale=0.5)
    adapters.save_with_card(model, folder, "card")
