"""What the README of the embedded corpus claims of it."""

import csv
import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from gpro_empathy import labels, response_format
from gpro_empathy.data import wassa

CORPUS = Path(__file__).parents[2] / "data/embedded"
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
def kept_turns():
    return wassa.read_labelled(CORPUS / "test_turns.csv")


@pytest.fixture(scope="module")
def stories():
    return json_lines("stories.jsonl")


@pytest.fixture(scope="module")
def demonstrations():
    return json_lines("demonstrations.jsonl")


def test_corpus_is_as_large_as_it_claims(turns, stories, demonstrations):
    assert len({turn.conversation for turn in turns}) >= 120
    assert len(turns) >= 1000
    assert len(stories) >= 40
    assert len(demonstrations) >= 250


def test_columns_are_those_of_the_official_train_file(rows):
    assert list(rows[0]) == [
        "id", "article_id", "conversation_id", "turn_id", "speaker", "text", "person_id_1", "person_id_2",
        "Emotion", "EmotionalPolarity", "Empathy", "SelfDisclosure",
    ]  # fmt: skip


@pytest.mark.parametrize("label", labels.LABELS)
def test_labels_are_spread_as_in_the_official_data(turns, label):
    values = [getattr(turn, label) for turn in turns]
    assert None not in values
    mean, sd = WASSA[label]
    assert np.mean(values) == pytest.approx(mean, abs=0.4)
    assert np.std(values, ddof=1) == pytest.approx(sd, abs=0.3)


def test_labels_are_means_of_three_annotators(turns):
    values = [getattr(turn, label) for turn in turns for label in labels.LABELS]
    assert max(abs(3 * value - round(3 * value)) for value in values) < 0.001
    assert max(turn.polarity for turn in turns) <= 2


def test_texts_are_distinct(turns):
    assert len({turn.text.lower() for turn in turns}) >= 0.98 * len(turns)


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


def test_every_conversation_is_about_a_story_that_is_there(rows, stories):
    known = Counter(story["article_id"] for story in stories)
    assert set(known.values()) == {1}
    talked_about = {int(row["article_id"]) for row in rows}
    assert talked_about <= set(known)
    assert len(talked_about) >= 40


def test_stories_differ_in_title_and_text(stories):
    assert len({story["title"] for story in stories}) == len({story["text"] for story in stories}) == len(stories)


def test_every_demonstration_is_of_a_turn_and_states_its_rounded_intensity(turns, demonstrations):
    emotions = {turn.key: turn.emotion for turn in turns}
    keys = [f"{row['conversation']}.{row['turn']}" for row in demonstrations]
    assert len(set(keys)) == len(keys)
    wrong = [key for key, row in zip(keys, demonstrations, strict=True) if row["intensity"] != round(emotions[key])]
    assert wrong == []


def test_demonstrations_show_every_common_intensity(demonstrations):
    assert {0, 1, 2, 3, 4} <= {row["intensity"] for row in demonstrations}


def test_answers_are_distinct_and_of_the_stated_length(demonstrations):
    assert len({row["answer"] for row in demonstrations}) == len(demonstrations)
    words = [len(row["answer"].split()) for row in demonstrations]
    assert np.mean([(8 <= n <= 32) for n in words]) >= 0.98


# The stories that are kept for a test, and the plain demonstrations


def test_kept_stories_are_about_other_events(stories, kept_turns):
    kept = json_lines("test_stories.jsonl")
    assert not {story["article_id"] for story in kept} & {story["article_id"] for story in stories}
    assert not {story["title"] for story in kept} & {story["title"] for story in stories}
    assert {story["part"] for story in kept} == {"test"}
    assert len(kept) >= 16
    assert len(kept_turns) >= 450


def test_kept_turns_are_three_conversations_on_each_kept_story(kept_turns, turns):
    with (CORPUS / "test_turns.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, escapechar="\\", doublequote=False))
    conversations = {(row["article_id"], row["conversation_id"]) for row in rows}
    per_story = Counter(int(story) for story, _ in conversations)
    assert per_story == {story["article_id"]: 3 for story in json_lines("test_stories.jsonl")}
    assert not {turn.conversation for turn in kept_turns} & {turn.conversation for turn in turns}
    for conversation in {turn.conversation for turn in kept_turns}:
        speakers = [row["speaker"] for row in rows if row["conversation_id"] == conversation]
        assert all(a != b for a, b in itertools.pairwise(speakers)), conversation


def test_kept_turns_are_not_those_of_the_corpus(kept_turns, turns):
    known = {turn.text.lower() for turn in turns}
    repeated = [turn.text for turn in kept_turns if turn.text.lower() in known and len(turn.text.split()) > 4]
    assert repeated == []


@pytest.mark.parametrize("label", WASSA)
def test_kept_labels_are_spread_as_in_the_official_data(kept_turns, label):
    values = [getattr(turn, label) for turn in kept_turns]
    mean, sd = WASSA[label]
    assert np.mean(values) == pytest.approx(mean, abs=0.4)
    assert np.std(values, ddof=1) == pytest.approx(sd, abs=0.3)
    assert max(abs(3 * value - round(3 * value)) for value in values) < 0.001


def test_plain_demonstrations_follow_their_rules(turns):
    by_key = {turn.key: turn for turn in turns}
    rows = json_lines("plain_demonstrations.jsonl")
    assert len({(row["conversation"], row["turn"]) for row in rows}) == len(rows) >= 1100
    assert len({row["answer"] for row in rows}) == len(rows)
    for row in rows:
        turn = by_key[f"{row['conversation']}.{row['turn']}"]
        assert row["intensity"] == round(turn.emotion), row
        assert 8 <= len(row["answer"].split()) <= 24, row
        assert response_format.parse_response(response_format.format_response(row)).well_formed, row
