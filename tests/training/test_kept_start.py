from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpro_empathy import files, params
from gpro_empathy.data import demonstrations, sources
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, loading
from gpro_empathy.tools import keep_warm_start
from gpro_empathy.training import kept_start, sft

ROOT = Path(__file__).parents[2]
ROWS = [{"utterance": "My dog died.", "response": "I am sorry."}]


@pytest.fixture
def wanted(settings):
    return kept_start.decides(settings.policy, settings.warm_start, ROWS)


@pytest.fixture
def folder(tmp_path, wanted):
    for name in (adapters.CONFIGURATION, adapters.WEIGHTS):
        (tmp_path / name).write_text("{}")
    files.write_json(tmp_path / kept_start.RECORD, {"decided_by": wanted, "losses": {"loss_first": 2.0}})
    return tmp_path


def test_an_adapter_of_the_same_settings_and_demonstrations_serves(folder, wanted):
    assert kept_start.check(wanted, folder)["losses"] == {"loss_first": 2.0}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("warm_start", "epochs", 7), ("warm_start", "learning_rate", 5e-4), ("policy", "lora_rank", 4)],
)
def test_another_setting_is_refused_with_its_name_and_both_values(folder, settings, section, key, value):
    changed = settings.model_copy(update={section: getattr(settings, section).model_copy(update={key: value})})
    wanted = kept_start.decides(changed.policy, changed.warm_start, ROWS)
    kept = getattr(getattr(settings, section), key)
    with pytest.raises(UserError, match=rf"{section}\.{key}\b.*{kept}.*{value}.*warm_start\.kept"):
        kept_start.check(wanted, folder)


def test_other_demonstrations_are_refused(folder, settings):
    wanted = kept_start.decides(settings.policy, settings.warm_start, [ROWS[0] | {"response": "I am so sorry."}])
    with pytest.raises(UserError, match=r"demonstrations.*warm_start\.kept"):
        kept_start.check(wanted, folder)


@pytest.mark.parametrize("name", [adapters.CONFIGURATION, adapters.WEIGHTS, kept_start.RECORD])
def test_a_missing_file_is_named(folder, wanted, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: .*make warm-start"):
        kept_start.check(wanted, folder)


def test_the_kept_warm_start_is_of_the_committed_settings_and_demonstrations(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = params.load_all()
    train = demonstrations.load(settings.prepare, sources.load(settings.prepare))["train"]
    assert settings.warm_start.kept
    record = kept_start.check(kept_start.decides(settings.policy, settings.warm_start, train))
    assert record["losses"]["loss_last"] < record["losses"]["loss_first"]
    assert (kept_start.FOLDER / adapters.WEIGHTS).stat().st_size <= 20e6


def test_what_is_kept_is_read_back_rounded_to_bfloat16(base, tokenizer, tiny_policy, settings, policy_folder, tmp_path):
    config = settings.warm_start.model_copy(update={"demonstrations": 1, "epochs": 2, "batch_size": 1})
    model, losses = sft.train(base, tokenizer, ROWS, config, tiny_policy)
    record = sft.summary(model, tokenizer, losses, ROWS)
    trained = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    keep_warm_start.keep(model, record, "card", policy_folder, tmp_path / "kept")
    stored = load_file(tmp_path / "kept" / adapters.WEIGHTS)
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert files.read_json(tmp_path / "kept" / kept_start.RECORD)["losses"]["loss_validation"] > 0
    again = loading.add_lora(loading.load_base(tiny_policy, policy_folder), tiny_policy, tmp_path / "kept")
    for name, value in again.named_parameters():
        if value.requires_grad:
            assert value.dtype == torch.float32
            assert torch.equal(value, trained[name].to(torch.bfloat16).float()), name
