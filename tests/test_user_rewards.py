import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gpro_empathy import response_format, rewards, user_rewards
from gpro_empathy.files import UserError
from gpro_empathy.response_format import parse_response

ROOT = Path(__file__).parents[1]
KNOWN = sorted(rewards.TERMS)
RESPONSES = [parse_response("Hi"), parse_response("Bye")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder of reward modules in the working folder; the test forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    (tmp_path / "rewards").mkdir()
    importlib.invalidate_caches()
    yield tmp_path / "rewards"
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def beside_the_tests(monkeypatch):
    """Let made_up_terms.py stand in the folder of reward modules."""
    monkeypatch.setattr(user_rewards, "FOLDER", Path(__file__).parent)


def refusal(name):
    with pytest.raises(UserError) as caught:
        user_rewards.load(name, KNOWN)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Loading


def test_function_of_a_file_in_the_folder_is_a_term_and_may_import_its_neighbours(folder):
    (folder / "mine.py").write_text("import words\n\ndef f(u, r):\n    return [words.SCORE] * len(r)\n")
    (folder / "words.py").write_text("SCORE = 0.25\n")
    assert user_rewards.load("mine:f", KNOWN)(["u"] * 2, RESPONSES).tolist() == [0.25, 0.25]


def test_the_example_of_the_repository_is_a_term(monkeypatch):
    monkeypatch.setattr(user_rewards, "FOLDER", ROOT / "rewards")
    responses = [parse_response("Are you safe?"), parse_response("Bye.")]
    assert user_rewards.load("examples:asks_back", KNOWN)(["u"] * 2, responses).tolist() == [1.0, 0.0]


def test_reward_of_trls_documentation_is_a_term_as_it_is(beside_the_tests):
    responses = [parse_response("<think>a</think><answer>b</answer>"), parse_response("b")]
    for name in ("made_up_terms:format_reward_func", "trl.rewards:think_format_reward"):
        assert user_rewards.load(name, KNOWN)(["u"] * 2, responses).tolist() == [1.0, 0.0], name


def test_reward_in_trls_form_gets_the_prompts_that_the_policy_gets(beside_the_tests):
    term = user_rewards.load("made_up_terms:echo", KNOWN)
    assert term(["Hi.", "Bye."], [parse_response("Bye."), parse_response("Bye.")]).tolist() == [0.0, 1.0]
    seen = []
    user_rewards.TrlReward(lambda prompts, completions: seen.append(prompts) or [0.0])(["Hi."], RESPONSES[:1])
    assert seen == [[response_format.messages("Hi.")]]


def test_reward_in_trls_form_that_asks_for_a_column_is_refused(beside_the_tests):
    message = refusal("made_up_terms:correct")
    assert "'made_up_terms:correct' cannot be called" in message
    assert "'ground_truth'" in message
    assert "**kwargs" in message


def test_reward_that_does_not_apply_is_refused_in_the_trial(beside_the_tests):
    message = refusal("made_up_terms:not_always")
    assert "reward term made_up_terms:not_always" in message
    assert "gave None to sample 0" in message


@pytest.mark.parametrize("name", ["empaty", "made_up_terms:nothing", "no_such_module:f", ":f", "made_up_terms:"])
def test_refuses_an_unknown_term_with_the_known_ones_and_what_git_must_know(beside_the_tests, name):
    message = refusal(name)
    assert f"rewards.weights: '{name}' is no reward term" in message
    assert "there are approach_match, empathy, length" in message
    assert "git add" in message


@pytest.mark.parametrize("inner", ["mine", "lazy"])
def test_refuses_a_module_that_no_stage_would_notice_a_change_of(folder, inner):
    (folder.parent / "outside.py").write_text("def f(u, r):\n    return [1.0] * len(r)\n")
    (folder / "mine.py").write_text("from outside import f\n")
    (folder / "lazy.py").write_text("def f(u, r):\n    import outside\n    return outside.f(u, r)\n")
    for name in (f"{inner}:f", "outside:f"):
        message = refusal(name)
        assert f"rewards.weights: '{name}' takes outside from" in message
        assert "move it into rewards/" in message
        del sys.modules["outside"]


# What goes wrong in a module or a function: term, file and line


@pytest.mark.parametrize(
    ("source", "line", "what"),
    [
        ("def f(u, r)\n    return 1\n", 1, "SyntaxError"),
        ("\nLIMIT = settings.limit\n", 2, "NameError"),
        ("import os\nimport no_such_package_here\n", 2, "no_such_package_here"),
        ("def f(u, r):\n    return [1 / 0 for _ in r]\n", 2, "ZeroDivisionError"),
        ("def f(utterance, response):\n    return float(response.answer == '')\n", 2, "AttributeError"),
        ("\ndef f(responses):\n    return [1.0]\n", 2, "TypeError"),
        ("def f(u, r):\n    scores = [1.0 for _ in r]\n", 1, "None for 3 responses"),
        ("def f(u, r):\n    return (1.0 for _ in r)\n", 1, "generator"),
        ("def f(u, r):\n    return [{'score': 1.0} for _ in r]\n", 1, "{'score': 1.0}"),
        ("import pandas\ndef f(u, r):\n    return pandas.DataFrame({'x': ['a', 'b']})\n", 2, "for 3 responses"),
        ("def f(u, r):\n    return ['good' for _ in r]\n", 1, "'good'"),
        ("def f(u, r):\n    return [1.0]\n", 1, r"shape (1,) for 3 responses"),
        ("def f(u, r):\n    return [[1.0], [1.0, 2.0], [1.0]]\n", 1, "for 3 responses"),
        ("def f(u, r):\n    r.clear()\n    return []\n", 1, "shape (0,) for 3 responses"),
        ("def f(u, r):\n    return [1e39 for _ in r]\n", 1, "1e+39"),
        ("def f(u, r):\n    return [1.0, 2.0, float('nan')]\n", 1, "nan to sample 2"),
        ("import sys\ndef f(u, r):\n    return [1.0] * len(r)\nsys.exit()\n", 4, "SystemExit"),
        ("import sys\ndef f(u, r):\n    sys.exit('no')\n", 3, "SystemExit: no"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_term_file_and_line(folder, source, line, what):
    (folder / "mine.py").write_text(source)
    message = refusal("mine:f")
    assert "mine:f" in message
    assert f"rewards/mine.py, line {line}" in message
    assert what in message


@pytest.mark.parametrize("where", ["", "def f(u, r):\n    "])
def test_term_that_leaves_the_working_folder_is_refused_and_the_folder_stays(folder, where):
    (folder / "mine.py").write_text(
        f"import os\n\ndef f(u, r):\n    return [1.0] * len(r)\n\n{where}os.chdir(os.path.dirname(__file__))\n"
        + ("    return [1.0] * len(r)\n" if where else "")
    )
    assert re.search("'mine:f'.*working folder.*__file__", refusal("mine:f"))
    assert Path.cwd() == folder.parent


def test_an_error_in_the_middle_of_training_is_one_line_too():
    def f(utterances, responses):
        raise ValueError("two\nlines")

    with pytest.raises(UserError, match=r"\ba:f\b.*ValueError: two lines in .*test_user_rewards\.py, line \d+$"):
        user_rewards.UserTerm("a:f", f)(["u"] * 2, RESPONSES)


def test_a_lack_of_memory_keeps_its_own_advice():
    def f(utterances, responses):
        raise MemoryError

    with pytest.raises(MemoryError):
        user_rewards.UserTerm("a:f", f)(["u"] * 2, RESPONSES)


# Scores


@pytest.mark.parametrize(
    "values",
    [
        [0.5, 1.0],
        (0.5, 1),
        np.array([0.5, 1.0], dtype=np.float16),
        torch.tensor([0.5, 1.0], dtype=torch.bfloat16),
        torch.tensor([0.5, 1.0], requires_grad=True),
        [torch.tensor(0.5, requires_grad=True), torch.tensor(1.0)],
    ],
)
def test_scores_may_be_numbers_in_any_form(values):
    assert user_rewards.checked("f", values, RESPONSES).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e39, -1e39, 1e16])
def test_refuses_what_the_trainer_cannot_compute_with_naming_the_sample(score):
    with pytest.raises(UserError) as caught:
        user_rewards.checked("f", [0.0, score], RESPONSES)
    assert f"reward term f gave {score} to sample 1 of the batch: 'Bye'" in str(caught.value)


def test_the_largest_score_has_a_variance_in_float32():
    scores = torch.tensor([user_rewards.LARGEST, -user_rewards.LARGEST] * 5000, dtype=torch.float32)
    assert torch.isfinite(scores.std())


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], 1.0, None])
def test_refuses_the_wrong_number_of_scores_naming_the_term(values):
    with pytest.raises(UserError, match=r"\blength\b.*\b2\b"):
        user_rewards.checked("length", values, RESPONSES)


# Before a run


def test_an_experiment_sets_a_term_by_its_module_and_name(tmp_path):
    from dvc.utils.hydra import apply_overrides

    from gpro_empathy import params

    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, ["+rewards.weights.examples.asks_back=0.5"])
    apply_overrides(path, ["rewards.weights.examples.asks_back=0.75", "rewards.weights.length=2"])
    weights = params.load(params.Rewards, path).weights
    assert weights["examples:asks_back"] == 0.75
    assert weights["length"] == 2


@pytest.mark.slow
def test_an_experiment_keeps_a_new_module_and_a_copy_without_it_says_git_add(tmp_path):
    """DVC's own --temp, with a stage that loads a term as the long stages do."""

    def run(*line):
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@localhost",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@localhost",
    }  # fmt: skip
    load = "from gpro_empathy import entry_point, user_rewards as u; entry_point.run_stage(lambda: u.load('mine:f', ['x']))"
    stage = {"cmd": f'{sys.executable} -c "{load}"', "deps": ["rewards"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train_grpo": stage}}))
    shutil.copytree(ROOT / "rewards", tmp_path / "rewards", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    for line in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], ["git", "add", "."]):
        assert run(*line).returncode == 0
    assert run("git", "commit", "-qm", "start").returncode == 0
    (tmp_path / "rewards/mine.py").write_text("def f(u, r):\n    return [1.0] * len(r)\n")
    experiment = [sys.executable, "-m", "dvc", "exp", "run"]
    in_copy = run(*experiment, "--temp")
    assert in_copy.returncode != 0
    assert "'mine:f' is no reward term (ModuleNotFoundError" in in_copy.stdout + in_copy.stderr
    assert "git add rewards" in in_copy.stdout + in_copy.stderr
    here = run(*experiment, "--name", "kept")
    assert here.returncode == 0, here.stderr
    (reference,) = run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/kept").stdout.split()
    assert "return [1.0]" in run("git", "show", f"{reference}:rewards/mine.py").stdout
    assert run("git", "add", "rewards").returncode == 0
    assert run(*experiment, "--temp").returncode == 0


def test_doctor_names_a_misspelt_term(settings):
    from gpro_empathy import machine
    from gpro_empathy.tools import doctor, preflight

    here = machine.inspect()
    for weights, wrong in (({"empaty": 1.0}, True), ({"empathy": 1.0}, False)):
        config = settings.model_copy(update={"rewards": settings.rewards.model_copy(update={"weights": weights})})
        problems = preflight.failing(preflight.checks(here, config, doctor.examine(config, here)))
        assert any("'empaty' is no reward term" in problem for problem in problems) is wrong
