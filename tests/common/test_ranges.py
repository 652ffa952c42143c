from math import inf, nan

import pytest

from hear_tune.common.ranges import above, at_least, one_of


def test_values_in_range():
    at_least(1, a=1, b=2.5, c=None)
    above(0, a=1e-9)
    one_of(["x", "y"], a="x", b="y")


@pytest.mark.parametrize("number", [0, 0.999, -1])
def test_the_first_number_below_the_lowest_is_named(number):
    with pytest.raises(ValueError, match=f"b must be at least 1, not {number}"):
        at_least(1, a=1, b=number, c=0)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_not_above_the_limit_is_named(number):
    with pytest.raises(ValueError, match=f"b must be above 0, not {number}"):
        above(0, a=1, b=number)


@pytest.mark.parametrize("number", [nan, inf, -inf])
def test_numbers_must_be_finite(number):
    with pytest.raises(ValueError, match=f"a must be a finite number of at least 1, not {number}"):
        at_least(1, a=number)
    with pytest.raises(ValueError, match=f"a must be a finite number above 0, not {number}"):
        above(0, a=number)


def test_an_unknown_choice_is_named():
    with pytest.raises(ValueError, match="b must be one of x, y, not 'z'"):
        one_of(["x", "y"], a="x", b="z")
