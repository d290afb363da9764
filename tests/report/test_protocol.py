import datetime
from pathlib import Path

import pytest
import yaml

from gpro_empathy import files, params
from gpro_empathy.report import protocol
from gpro_empathy.stages import write_numbers

ROOT = Path(__file__).parents[2]
PARAMS = params.load_all(ROOT / "params.yaml")
SECTIONS = {s.section_name(): getattr(PARAMS, s.section_name()) for s in write_numbers.SECTIONS}


def made(**changed):
    """Make a record of today's settings."""
    content = {
        "frozen": datetime.date(2026, 11, 27),
        "selection": "Chosen on validation.",
        "metrics": PARAMS.analyse_rewards.metrics,
        "settings": {name: section.model_dump(mode="json") for name, section in SECTIONS.items()},
        "changes": [],
        "runs": [],
    }
    return protocol.Protocol.model_validate(content | changed)


def test_committed_record_holds_every_setting_of_every_section():
    record = protocol.read(ROOT / protocol.PATH)
    assert record.metrics == PARAMS.analyse_rewards.metrics
    assert set(record.settings) == set(SECTIONS)
    for name, section in record.settings.items():
        known = {key for key in type(SECTIONS[name]).model_fields if f"{name}.{key}" != "analyse_rewards.metrics"}
        assert section.keys() == known, name


def test_run_of_the_frozen_settings_is_not_told_apart():
    text = protocol.sentence(made(), SECTIONS)
    assert text == (
        "Chosen on validation. Metrics and settings were frozen on 2026-11-27, before any response to a test story was read or "
        "scored. No run on test is recorded since then."
    )


def test_run_of_other_settings_is_told_with_their_names():
    grpo = PARAMS.train_grpo.model_copy(update={"steps": 3, "seeds": [5, 7], "save_steps": 1})
    weights = PARAMS.rewards.model_copy(update={"weights": {"empathy": 1.0}})
    sections = SECTIONS | {"train_grpo": grpo, "rewards": weights}
    assert protocol.differing(made(), sections) == ["rewards.weights", "train_grpo.steps"]
    assert r"frozen ones}: \file{rewards.weights}, \file{train_grpo" in protocol.sentence(made(), sections)


def test_run_of_another_model_or_another_margin_is_told_apart():
    policy = PARAMS.policy.model_copy(update={"model": "random"})
    analysis = PARAMS.analyse_rewards.model_copy(update={"similarity_margin": 0.5})
    sections = SECTIONS | {"policy": policy, "analyse_rewards": analysis}
    keys = ["policy.model", "analyse_rewards.similarity_margin"]
    assert protocol.differing(made(), sections) == keys


def test_metrics_that_were_declared_later_are_told():
    text = protocol.sentence(made(metrics=["empathy_raw"]), SECTIONS)
    assert r"\file{analyse_rewards.metrics}" in text


def test_setting_that_the_record_does_not_know_is_another_one():
    settings = {"warm_start": PARAMS.warm_start.model_dump() | {"gone": 1}}
    assert protocol.differing(made(settings=settings), SECTIONS) == ["warm_start.gone"]


def test_what_was_changed_once_results_were_known_is_told():
    text = protocol.sentence(made(changes=[{"date": "2026-11-28", "what": "the rule & its words"}]), SECTIONS)
    assert r"Changed since results were known: the rule \& its words (2026-11-28)." in text


def test_runs_on_test_are_listed():
    looks = [{"date": "2026-11-28", "what": "the default & its study"}, {"date": "2026-11-29", "what": "readings"}]
    text = protocol.sentence(made(runs=looks), SECTIONS)
    assert r"Runs on test since then: the default \& its study (2026-11-28); readings (2026-11-29)." in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen": "soon"}, r"protocol\.yaml: frozen: .*`git checkout .*protocol\.yaml`"),
        ({"selection": ""}, r"protocol\.yaml: selection: "),
        ({"extra": 1}, r"protocol\.yaml: extra: "),
    ],
)
def test_malformed_record_is_refused_with_its_key(tmp_path, change, message):
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(made().model_dump(mode="json") | change))
    with pytest.raises(files.UserError, match=message):
        protocol.read(path)


def test_missing_record_and_one_that_is_not_yaml_are_refused(tmp_path):
    with pytest.raises(files.UserError, match=r"protocol\.yaml: "):
        protocol.read(tmp_path / "protocol.yaml")
    (tmp_path / "protocol.yaml").write_text("a: [")
    with pytest.raises(files.UserError, match=r"protocol\.yaml: .*YAML"):
        protocol.read(tmp_path / "protocol.yaml")
