import pytest

from hear_tune.common.markdown import PageError, markdown_table, refill


def test_a_table_has_a_rule_below_its_head():
    rows = [["a", "b"], ["1", "2"]]
    assert markdown_table(rows) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert markdown_table(rows, right=True).splitlines()[1] == "| --- | --: |"


def test_only_the_part_between_the_marks_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("é\n<!-- x -->\nold\n<!-- end of x -->\n<!-- y -->\n", encoding="utf-8")
    refill(page, "x", "new")
    refill(page, "x", "newer")
    text = "é\n<!-- x -->\n\nnewer\n\n<!-- end of x -->\n<!-- y -->\n"
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(PageError, match=r"page\.md: has no lines <!-- y --> and <!-- end of y -->"):
        refill(page, "y", "new")
    assert page.read_text(encoding="utf-8") == text
