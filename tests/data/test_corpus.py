"""What the README of the embedded corpus claims of it."""

import csv
import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from gpro_empathy import labels, response_format
from gpro_empathy.data import dialogue, wassa

CORPUS = Path(__file__).parents[2] / "data/embedded"
PARTS = ("corpus", "validation", "test")
# Means and standard deviations of the official train file.
WASSA = {"emotion": (2.22, 0.82), "polarity": (1.29, 0.61), "empathy": (2.09, 0.92)}


def json_lines(name):
    return [json.loads(line) for line in (CORPUS / name).read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def rows():
    with (CORPUS / "turns.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, escapechar="\\", doublequote=False))


@pytest.fixture(scope="module")
def turns():
    return wassa.read_labelled(CORPUS / "turns.csv")


@pytest.fixture(scope="module")
def stories():
    return json_lines("stories.jsonl")


@pytest.fixture(scope="module")
def parts(turns, stories):
    """Return the turns of each part, as stories.jsonl marks them."""
    part = {str(story["article_id"]): story["part"] for story in stories}
    return {name: [turn for turn in turns if part[turn.story] == name] for name in PARTS}


@pytest.fixture(scope="module")
def demonstrations():
    return json_lines("demonstrations.jsonl")


@pytest.fixture(scope="module")
def answered(turns, demonstrations):
    """Return the text that each demonstration answers, in their order."""
    text = {turn.key: turn.text for turn in turns}
    return [row["text"] if "text" in row else text[key(row)] for row in demonstrations]


def key(demonstration):
    return f"{demonstration['conversation']}.{demonstration['turn']}"


def words(text):
    """Return the words without their apostrophes, which quotes within turns look like."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", ""))


def test_sizes_are_those_that_the_readme_states(parts, turns, stories, demonstrations):
    text = (CORPUS / "README.md").read_text(encoding="utf-8")
    assert f"| `turns.csv` | {len(turns):,} turns of {len({turn.conversation for turn in turns})} conversations" in text
    assert f"| `stories.jsonl` | {len(stories)} invented news stories" in text
    readings = len((CORPUS / "readings.jsonl").read_text(encoding="utf-8").splitlines())
    assert f"| `readings.jsonl` | {readings:,} answers of policies" in text
    own = sum("text" in row for row in demonstrations)
    assert f"| `demonstrations.jsonl` | {len(demonstrations):,} plain, short responses" in text
    assert f"{len(demonstrations) - own:,} to turns of the corpus part, {own:,} to messages of their own" in text
    for name, own in parts.items():
        sizes = len({turn.story for turn in own}), len({turn.conversation for turn in own}), f"{len(own):,}"
        assert "| `{}` | {} | {} | {} |".format(name, *sizes) in text


def test_three_conversations_stand_on_each_story(turns, stories):
    pairs = {(turn.story, turn.conversation) for turn in turns}
    assert Counter(story for story, _ in pairs) == {str(story["article_id"]): 3 for story in stories}


def test_columns_are_those_of_the_official_train_file(rows):
    assert list(rows[0]) == [
        "id", "article_id", "conversation_id", "turn_id", "speaker", "text", "person_id_1", "person_id_2",
        "Emotion", "EmotionalPolarity", "Empathy", "SelfDisclosure",
    ]  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("label", labels.LABELS)
def test_labels_are_spread_as_in_the_official_data_and_as_the_readme_states(parts, part, label):
    values = [getattr(turn, label) for turn in parts[part]]
    assert None not in values
    mean, sd = WASSA[label]
    assert np.mean(values) == pytest.approx(mean, abs=0.4)
    assert np.std(values, ddof=1) == pytest.approx(sd, abs=0.3)
    text = (CORPUS / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {dialogue.COLUMNS[label]}, mean / SD .*$", text, re.MULTILINE)
    assert row.split(" | ")[1 + PARTS.index(part)] == f"{np.mean(values):.2f} / {np.std(values, ddof=1):.2f}"


def test_labels_are_means_of_three_annotators(turns):
    values = [getattr(turn, label) for turn in turns for label in labels.LABELS]
    assert max(abs(3 * value - round(3 * value)) for value in values) < 0.001
    assert max(turn.polarity for turn in turns) <= 2


def test_texts_are_distinct_and_long_ones_of_the_test_stories_are_new(parts):
    texts = {name: [turn.text.lower() for turn in own] for name, own in parts.items()}
    assert all(len(set(own)) >= 0.98 * len(own) for own in texts.values())
    others = set(texts["corpus"]) | set(texts["validation"])
    assert [text for text in set(texts["test"]) & others if len(text.split()) > 4] == []


def test_speakers_alternate_and_turns_are_counted_from_zero(rows):
    conversations = defaultdict(list)
    for row in rows:
        conversations[row["conversation_id"]].append(row)
    for number, own in conversations.items():
        assert [int(row["turn_id"]) for row in own] == list(range(len(own))), number
        speakers = [row["speaker"] for row in own]
        assert set(speakers) == {"Person 1", "Person 2"}, number
        assert all(a != b for a, b in itertools.pairwise(speakers)), number
        assert len({(row["article_id"], row["person_id_1"], row["person_id_2"]) for row in own}) == 1, number


def test_either_person_starts(rows):
    first = Counter(row["speaker"] for row in rows if row["turn_id"] == "0")
    assert min(first["Person 1"], first["Person 2"]) > 0


def test_every_conversation_is_about_a_story_that_is_there_once(rows, stories):
    known = Counter(story["article_id"] for story in stories)
    assert set(known.values()) == {1}
    assert {int(row["article_id"]) for row in rows} == set(known)


def test_stories_differ_in_title_and_text(stories):
    assert len({story["title"] for story in stories}) == len({story["text"] for story in stories}) == len(stories)


# The demonstrations, by those rules of the guidelines that can be counted


def test_demonstrations_are_of_the_turns_of_four_words_of_the_corpus_part(parts, demonstrations):
    keys = [key(row) for row in demonstrations if "text" not in row]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {turn.key for turn in parts["corpus"] if len(turn.text.split()) >= 4}


def test_messages_of_their_own_are_distinct_and_none_is_a_turn(turns, demonstrations):
    messages = [row["text"].lower() for row in demonstrations if "text" in row]
    assert len(set(messages)) == len(messages)
    assert not set(messages) & {turn.text.lower() for turn in turns}


def test_demonstrations_keep_the_stated_lengths(demonstrations):
    ranges = {"concern": (2, 7), "emotion": (1, 3), "approach": (2, 5), "answer": (6, 22)}
    wrong = [
        (row[key], key)
        for row in demonstrations
        for key, (low, high) in ranges.items()
        if not low <= len(row[key].split()) <= high
    ]
    assert wrong == []
    sentences = [len(re.findall(r"[.!?]+(?=\s|$)", row["answer"])) for row in demonstrations]
    assert {1, 2} >= set(sentences)


def test_demonstrations_state_the_rounded_label_and_every_intensity(turns, demonstrations):
    emotion = {turn.key: turn.emotion for turn in turns}
    of_turns = [row for row in demonstrations if "text" not in row]
    assert [key(row) for row in of_turns if row["intensity"] != round(emotion[key(row)])] == []
    assert {row["intensity"] for row in demonstrations} == {0, 1, 2, 3, 4, 5}


def test_concern_is_words_of_what_is_answered_in_a_row(answered, demonstrations):
    for text, row in zip(answered, demonstrations, strict=True):
        assert f" {' '.join(words(row['concern']))} " in f" {' '.join(words(text))} ", row


def test_answers_use_few_words_beside_those_of_what_they_answer_and_guess_nothing(answered, demonstrations):
    new = [set(words(row["answer"])) - set(words(text)) for text, row in zip(answered, demonstrations, strict=True)]
    assert len(set().union(*new)) < 1200
    guesses = re.compile(r"\b(must|would|could|might) have\b")
    assert [row["answer"] for row in demonstrations if guesses.search(row["answer"])] == []


def test_no_answer_stands_often(demonstrations):
    counts = Counter(row["answer"] for row in demonstrations)
    assert max(counts.values()) <= 0.011 * len(demonstrations)
    assert len(counts) > len(demonstrations) * 0.7


def test_demonstrations_come_back_from_the_response_format(demonstrations):
    for row in demonstrations:
        assert response_format.parse_response(response_format.format_response(row)).well_formed, row
