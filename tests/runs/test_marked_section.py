import pytest

from echomen_hf.runs.marked_section import replace_section


def test_sections_are_replaced_and_the_rest_is_left():
    text = "before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter\n"
    once = replace_section(text, "a", "new")
    assert once == "before\n<!-- a:begin -->\n\nnew\n\n<!-- a:end -->\nafter\n"
    assert replace_section(once, "a", "new") == once
    with pytest.raises(ValueError, match="b:begin"):
        replace_section(text, "b", "new")
