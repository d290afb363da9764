import importlib

import pytest
import yaml

from gpro_empathy import files
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, conversion, loading, random_model


@pytest.fixture
def saved(lora, policy_folder, tmp_path):
    adapters.save_with_card(lora, tmp_path / "adapter", "", base=policy_folder)
    return tmp_path / "adapter"


def copy_of(policy_folder, folder, **changes):
    """Make a folder of a policy whose source differs."""
    files.write_json(folder / adapters.SOURCE, files.read_json(policy_folder / adapters.SOURCE) | changes)
    return folder


def test_adapter_of_the_base_is_accepted_with_and_without_a_note_of_it(saved, policy_folder):
    assert adapters.check_base(saved, policy_folder) is None
    (saved / adapters.SOURCE).unlink()
    assert adapters.check_base(saved, policy_folder) is None


def test_adapter_of_a_base_of_another_name_is_refused_naming_both(saved, policy_folder, tmp_path):
    other = copy_of(policy_folder, tmp_path / "other", name="meta-llama/Llama-3.1-8B", revision="abc")
    with pytest.raises(UserError, match=r"\brandom\b.*\bmeta-llama/Llama-3\.1-8B\b.*\babc\b"):
        adapters.check_base(saved, other)


def test_adapter_of_another_shape_is_refused_naming_the_matrix(
    saved, tiny_policy, policy_folder, tmp_path, monkeypatch
):
    (saved / adapters.SOURCE).unlink()
    inner = random_model.LlamaConfig
    monkeypatch.setattr(random_model, "LlamaConfig", lambda **values: inner(**values | {"intermediate_size": 48}))
    conversion.convert(tiny_policy, tmp_path / "other")
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.\w+\.weight\b.*\b64\b.*\brandom\b.*\b48\b"):
        adapters.check_base(saved, tmp_path / "other")


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (1, r"model\.layers\.1\..*\brandom\b.*missing"),
        (3, r"model\.layers\.2\..*\brandom\b"),
    ],
)
def test_adapter_of_a_deeper_or_shallower_base_is_refused(layers, words, saved, tiny_policy, tmp_path, monkeypatch):
    (saved / adapters.SOURCE).unlink()
    inner = random_model.LlamaConfig
    monkeypatch.setattr(random_model, "LlamaConfig", lambda **values: inner(**values | {"num_hidden_layers": layers}))
    conversion.convert(tiny_policy, tmp_path / "other")
    with pytest.raises(UserError, match=words):
        adapters.check_base(saved, tmp_path / "other")


def test_a_folder_without_an_adapter_is_passed_over(policy_folder, tmp_path):
    assert adapters.check_adapters([tmp_path], policy_folder) is None


@pytest.mark.parametrize(("stage", "place"), [("train_grpo", "warm_start"), ("rollout", "tuned/seed-23")])
def test_stage_refuses_an_adapter_of_another_base_before_it_loads_a_model(
    stage, place, lora, settings, tiny_policy, policy_folder, tmp_path, monkeypatch
):
    other = copy_of(policy_folder, tmp_path / "other", name="another/base")
    adapters.save_with_card(lora, tmp_path / "models" / place, "", base=other)
    (tmp_path / "models/policy").symlink_to(policy_folder)
    values = settings.model_copy(update={"policy": tiny_policy}).model_dump()
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(values))
    files.write_json(tmp_path / "reports/training/settings.json", {"seeds": [23]})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_base", lambda *_: pytest.fail("the base is loaded"))
    main = importlib.import_module(f"gpro_empathy.stages.{stage}").main
    with pytest.raises(UserError, match=rf"models/{place}: .*\banother/base\b.*\brandom\b"):
        main()
