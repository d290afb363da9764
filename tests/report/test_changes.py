import pytest

from gpro_empathy.report import changes, latex


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"rose by \num{0.3} units", ["rose", "by", r"\num{0.3}", "units"]),
        (r"a \emph{b c} $p < \num{0.1}$, d", ["a", r"\emph{b c}", r"$p < \num{0.1}$,", "d"]),
        (r"in {[}1, 2{]} x", ["in", "{[}1, 2{]}", "x"]),
        (r"10\% a\ b \$5 c", [r"10\%", r"a\ b", r"\$5", "c"]),
        ("", []),
    ],
)
def test_words_keep_groups_intervals_mathematics_and_control_spaces_whole(text, found):
    assert list(changes.words(text)) == found


def test_a_number_in_a_sentence_is_marked_by_itself():
    old = r"Over \num{5} trainings raw empathy rose by \num{0.32} label units."
    new = r"Over \num{5} trainings raw empathy rose by \num{0.41} label units."
    marked = r"Over \num{5} trainings raw empathy rose by \changed{\num{0.32}}{\num{0.41}} label units."
    assert changes.side_by_side(old, new) == marked


def test_other_words_are_added_and_removed_and_other_sentences_shown_whole():
    assert changes.side_by_side("it did rise much", "it did rise") == r"it did rise \removed{much}"
    assert changes.side_by_side("it did rise", "it did now rise") == r"it did \added{now} rise"
    assert changes.side_by_side("One thing.", "All else is so.") == r"\changed{One thing.}{All else is so.}"
    assert changes.side_by_side("", "New.") == r"\added{New.}"
    assert changes.side_by_side("Old.", "") == r"\removed{Old.}"


def test_changed_macros_are_redefined_and_no_other():
    macros = {
        "RunA": r"\num{1}",
        "RunB": r"\num{2}",
        "RunNew": "x",
        "RunStudyPath": "reports/a.json",
        "RunBaselineVerdict": "Said.",
        "RunSumFormula": r"\left( a b \right)",
    }
    old = {
        "RunA": r"\num{1}",
        "RunB": r"\num{3}",
        "RunStudyPath": "b",
        "RunGone": "y",
        "RunSumFormula": r"\left( a c \right)",
    }
    text = changes.definitions(macros, old, ["ab12"])
    assert text.splitlines()[1:] == [
        r"\renewcommand{\RunB}{\changed{\num{3}}{\num{2}}}",
        r"\renewcommand{\RunNew}{\added{x}}",
        r"\renewcommand{\RunSumFormula}{\changed{\left( a c \right)}{\left( a b \right)}}",
        r"\keptexample{ab12}",
    ]
    assert changes.reason_for_nothing(text) is None


def test_kept_numbers_are_the_macros_as_they_are_typeset_but_those_of_the_baseline():
    macros = {"RunA": r"\num{+0.3} {[}1, 2{]}", "RunEmpty": "", "RunBaselineTold": "1"}
    assert changes.kept_numbers(latex.definitions(macros)) == {"RunA": r"\num{+0.3} {[}1, 2{]}", "RunEmpty": ""}


def test_changed_cells_of_a_table_are_marked_and_a_table_of_another_shape_is_left():
    old = latex.tabular("ll", ["metric", "change"], [["empathy", "0.1"], ["overlap", "0.2"]])
    new = latex.tabular("ll", ["metric", "change"], [["empathy", "0.3"], ["overlap", "0.2"]])
    longer = latex.tabular("ll", ["metric", "change"], [["empathy", "0.3"]])
    found = changes.tables({"a_table": new, "same_table": old, "short_table": longer, "new_table": new}, {
        "a_table": old, "same_table": old, "short_table": old
    })  # fmt: skip
    assert found == {"changed_a_table": new.replace("0.3", r"\changed{0.1}{0.3}")}


def test_tables_that_are_kept_are_those_of_the_report_but_the_baselines_own():
    texts = dict.fromkeys(("results_table", "numbers", "baseline_table", "changed_results_table"), "x")
    assert changes.kept_tables(texts) == {"results_table": "x"}


def test_why_nothing_is_shown_comes_back_in_one_line():
    assert changes.reason_for_nothing(changes.nothing("it is\nthe same")) == "it is the same"


def test_examples_are_told_apart_by_their_marks():
    assert changes.example_marks("\\example{ab12}\nx\n\\example{cd34}\n") == ["ab12", "cd34"]
