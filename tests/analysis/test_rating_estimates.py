import itertools

import numpy as np
import pytest
from scipy import stats

from gpro_empathy.analysis import bootstrap, rating_estimates
from gpro_empathy.analysis.rating_estimates import Marks


def crossed(rng, raters, severity, *, stories=18, answers=5, seen=1.0):
    """Draw marks of raters of different severity; each sees a share of the answers."""
    story_I = np.repeat(np.arange(stories), answers)
    true_I = rng.normal(0, 0.5, stories)[story_I] + rng.normal(0, 0.8, len(story_I))
    rows = []
    for rater, bias in enumerate(rng.normal(0, severity, raters)):
        for item in rng.permutation(len(story_I))[: int(seen * len(story_I))]:
            rows.append((item, story_I[item], rater, true_I[item] + bias + rng.normal(0, 0.5)))
    return rows


def test_an_item_counts_once_however_many_rated_it():
    marks = Marks([("a", "s", "A", 1.0), ("a", "s", "B", 0.0), ("a", "s", "C", 0.5), ("b", "t", "A", 1.0)])
    assert marks.estimate == pytest.approx(0.75)
    assert (marks.items, marks.stories, marks.raters) == (2, 2, 3)


def test_interval_of_one_rater_is_that_over_stories():
    rows = crossed(np.random.default_rng(2), 1, 0.0)
    value_P, story_P = np.array([row[3] for row in rows]), np.array([row[1] for row in rows])
    data = bootstrap.clusters(value_P[:, None], story_P)
    boot_R1 = bootstrap.bootstrap_means(data, 4000, np.random.default_rng(4))
    low_1, high_1 = bootstrap.bca_interval(data, boot_R1, 0.95)
    found = rating_estimates.mean(Marks(rows), 0.95, 4000, np.random.default_rng(4))
    assert found["estimate"] == pytest.approx(value_P.mean())
    assert (found["low"], found["high"]) == (pytest.approx(low_1[0], abs=0.03), pytest.approx(high_1[0], abs=0.03))


def test_variance_between_raters_is_what_pairs_of_ratings_say():
    rows = crossed(np.random.default_rng(5), 4, 0.6, stories=6, answers=2, seen=0.7)
    pairs = [(one, other) for one, other in itertools.combinations(rows, 2) if one[1] != other[1]]
    half = {
        same: np.mean([(a[3] - b[3]) ** 2 / 2 for a, b in pairs if (a[2] == b[2]) == same]) for same in (True, False)
    }
    raters_of = {item: sum(row[0] == item for row in rows) for item in {row[0] for row in rows}}
    weight_R = [sum(1 / raters_of[row[0]] for row in rows if row[2] == rater) / len(raters_of) for rater in range(4)]
    expected = max(half[False] - half[True], 0) * np.sum(np.square(weight_R))
    assert expected > 0
    assert Marks(rows).between_raters() == pytest.approx(expected)


def test_two_raters_who_differ_by_a_constant_worked_by_hand():
    # Every mark of B is 2 above A's: severities 0 and 2 have the variance 2; each weighs one half.
    rows = [(item, item, rater, 2.0 * rater) for item in range(12) for rater in (0, 1)]
    assert Marks(rows).between_raters() == pytest.approx(2 * (0.25 + 0.25))


def test_raters_who_agree_and_a_single_one_add_nothing():
    rows = crossed(np.random.default_rng(6), 1, 0.0)
    assert Marks(rows).between_raters() == 0
    assert Marks(rows + [(item, story, "B", value) for item, story, _, value in rows]).between_raters() == 0


@pytest.mark.parametrize("value_I", [[0.0, 1.0] * 9, [0.0] * 17 + [1.0], [1.0] * 18, [0.0] * 18])
def test_interval_of_a_share_holds_the_shares_that_its_score_test_keeps(value_I):
    marks = Marks([(item, item, "A", value) for item, value in enumerate(value_I)])
    found = rating_estimates.share(marks, 0.9)
    precision = rating_estimates.precision(marks)
    value = np.mean(value_I)
    # Of independent answers the jackknife's variance is p (1 - p) / (n - 1).
    effective = 17 if 0 < value < 1 else 18
    assert precision.variance == pytest.approx(value * (1 - value) / 17)
    quantile = stats.t.ppf(0.95, precision.degrees_of_freedom)
    for end in (found["low"], found["high"]):
        if 0 < end < 1:
            assert abs(value - end) == pytest.approx(quantile * np.sqrt(end * (1 - end) / effective))
        else:
            assert end == value
    assert found["high"] - found["low"] > 0.1


def test_answers_on_a_story_that_are_alike_count_less():
    apart = Marks([(item, item // 2, "A", item % 2) for item in range(48)])
    alike = Marks([(item, item // 2, "A", item // 2 % 2) for item in range(48)])
    variance = [rating_estimates.precision(one).variance for one in (apart, alike)]
    assert variance == pytest.approx([0.25 / 48, 0.25 / 24], rel=0.05)
    width = [found["high"] - found["low"] for found in (rating_estimates.share(one, 0.95) for one in (apart, alike))]
    assert width[1] > 1.3 * width[0]


@pytest.mark.parametrize(("raters", "seen"), [(1, 1.0), (3, 1.0), (3, 0.4)])
@pytest.mark.parametrize("cut", [None, 1.0])
def test_intervals_cover_the_truth_over_new_stories_and_new_raters(raters, seen, cut):
    rng, severity = np.random.default_rng(7), 0.2 * (raters > 1)
    true = 0.0 if cut is None else stats.norm.sf(cut / np.sqrt(0.5**2 + 0.8**2 + 0.5**2 + severity**2))
    covered = []
    for _ in range(200):
        rows = crossed(rng, raters, severity, seen=seen)
        if cut is None:
            found = rating_estimates.mean(Marks(rows), 0.95, 200, rng)
        else:
            found = rating_estimates.share(Marks([(*row[:3], float(row[3] > cut)) for row in rows]), 0.95)
        covered.append(found["low"] <= true <= found["high"])
    assert 0.89 <= np.mean(covered) <= 0.995


def test_few_stories_and_values_that_do_not_vary_give_no_interval():
    few = Marks([(item, item % 11, "A", item % 2) for item in range(44)])
    assert rating_estimates.share(few, 0.95) == {"estimate": 0.5, "low": None, "high": None}
    assert rating_estimates.precision(few) is None
    same = Marks([(item, item, "A", 3.0) for item in range(20)])
    found = rating_estimates.mean(same, 0.95, 100, np.random.default_rng(1))
    assert found == {"estimate": 3.0, "low": None, "high": None}


def test_nothing_rated_and_a_value_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match="no ratings"):
        Marks([])
    with pytest.raises(ValueError, match=r"'b', 's', 'A', nan"):
        Marks([("a", "s", "A", 1.0), ("b", "s", "A", float("nan"))])
