import io
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

import small_approach
from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS, MARKS
from gpro_empathy.policy import conversion
from gpro_empathy.scorer import empathy_scorer
from gpro_empathy.tools import chat
from run_folder import write_adapter, write_run


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


class Parrot:
    """Answer with the message, in the shape of a scored rollout.

    The policy of seed 23 alone is there.
    """

    def __init__(self):
        self.heard = []

    def choose(self, seed):
        if seed != 23:
            raise UserError(f"seed {seed}: no policy was trained from it; there are 23")

    def respond(self, message, compare, on_token):
        self.heard.append(message)
        if on_token is not None:
            on_token("tuned-23", 1)
        models = ["tuned", "warm_start"] if compare else ["tuned"]
        return [row(model=model, answer=f"{model} says: {message}") for model in models]


def row(**changes):
    values = {
        "model": "tuned", "seed": 23, "reasoning": "User's main concern: a dog", "answer": "Oh.", "well_formed": True,
        "finish_reason": "stop", "completion_tokens": 9, "empathy_raw": 2.514, "audit_empathy_raw": 3.0,
        "semantic_similarity_raw": 0.333, "combined_reference": 0.75,
    }  # fmt: skip
    return values | changes


def talk(text, *, compare=False, stderr=None):
    out, parrot = io.StringIO(), Parrot()
    chat.talk(lambda: parrot, io.StringIO(text), out, stderr or io.StringIO(), compare=compare)
    return out.getvalue(), parrot


# The conversation


def test_notice_comes_before_the_models_are_loaded_and_says_where_to_turn():
    out = io.StringIO()

    def load():
        assert out.getvalue() == chat.NOTICE + "\n\nLoading the models ...\n"
        return Parrot()

    chat.talk(load, io.StringIO(""), out, io.StringIO(), compare=False)
    for words in ("research model", "no help in a crisis", "local emergency number", "crisis line"):
        assert words in out.getvalue().replace("\n", " ")


def test_answer_is_shown_with_reasoning_and_every_score():
    out, _ = talk("my dog died\n")
    assert out.split("commands.\n\n")[1] == (
        "[tuned policy, seed 23]\nreasoning:\n  User's main concern: a dog\nanswer:\n  tuned says: my dog died\n"
        "scores: empathy 2.51 / 3.00, similarity 0.33, combined 0.75\n\n"
    )


def test_malformed_and_cut_answers_are_marked():
    shown = chat.show([row(well_formed=False, finish_reason="length", reasoning="")], 100)
    assert "reasoning:\n  none\n" in shown
    assert " ".join(shown.split()).endswith("combined 0.75 (not in the response format; cut at 9 tokens)")


def test_input_ends_the_conversation_and_empty_lines_are_passed_over():
    _, parrot = talk("\n  \none\r\n\ntwo")
    assert parrot.heard == ["one", "two"]


def test_quit_ends_the_conversation_at_once():
    assert talk("one\n/quit\ntwo\n")[1].heard == ["one"]


def test_interrupt_ends_the_conversation_quietly():
    class Interrupted(Parrot):
        def respond(self, *_):
            raise KeyboardInterrupt

    out = io.StringIO()
    chat.talk(Interrupted, io.StringIO("one\ntwo\n"), out, io.StringIO(), compare=False)
    assert out.getvalue().endswith("/help lists the commands.\n\n")


def test_help_says_that_every_message_stands_by_itself():
    out, parrot = talk("/help\n")
    assert chat.HELP in out
    assert "every message is answered by itself" in chat.HELP.lower()
    assert parrot.heard == []


def test_compare_shows_the_starting_policy_beside_the_tuned_one_until_it_is_said_again(monkeypatch):
    monkeypatch.setenv("COLUMNS", "83")
    out, _ = talk("/compare\none\n/compare\ntwo\n")
    assert f"{'[tuned policy, seed 23]':40} | [starting policy (warm start)]\n" in out
    assert f"{'  tuned says: one':40} |   warm_start says: one\n" in out
    assert "warm_start says: two" not in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/seed 7", "seed 7: no policy was trained from it; there are 23"),
        ("/seed x", "/seed needs a whole number, got 'x'"),
        ("/leave", "/leave: no such command; /help lists them"),
    ],
)
def test_mistake_is_said_in_one_line_and_the_conversation_goes_on(line, message):
    out, parrot = talk(f"{line}\nstill here\n")
    assert f"\n\n{message}\n\n" in out
    assert parrot.heard == ["still here"]


def test_progress_goes_to_a_terminal_and_is_wiped():
    screen = Screen()
    talk("one\n", stderr=screen)
    assert screen.getvalue().startswith("\r\033[Ktuned-23: 1 tokens\r\033[K")
    assert "tokens" not in talk("one\n")[0]


# What a model writes must not steer the terminal


def test_escape_sequences_and_direction_marks_do_not_reach_the_terminal():
    nasty = "a\x1b[2Jb\x1b]0;title\x07c\rd\x9b31me\u202ef\u2028g\x00\x7f"
    shown = chat.show([row(answer=nasty, reasoning=nasty)], 100)
    assert shown.count("\ufffd") == 2 * 9
    assert "a\ufffd[2Jb\ufffd]0;title\ufffdc" in shown


@effort(max_examples=50, deadline=None)
@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left_of_any_text(text):
    shown = chat.show([row(answer=text, reasoning=text), row(answer=text)], 60)
    kinds = {unicodedata.category(c) for c in shown if c not in "\n\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@effort(max_examples=50, deadline=None)
@given(st.text(), st.integers(1, 300))
def test_no_line_is_wider_than_the_terminal(text, width):
    for rows, least in (([row(answer=text)], 24), ([row(answer=text)] * 2, 51)):
        assert max(map(len, chat.show(rows, width).split("\n"))) <= max(width, least)


# The real models, small and random


@pytest.fixture(scope="module")
def folder(settings, tiny_policy, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    # Rollouts, and so the answers here, may be longer than responses in training, which tiny_policy
    # cuts at 8.
    config = settings.model_copy(
        update={
            "policy": tiny_policy.model_copy(update={"max_prompt_tokens": 300}),
            "rollout": settings.rollout.model_copy(update={"max_completion_tokens": 12}),
        }
    )
    write_run(root, config, seeds=[23, 24])
    conversion.convert(config.policy, root / "models/policy")
    for number, place in enumerate(("warm_start", "tuned/seed-23", "tuned/seed-24")):
        write_adapter(config.policy, root / "models/policy", root / "models" / place, number)
    encoder = config.train_scorer.model_copy(update={"encoder": "random"})
    for place, of in (("scorer", LABELS), ("audit_scorer", LABELS), ("reader", MARKS)):
        empathy_scorer.save(
            empathy_scorer.build(encoder, of), root / "models" / place, {"encoder": "random", "revision": None}
        )
    small_approach.save(root / "models/approach")
    return root


@pytest.fixture(scope="module")
def policies(folder):
    from gpro_empathy.policy import adapters
    from gpro_empathy.tools import answering

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = params.load_all()
        yield answering.Policies(config, adapters.find_tuned(None, config.policy))


def texts(rows):
    return [r["text"] for r in rows]


def test_policies_answer_as_the_rollouts_do(folder, policies, settings):
    import numpy as np
    import torch
    from peft import PeftModel

    from gpro_empathy import response_format
    from gpro_empathy.policy import decoding, loading, sampling

    found = policies.respond("My dog  died\x07 last night.", compare=True)
    assert [(r["model"], r["seed"], r["prompt"]) for r in found] == [
        ("tuned", 23, "My dog died last night."), ("warm_start", None, "My dog died last night."),
    ]  # fmt: skip
    config, tokenizer = params.load_all(folder / "params.yaml"), loading.load_tokenizer(folder / "models/policy")
    for r, place in zip(found, ("tuned/seed-23", "warm_start"), strict=True):
        base = loading.load_base(config.policy, folder / "models/policy")
        model = PeftModel.from_pretrained(base, str(folder / "models" / place)).eval()
        how = sampling.for_tokenizer(tokenizer, 12, config.rollout.temperature, config.rollout.top_p)
        uniform = np.random.default_rng([config.rollout.seed, 0]).random((1, 12))
        ids = loading.prompt_ids(tokenizer, response_format.messages("My dog died last night."))
        tokens = decoding.decode(model, [ids], 1, how, torch.from_numpy(uniform))[0]
        assert r["text"] == tokenizer.decode(tokens, skip_special_tokens=True)
        assert r["completion_tokens"] == len(tokens)
    assert found[0]["text"] != found[1]["text"]
    assert max(r["completion_tokens"] for r in found) == 12


def test_another_seed_is_another_policy_and_an_unknown_one_is_refused(policies):
    policies.choose(24)
    assert policies.respond("hello there", compare=False)[0]["seed"] == 24
    with pytest.raises(UserError, match=r"\b99\b.*\b23, 24\b"):
        policies.choose(99)
    policies.choose(23)


def test_messages_without_text_and_too_long_ones_are_refused(policies):
    with pytest.raises(UserError, match="no text"):
        policies.respond("\x00\x07", compare=False)
    with pytest.raises(UserError, match=r"\d+ tokens\b.*\b300\b.*shorten"):
        policies.respond("word " * 300, compare=False)


@pytest.mark.slow
def test_command_talks_through_a_pipe(folder):
    done = command(folder, "--compare", text=b"my dog died\n\xff\xfe caf\xc3\xa9\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(chat.NOTICE)
    assert done.stdout.count("scores: empathy ") == 4
    assert done.stdout.count("[tuned policy, seed 23]") == 2


def test_command_without_models_says_what_to_run(tmp_path, settings):
    write_run(tmp_path, settings, seeds=[23])
    done = command(tmp_path, text=b"")
    assert done.returncode == 1
    assert done.stderr == (
        "error: models/policy/source.json: no such file; run `make reproduce`, which makes what is missing\n"
    )


def test_adapter_of_another_base_is_refused_by_its_name_and_by_its_shapes(folder, tmp_path, monkeypatch):
    from gpro_empathy.policy import adapters, random_model

    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    config = params.load_all().policy
    other = {"model": None, "name": "other/model", "revision": None}
    files.write_json(adapters.TUNED / "seed-23/source.json", other)
    with pytest.raises(UserError, match=r"seed-23: .*\bother/model\b.*\brandom\b.*`dvc repro"):
        adapters.find_tuned(None, config)
    (adapters.TUNED / "seed-23/source.json").unlink()
    inner = random_model.LlamaConfig
    with monkeypatch.context() as patch:
        patch.setattr(random_model, "LlamaConfig", lambda **values: inner(**values | {"num_hidden_layers": 3}))
        conversion.convert(config, adapters.POLICY)
    with pytest.raises(UserError, match=r"seed-23: .*\bmodel\.layers\.2"):
        adapters.find_tuned(None, config)
    with pytest.raises(UserError, match=r"policy\.model\b.*\bx\b.*models/policy\b.*\brandom\b"):
        adapters.find_tuned(None, config.model_copy(update={"model": "x"}))
    shutil.rmtree("models/tuned")
    files.write_json(adapters.SETTINGS, {"model": "random", "seeds": [23]})
    with pytest.raises(UserError, match=r"models/tuned/seed-23/adapter_config\.json: .*`make reproduce`"):
        adapters.find_tuned(None, config)


def command(folder, *arguments, text):
    line = [sys.executable, "-m", "gpro_empathy", "chat", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(line, cwd=folder, input=text, capture_output=True, check=False, env=environment)
    return subprocess.CompletedProcess(line, done.returncode, done.stdout.decode(), done.stderr.decode())
