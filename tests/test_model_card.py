from gpro_empathy import model_card


def test_card_is_a_title_and_paragraphs():
    assert model_card.render("A model", "One.", "Two.") == "# A model\n\nOne.\n\nTwo.\n"


def test_table_is_a_header_a_rule_and_rows_of_as_many_cells():
    assert model_card.table(["a", "b"], [("1", "2"), ("3", "4")]) == "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
