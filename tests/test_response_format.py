import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy import response_format

DEMONSTRATIONS = Path(__file__).parents[1] / "data/embedded/demonstrations.jsonl"
REASONING = (
    "User's main concern: the flood\nEmotional content: fear, some anger\nIntensity level (0-5): 3\n"
    "Response approach: Listen first"
)
GOOD = f"<reasoning>\n{REASONING}\n</reasoning>\n<answer>\nThat sounds hard. Are you safe?\n</answer>"

words = st.text(alphabet="abc XYZ,'é", min_size=1, max_size=20).filter(lambda text: text.strip())


def test_prompt_is_the_format_and_then_the_utterance():
    system, user = response_format.messages("My <dog> died.")
    assert (system["role"], user) == ("system", {"role": "user", "content": "My <dog> died."})
    for part in (*response_format.FIELDS, "<reasoning>", "</reasoning>", "<answer>", "</answer>"):
        assert part in system["content"]


def test_example_in_the_prompt_is_itself_in_the_right_order():
    example = response_format.SYSTEM_PROMPT
    order = [
        example.index(part)
        for part in ("<reasoning>", *response_format.FIELDS, "</reasoning>", "<answer>", "</answer>")
    ]
    assert order == sorted(order)


def test_response_is_taken_apart():
    assert response_format.parse_response(GOOD) == response_format.Response(
        text=GOOD,
        reasoning=REASONING,
        answer="That sounds hard. Are you safe?",
        well_formed=True,
        stated_intensity=3,
        stated_approach="Listen first",
    )


def test_every_demonstration_of_the_corpus_comes_back():
    for line in DEMONSTRATIONS.read_text(encoding="utf-8").splitlines():
        demonstration = json.loads(line)
        response = response_format.parse_response(response_format.format_response(demonstration))
        assert response.well_formed, demonstration
        assert response.answer == demonstration["answer"]
        assert response.stated_intensity == demonstration["intensity"]
        assert response.reasoning.splitlines()[1] == f"Emotional content: {demonstration['emotion']}"


@given(concern=words, emotion=words, approach=words, intensity=st.integers(0, 5), answer=words)
def test_any_demonstration_comes_back(concern, emotion, approach, intensity, answer):
    demonstration = {"concern": concern.strip(), "emotion": emotion.strip(), "approach": approach.strip()}
    demonstration |= {"intensity": intensity, "answer": answer.strip() + "."}
    response = response_format.parse_response(response_format.format_response(demonstration))
    assert response.well_formed
    assert (response.answer, response.stated_intensity) == (demonstration["answer"], intensity)


@given(
    st.text()
    | st.lists(st.sampled_from(["<reasoning>", "</reasoning>", "<answer>", "</answer>", "a. ", "\n"])).map("".join)
)
def test_any_text_at_all_can_be_scored(text):  # fmt: skip
    response = response_format.parse_response(text)
    assert response.text == text
    assert response.answer in text
    assert response.answer == response.answer.strip()
    assert not response.well_formed or response.stated_intensity is not None


@pytest.mark.parametrize(
    "text",
    [
        f"\n {GOOD} \n",
        GOOD.replace("\n</answer>", "</answer>").replace("<answer>\n", "<answer>"),
        GOOD.replace("</reasoning>\n", "</reasoning>\n\n"),
        GOOD.replace("hard. Are you safe?", "hard"),
        GOOD.replace("): 3", "):0 "),
        GOOD.replace("sounds hard.", "sounds\nhard."),
    ],
    ids=["space around", "tight tags", "blank line", "no full stop", "no space", "two lines"],
)
def test_small_freedoms_of_form_are_well_formed(text):
    assert response_format.parse_response(text).well_formed


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("): 3", "): 6"),
        GOOD.replace("): 3", "): -1"),
        GOOD.replace("): 3", "): 3/5"),
        GOOD.replace("): 3", "): three"),
        GOOD.replace("): 3", "):"),
        GOOD.replace("Response approach: Listen first\n", ""),
        GOOD.replace("Emotional content: fear, some anger\n", "").replace("\n</reasoning>", "\nEmotional content: x\n</reasoning>"),
        GOOD.replace("Emotional content: fear, some anger", "Emotional content:"),
        GOOD.replace("Emotional content", "Emotions"),
        GOOD.replace("\n</reasoning>", "\nOne more line: x\n</reasoning>"),
        GOOD.replace("Are you safe?", "Are you safe? Call me."),
        GOOD.replace("That sounds hard. Are you safe?", ""),
        GOOD.replace("\n</answer>", ""),
        GOOD.replace("<answer>\n", ""),
        GOOD + " Bye.",
        "Well. " + GOOD,
        GOOD + "\n<answer>\nAgain.\n</answer>",
        GOOD.replace("That sounds", "<answer>That sounds"),
        GOOD.replace("That sounds", "<reasoning>That sounds"),
        GOOD.replace("Listen first", "Listen first </reasoning> and then <reasoning> talk"),
        GOOD.replace("<reasoning>\n", "").replace("</reasoning>\n", ""),
        GOOD.lower(),
        "That sounds hard.",
        "",
    ],
)  # fmt: skip
def test_anything_else_is_malformed(text):
    assert not response_format.parse_response(text).well_formed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("That sounds hard.\n", "That sounds hard."),
        ("<answer>Hi.</answer> bye", "Hi."),
        ("<answer>Hi.</answer> <answer>Ho.</answer>", "<answer>Hi.</answer> <answer>Ho.</answer>"),
        ("<answer> </answer>", "<answer> </answer>"),
        ("<answer>Hi.", "<answer>Hi."),
        ("<answer>a <reasoning> b</answer>", "<answer>a <reasoning> b</answer>"),
    ],
)
def test_reply_without_one_clean_answer_block_is_scored_whole(text, answer):
    assert response_format.parse_response(text).answer == answer


def test_stated_intensity_of_a_wordy_answer_is_still_read():
    response = response_format.parse_response(GOOD.replace("Are you safe?", "A. B. C."))
    assert (response.well_formed, response.stated_intensity) == (False, 3)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("Yes", 1),
        ("Yes.", 1),
        ("Yes. And no", 2),
        ("Really?! No...", 2),
        ('He said "stop." Then left.', 2),
        ("It costs 3.50 now.", 1),
        ("  One.  ", 1),
        ("A. B! C? D", 4),
    ],
)
def test_number_of_sentences_is(text, number):
    assert response_format.count_sentences(text) == number


@pytest.mark.parametrize(
    ("token_ids", "number"),
    [
        ([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]], 2),
        ([[1, 2], [3, 2]], 0),
        ([[1, 2, 3]], 2),  # a prompt keeps a token of its own
        ([[1, 2], [1, 2, 3]], 1),
        ([[1]], 0),
    ],
)
def test_prompts_share_as_many_tokens_as_all_begin_with(token_ids, number):
    assert response_format.shared_prefix(token_ids) == number
