"""Profiles laid over params.yaml: what is wrong with either file is a line that names it."""

import shutil

import pytest

from conftest import ROOT
from gpro_empathy import params
from gpro_empathy.files import UserError
from gpro_empathy.tools import profiles


@pytest.fixture
def target(tmp_path):
    return shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")


def lay(target, profile, settings=None):
    """Lay a profile of this text over `target`, whose text `settings` replaces."""
    (target.parent / "mine.yaml").write_text(profile)
    if settings is not None:
        target.write_text(settings)
    return profiles.apply("mine", target.parent, target)


def test_changed_settings_are_told_and_comments_stay(target):
    before = target.read_text().splitlines()
    assert lay(target, "train_grpo:\n  steps: 3\n  seeds: [23]\n") == ["train_grpo.steps: 12 -> 3"]
    differing = [(old, new) for old, new in zip(before, target.read_text().splitlines(), strict=True) if old != new]
    assert differing == [("  steps: 12", "  steps: 3")]
    assert params.load_all(target).train_grpo.steps == 3


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("", r"mine\.yaml: .*nothing"),
        ("- policy\n", r"mine\.yaml: .*list"),
        ("policy:\n", r"mine\.yaml: policy\b"),
        ("policy: 3\n", r"mine\.yaml: policy\b"),
        ("policy:\n\tmodel: x\n", r"mine\.yaml: .*YAML"),
        ("polisy: {model: x}\n", r"mine\.yaml: polisy\b"),
        ("policy: {modell: x}\n", r"mine\.yaml: policy\.modell\b"),
        ("train_grpo: {steps: 0}\n", r"^\S*/mine\.yaml: train_grpo\.steps: .*\b0$"),
    ],
)
def test_profile_that_is_none_is_refused_and_changes_nothing(target, profile, message):
    before = target.read_text()
    with pytest.raises(UserError, match=message):
        lay(target, profile)
    assert target.read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("  steps: 12\n", "\tsteps: 12\n"), r"params\.yaml: .*YAML"),
        (("  steps: 12\n", "  steps: 12\n  steps: 500\n"), r"params\.yaml: .*\bsteps\b"),
        (("  steps: 12\n", "  stepz: 12\n"), r"params\.yaml: .*train_grpo\.stepz\b"),
    ],
)
def test_settings_that_are_wrong_before_are_named_and_not_the_profile(target, change, message):
    with pytest.raises(UserError, match=message):
        lay(target, "train_grpo:\n  save_steps: 3\n", target.read_text().replace(*change))
    with pytest.raises(UserError, match=r"params\.yaml: "):
        lay(target, "train_grpo:\n  save_steps: 3\n", "")
