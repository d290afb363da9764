import pytest

from gpro_empathy.report.number_format import LATEX, MARKDOWN, PAGE


@pytest.mark.parametrize(
    ("value", "signed", "latex", "page", "markdown"),
    [
        (1.234, False, r"\num{1.23}", "1.23", "1.23"),
        (1.234, True, r"\num{+1.23}", "+1.23", "+1.23"),
        (-1.234, True, r"\num{-1.23}", "\N{MINUS SIGN}1.23", "-1.23"),
        (-0.004, True, r"\num{0.00}", "0.00", "0.00"),
        (0.004, True, r"\num{0.00}", "0.00", "0.00"),
        (None, True, "--", "\N{EN DASH}", "not defined"),
    ],
)
def test_numbers_are_rounded_alike_and_written_as_the_text_needs(value, signed, latex, page, markdown):
    assert [form.number(value, 2, signed) for form in (LATEX, PAGE, MARKDOWN)] == [latex, page, markdown]


@pytest.mark.parametrize(
    ("p", "latex", "page"), [(0.0009, r"\num{<0.001}", "< 0.001"), (0.001, r"\num{0.001}", "0.001")]
)
def test_p_values_below_the_smallest_are_said_to_be(p, latex, page):
    assert (LATEX.p_value(p), PAGE.p_value(p)) == (latex, page)


def test_estimates_have_their_interval_where_there_is_one():
    assert MARKDOWN.estimate({"estimate": 0.5, "low": -0.25, "high": 1.0}) == "+0.50 [-0.25, 1.00]"
    assert MARKDOWN.estimate({"estimate": 0.5, "low": None, "high": None}, 1, signed=False) == "0.5"
    assert LATEX.interval(-0.25, 1.0, 1) == r"{[}\num{-0.2}, \num{1.0}{]}"
