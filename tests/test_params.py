import copy
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from gpro_empathy import params
from gpro_empathy.files import UserError

PATH = Path(__file__).parents[1] / "params.yaml"
VALUES = yaml.safe_load(PATH.read_text(encoding="utf-8"))
FREE = VALUES["rewards"]["free_words"]


def written(tmp_path, section, key, value, **others):
    """Write params.yaml with some values of a section changed; return its path."""
    values = copy.deepcopy(VALUES)
    values[section] |= {key: value, **others}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def refusal(path):
    """Return the one line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        params.load_all(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_parameters_of_the_repository_load():
    assert params.load_all(PATH).model_dump() == VALUES


@pytest.mark.parametrize(
    ("section", "name"),
    [(params.TrainGrpo, "train_grpo"), (params.Policy, "policy"), (params.AnalyseRewards, "analyse_rewards")],
)
def test_section_is_named_like_its_class(section, name):
    assert section.section_name() == name
    assert params.load(section, PATH).model_dump() == VALUES[name]


def test_every_section_has_a_model_and_every_model_a_section():
    assert {section.section_name() for section in params.Section.__subclasses__()} == VALUES.keys() - {"inputs"}


def test_every_key_has_a_comment():
    """Expect a comment directly above each key, or above a key right before it.

    The keys below one comment are explained together by it.
    """
    bare, explained = [], False
    for line in PATH.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            explained = True
        elif not text:
            explained = False
        elif not (explained or text.startswith("-") or line.startswith("    ")):
            bare.append(text)
    assert bare == []


def test_frozen_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        params.load(params.Rollout, PATH).prompts = 3


def test_exponent_that_yaml_reads_as_text_is_a_number(tmp_path):
    path = written(tmp_path, "train_grpo", "learning_rate", "1e-3")
    assert params.load(params.TrainGrpo, path).learning_rate == 0.001


def test_a_section_is_refused_for_a_mistake_in_another(tmp_path):
    path = written(tmp_path, "rollout", "prompts", 0)
    with pytest.raises(UserError, match=r"rollout\.prompts"):
        params.load(params.DrawFigures, path)


@pytest.mark.parametrize(
    ("section", "key", "value", "line"),
    [
        ("train_grpo", "learning_rte", 1, "train_grpo.learning_rte is no parameter; check its spelling"),
        ("rewards", "calibration_temperature", 0, "rewards.calibration_temperature: input should be greater than 0, got 0"),
        ("rewards", "calibration_temperature", "hot", "got 'hot'"),
        ("rewards", "calibration_temperature", float("inf"), "rewards.calibration_temperature: input should be a finite"),
        ("rewards", "calibration_temperature", float("nan"), "rewards.calibration_temperature: input should be"),
        ("rewards", "weights", {}, "rewards.weights: "),
        ("rewards", "weights", {"empathy": -1}, "rewards.weights.empathy: input should be greater than 0, got -1"),
        ("rewards", "calibration", "none", "rewards.calibration: input should be 'batch' or 'reference', got 'none'"),
        ("rewards", "limit_words", 1, f"rewards: free_words must be below limit_words, got {FREE} and 1"),
        ("policy", "dtype", "float16", "policy.dtype: input should be 'auto', 'float32' or 'bfloat16', got 'float16'"),
        ("policy", "lora_rank", 0, "policy.lora_rank: input should be greater than or equal to 1, got 0"),
        ("policy", "lora_rank", 2.5, "policy.lora_rank: input should be a valid integer"),
        ("prepare", "test_fraction", 0.9, "prepare: validation_fraction + test_fraction must be below 1, got "),
        ("prepare", "seed", -1, "prepare.seed: input should be greater than or equal to 0, got -1"),
        ("train_grpo", "num_generations", 1, "train_grpo.num_generations: input should be greater than or equal to 2, got 1"),
        ("train_grpo", "top_p", 1.5, "train_grpo.top_p: input should be less than or equal to 1, got 1.5"),
        ("train_grpo", "loss_type", "ppo", "train_grpo.loss_type: input should be 'grpo', 'bnpo', 'dr_grpo' or 'dapo'"),
        ("train_scorer", "lora_dropout", 1, "train_scorer.lora_dropout: input should be less than 1, got 1"),
        ("analyse_rewards", "n_resamples", 99, "analyse_rewards.n_resamples: input should be greater than or equal to 100"),
        ("rewards", "weights", {"empathy": True}, "rewards.weights: "),
        ("rewards", "weights", {"examples:f": 1, "examples": {"f": 2}}, "rewards.weights: examples:f "),
        ("train_grpo", "steps", True, "train_grpo.steps: "),
        ("train_grpo", "seeds", [True], "train_grpo.seeds: "),
        ("prepare", "wassa_train_csv", "", "prepare.wassa_train_csv"),
        ("draw_figures", "width", None, "draw_figures.width: input should be a valid number, got None"),
    ],
)  # fmt: skip
def test_refuses_a_wrong_value_in_one_line_that_names_it(tmp_path, section, key, value, line):
    assert line in refusal(written(tmp_path, section, key, value))


@pytest.mark.parametrize(
    ("given", "nearest"),
    [(5, 4), (7, 8), (10, 8), (13, 16), (100, 16)],
)
def test_forward_batch_that_does_not_fill_the_step_is_refused_with_the_nearest_that_does(tmp_path, given, nearest):
    sizes = {"prompts_per_step": 4, "num_generations": 4}
    message = refusal(written(tmp_path, "train_grpo", "completions_per_forward", given, **sizes))
    assert message == (
        "train_grpo: completions_per_forward must divide prompts_per_step x num_generations = 16, "
        f"got {given}; the nearest that does is {nearest}"
    )


@pytest.mark.parametrize("completions_per_forward", [1, 2, 4, 8, 16])
def test_forward_batch_that_fills_the_step_is_accepted(tmp_path, completions_per_forward):
    sizes = {"prompts_per_step": 4, "num_generations": 4}
    path = written(tmp_path, "train_grpo", "completions_per_forward", completions_per_forward, **sizes)
    assert params.load(params.TrainGrpo, path).completions_per_forward == completions_per_forward


def test_refuses_a_missing_section_and_a_missing_key_together(tmp_path):
    values = copy.deepcopy(VALUES)
    del values["rollout"]
    del values["policy"]["model"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert refusal(path) == "policy.model is missing; rollout is missing"


def test_refuses_a_section_that_no_stage_reads(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(VALUES | {"extra": {}}), encoding="utf-8")
    assert refusal(path) == "extra is no parameter; check its spelling"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("policy: [", "not YAML: "),
        ("- policy", "expected one section per stage, got list"),
        ("", "expected one section per stage, got NoneType"),
    ],
)
def test_refuses_a_file_that_is_no_mapping(tmp_path, text, line):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert refusal(path).startswith(line)


def test_refuses_a_key_that_stands_twice(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PATH.read_text().replace("  steps: 12\n", "  steps: 12\n  steps: 500\n"))
    assert "steps" in refusal(path)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: .*`git checkout params\.yaml`"):
        params.load_all(tmp_path / "params.yaml")


def with_values(**sections):
    values = copy.deepcopy(VALUES)
    for name, change in sections.items():
        values[name] |= change
    return params.check(values, PATH)


@pytest.mark.parametrize(
    ("section", "key", "more"),
    [
        ("prepare", "wassa_train_csv", {"source": "wassa_csv"}),
        ("prepare", "wassa_dev_csv", {"source": "wassa_csv"}),
        ("policy", "model", {}),
        ("train_scorer", "encoder", {}),
        ("rewards", "similarity_model", {}),
    ],
)
def test_path_that_is_no_input_or_missing_is_refused_by_its_setting(section, key, more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine"
    setting = {section: {key: str(path), **more}}
    with pytest.raises(UserError, match=rf"^{section}\.{key}: .*`inputs`.* {section}_{key}: {path}$"):
        params.check_inputs(with_values(**setting))
    with pytest.raises(UserError, match=rf"^{section}\.{key}: .*{path}"):
        params.check_inputs(with_values(inputs={"mine": "mine"}, **setting))
    path.mkdir()
    params.check_inputs(with_values(inputs={"mine": "mine"}, **setting))
    params.check_inputs(with_values(inputs={"mine": str(tmp_path)}, **setting))
    # A relative one that could be the id of a model is a path where it is there.
    with pytest.raises(UserError, match=rf"^{section}\.{key}: .*\bmine\b"):
        params.check_inputs(with_values(**{section: {key: "mine", **more}}))


def test_settings_of_the_repository_name_no_path():
    assert params.paths_named(params.load_all(PATH)) == {}


@pytest.mark.parametrize("inputs", [{"two words": "x"}, {"x": 'a"; rm b'}, {"x": "$HOME"}])
def test_inputs_that_a_shell_would_read_otherwise_are_refused(inputs):
    with pytest.raises(UserError, match=r"inputs\."):
        with_values(inputs=inputs)
