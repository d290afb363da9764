import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy import text_measures


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don\u2019t GO, it's 3 o'clock!", ["don't", "go", "it's", "3", "o'clock"]),
        ("snake_case 'quoted'", ["snake", "case", "quoted"]),
        ("Überall, naïve", ["überall", "naïve"]),
        ("... \U0001f622 --", []),
    ],
)
def test_words_are(text, words):
    assert text_measures.words(text) == words


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("so sad so sad so sad", 1, 2 / 6),
        ("so sad so sad so sad", 2, 2 / 5),  # so sad x3, sad so x2
        ("so sad so sad so sad", 3, 2 / 4),
        ("a b c", 2, 1.0),
        ("a", 2, 1.0),
        ("", 1, 1.0),
        ("So, so", 1, 0.5),
    ],
)
def test_share_of_distinct_n_grams_is(text, n, share):
    assert text_measures.distinct_n(text, n) == pytest.approx(share)


@pytest.mark.parametrize(
    ("source", "text", "share"),
    [
        ("my dog died", "your dog died", 1.0),
        ("my dog died", "I am sorry about your Dog", 0.5),  # sorry, dog
        ("my dog died", "dog dog dog cat", 0.5),
        ("the flood took it all", "it was in the past", 0.0),  # shares function words alone
        ("my dog died", "I was there", 0.0),  # has function words alone
        ("", "so sad", 0.0),
        ("x", "", 0.0),
    ],
)
def test_overlap_counts_distinct_content_words_of_the_answer(source, text, share):
    assert text_measures.overlap(source, text) == pytest.approx(share)


@given(st.text(), st.text())
def test_measures_lie_between_0_and_1(source, text):
    assert 0 <= text_measures.overlap(source, text) <= 1
    assert 0 < text_measures.distinct_n(text, 2) <= 1


@given(st.text())
def test_a_parrot_overlaps_wholly_if_it_says_anything(text):
    content = set(text_measures.words(text)) - text_measures.FUNCTION_WORDS
    assert text_measures.overlap(text, text) == (1.0 if content else 0.0)


def test_function_words_are_words_as_they_are_counted():
    assert all(text_measures.words(word) == [word] for word in text_measures.FUNCTION_WORDS)
