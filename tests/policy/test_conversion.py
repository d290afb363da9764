import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from gpro_empathy import files, packaged_models
from gpro_empathy.files import UserError
from gpro_empathy.policy import conversion

IDS = torch.tensor([[5, 9, 200, 7, 31, 8], [11, 12, 13, 14, 15, 16]])


def test_converted_folder_loads_as_any_model_of_transformers_does(policy_folder, base):
    model = AutoModelForCausalLM.from_pretrained(policy_folder).eval()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, base(IDS).logits)
    assert json.loads((policy_folder / "source.json").read_text()) == {
        "model": None,
        "revision": None,
        "name": "random",
    }


def test_refuses_a_hub_model_that_cannot_be_reached_and_leaves_no_folder(tiny_policy, tmp_path):
    config = tiny_policy.model_copy(update={"model": "nobody/nothing-of-this-name"})
    with pytest.raises(UserError, match=r"policy\.model 'nobody/nothing-of-this-name'.*HF_TOKEN") as e:
        conversion.convert(config, tmp_path / "policy")
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_newest_commit_of_a_hub_model_is_noted_so_that_all_stages_take_the_same(
    tiny_policy, policy_folder, tmp_path, monkeypatch
):
    from huggingface_hub import constants

    # As huggingface_hub lays it out; the tests are in its offline mode.
    cached = tmp_path / "hub/models--owner--model"
    files.write_text(cached / "refs/main", "abc")
    shutil.copytree(policy_folder, cached / "snapshots/abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    config = tiny_policy.model_copy(update={"model": "owner/model"})
    conversion.convert(config, tmp_path / "policy")
    source = files.read_json(tmp_path / "policy/source.json")
    assert source == {"model": "owner/model", "name": "owner/model", "revision": "abc"}
    conversion.convert(tiny_policy.model_copy(update={"model": str(policy_folder)}), tmp_path / "local")
    assert files.read_json(tmp_path / "local/source.json")["revision"] is None


def test_refuses_an_altered_packaged_model(tiny_policy, tmp_path, monkeypatch):
    smollm2 = tiny_policy.model_copy(update={"model": packaged_models.SMOLLM2})
    package, file, _ = packaged_models.FILES[packaged_models.SMOLLM2]
    monkeypatch.setitem(packaged_models.FILES, packaged_models.SMOLLM2, (package, file, "0" * 64))
    with pytest.raises(UserError, match=r"\.gguf: .*\bb179.*\b0000"):
        conversion.convert(smollm2, tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []
