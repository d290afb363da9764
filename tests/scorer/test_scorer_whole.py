"""The scorer whose encoder is trained whole, and the mean of several scorers."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import empathy_scorer, fitting

TEXTS = ["so sad", "fine by me", "ok", "terrible loss, so sorry"]


@pytest.fixture(scope="module")
def config(settings):
    return settings.train_scorer.model_copy(
        update={
            "encoder": "random",
            "lora_rank": 0,
            "epochs": 2,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "max_tokens": 32,
        }
    )


@pytest.fixture(scope="module")
def turns():
    return [Turn(f"c{i}", 0, text, (), float(i), i / 2, float(i)) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def model(turns, config):
    return fitting.train(turns, config, seed=0, progress=lambda line: None)


def test_rank_of_zero_trains_the_blocks_and_leaves_the_embeddings(model, config):
    torch.manual_seed(0)
    start = empathy_scorer.build(config).encoder.state_dict()
    changed = {name for name, value in model.encoder.state_dict().items() if not torch.equal(value, start[name])}
    assert any(name.startswith("encoder.layer.0.attention") for name in changed)
    assert any(name.startswith("encoder.layer.1.output") for name in changed)
    assert not [name for name in changed if name.startswith("embeddings")]


def test_whole_encoder_is_saved_and_gives_the_same_scores(model, turns, config, tmp_path):
    empathy_scorer.save(model, tmp_path / "scorer", fitting.describe(turns, config, seed=0))
    assert set(load_file(tmp_path / "scorer/encoder/model.safetensors")) == set(model.encoder.state_dict())
    loaded = empathy_scorer.load(tmp_path / "scorer")
    assert (loaded.score(TEXTS) == model.score(TEXTS)).all()
    loaded.merge_adapter()
    assert loaded.score(TEXTS) == pytest.approx(model.score(TEXTS), abs=1e-4)


def test_refuses_a_whole_encoder_that_is_missing_damaged_or_another(model, turns, config, tmp_path):
    folder, settings = tmp_path / "scorer", fitting.describe(turns, config, seed=0)
    empathy_scorer.save(model, folder, settings | {"encoder": "all-minilm-l6-v2"})
    with pytest.raises(UserError, match=r"scorer/encoder: .*all-minilm-l6-v2.*delete"):
        empathy_scorer.load(folder)
    empathy_scorer.save(model, folder, settings)
    weights = folder / "encoder/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"encoder/model\.safetensors: .*delete"):
        empathy_scorer.load(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"encoder/model\.safetensors: .*delete"):
        empathy_scorer.load(folder)
    stated = json.loads((folder / "scorer.json").read_text())
    (folder / "scorer.json").write_text(json.dumps(stated | {"trained": "head"}))
    with pytest.raises(UserError, match=r"trained.*'head'.*adapter.*encoder"):
        empathy_scorer.load(folder)


def test_ensemble_scores_the_mean_of_its_members_and_is_saved_with_them(model, turns, config, tmp_path):
    adapted_config = config.model_copy(update={"lora_rank": 4})
    adapted = fitting.train(turns, adapted_config, seed=1, progress=lambda line: None)
    both, contexts = empathy_scorer.Ensemble([model, adapted]), [(), ("hi",), (), ("a", "b")]
    mean = (model.score(TEXTS, contexts) + adapted.score(TEXTS, contexts)) / 2
    assert both.score(TEXTS, contexts) == pytest.approx(mean)
    described = [fitting.describe(turns, one, seed=seed) for seed, one in enumerate((config, adapted_config))]
    empathy_scorer.save(both, tmp_path / "both", {"members": described}, "# card\n")
    loaded = empathy_scorer.load(tmp_path / "both")
    assert (loaded.score(TEXTS, contexts) == both.score(TEXTS, contexts)).all()
    assert (tmp_path / "both/README.md").read_text() == "# card\n"
    assert json.loads((tmp_path / "both/1/scorer.json").read_text())["training"]["lora_rank"] == 4
    loaded.merge_adapter()
    assert loaded.score(TEXTS, contexts) == pytest.approx(mean, abs=1e-4)


def test_refuses_an_ensemble_of_another_format_or_without_a_member(model, turns, config, tmp_path):
    described = fitting.describe(turns, config, seed=0)
    empathy_scorer.save(empathy_scorer.Ensemble([model, model]), tmp_path / "both", {"members": [described, described]})
    (tmp_path / "both/1/scorer.json").unlink()
    with pytest.raises(UserError, match=r"both/1/scorer\.json"):
        empathy_scorer.load(tmp_path / "both")
    stated = json.loads((tmp_path / "both/scorer.json").read_text())
    (tmp_path / "both/scorer.json").write_text(json.dumps(stated | {"format": 3}))
    with pytest.raises(UserError, match=r"format.*3.*5"):
        empathy_scorer.load(tmp_path / "both")


@pytest.mark.parametrize("members", [[], "01", [0, 1], None])
def test_refuses_an_ensemble_whose_members_are_no_folders(members, tmp_path):
    (tmp_path / "scorer.json").write_text(json.dumps(empathy_scorer.expected(LABELS) | {"members": members}))
    with pytest.raises(UserError, match=r"scorer\.json: members"):
        empathy_scorer.load(tmp_path)


def test_ensemble_wants_the_longest_context_of_its_members_and_each_reads_its_own(settings):
    torch.manual_seed(0)
    small = settings.train_scorer.model_copy(update={"encoder": "random"})
    members = [empathy_scorer.build(small.model_copy(update={"context_turns": turns})) for turns in (0, 2, 1)]
    both = empathy_scorer.Ensemble(members)
    assert both.context_turns == 2
    scores = [
        member.score(["so sad"], [context]) for member, context in zip(members, [(), ("a", "b"), ("b",)], strict=True)
    ]
    assert both.score(["so sad"], [("a", "b")]) == pytest.approx(np.mean(scores, axis=0), abs=1e-6)
