import pytest

from hear_tune.common.text import counted, first_n, table


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b, 2 more")],
)
def test_the_first_items_and_the_number_of_others(items, text):
    assert first_n(items, 2) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 clips"), (1, "1 clip"), (2, "2 clips"), (1_000, "1,000 clips")]
)
def test_things_are_counted(number, text):
    assert counted(number, "clip") == text


def test_columns_are_aligned():
    assert table([["name", "size"], ["a", "10"]]) == "name  size\na       10"
    assert table([["a", "b"], ["long", "c"]], right=[0]) == "   a  b\nlong  c"
