import pytest

from gpro_empathy.analysis import rater_agreement

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, the data of four observers.
_ = None
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
)
BY_UNIT = {n: [value for value in unit if value is not None] for n, unit in enumerate(zip(*OBSERVERS, strict=True))}


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_the_published_example(level, alpha):
    found = rater_agreement.among(BY_UNIT, (1, 2, 3, 4, 5), level)
    assert found["alpha"] == pytest.approx(alpha, abs=0.0005)
    # The twelfth unit has one value.
    assert (found["items"], found["reason"]) == (11, None)


def test_alpha_of_choices_worked_by_hand():
    # Pairs a-a, a-b, b-b: of 6 values 3 are a. Disagreement: 2 / 6, by chance 2 * 3 * 3 / (6 * 5).
    found = rater_agreement.among({1: "aa", 2: "ab", 3: "bb"}, "abc", "nominal")
    assert found["alpha"] == pytest.approx(1 - (2 / 6) / (18 / 30))


def test_a_value_that_nobody_gave_changes_nothing():
    values = {1: (0, 0), 2: (0, 2), 3: (2, 2), 4: (2, 2)}
    wide, narrow = (rater_agreement.among(values, domain, "ordinal")["alpha"] for domain in ((0, 1, 2), (0, 2)))
    assert wide == pytest.approx(narrow)


def test_models_are_compared_with_persons_over_what_both_rated():
    persons = {1: [2, 2], 2: [0, 1], 3: [1]}
    models = {1: [2], 2: [0], 4: [2]}
    found = rater_agreement.between(models, persons, (0, 1, 2), "ordinal")
    # Each model's mark against each person's: 2-2, 2-2, 0-0, 0-1.
    expected = rater_agreement.among({1: (2, 2), 2: (2, 2), 3: (0, 0), 4: (0, 1)}, (0, 1, 2), "ordinal")
    assert found == expected | {"items": 2}
    opposite = rater_agreement.between({1: [0], 2: [2]}, {1: [2, 2], 2: [0, 0]}, (0, 1, 2), "ordinal")
    assert opposite["alpha"] < 0


@pytest.mark.parametrize(
    ("values", "items", "reason"),
    [
        ({}, 0, "nothing was rated twice"),
        ({1: [0], 2: [1]}, 0, "nothing was rated twice"),
        ({1: [1, 1], 2: [1, 1, 1], 3: [0]}, 2, "one value alone was given"),
    ],
)
def test_alpha_is_not_defined_without_two_values_rated_twice(values, items, reason):
    found = rater_agreement.among(values, (0, 1, 2), "ordinal")
    assert found == {"items": items, "alpha": None, "reason": reason}
