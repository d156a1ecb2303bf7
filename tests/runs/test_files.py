import pytest

from echomen_hf.runs.files import escape_formula, unescape_formula


@pytest.mark.parametrize(
    "text",
    [
        *(
            "=1+1",
            "+cmd|' /C calc'!A0",
            "-1+1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "\uff1d1",
            "-",
            "+",
            "--1",
            "-1,5",
        ),
        *("-1_000", "+inf", "'=1", "''=1", "'-5"),
    ],
)
def test_formulas_become_text_and_come_back(text):
    assert escape_formula(text) == f"'{text}"
    assert unescape_formula(escape_formula(text)) == text


@pytest.mark.parametrize("text", ["", "a", "a=1", "'", "'a", "''", "-5", "+5.", "-.5", "-1.5e-07", "1-2", " =1"])
def test_other_text_and_numbers_stay(text):
    assert escape_formula(text) == unescape_formula(text) == text
