from argparse import ArgumentTypeError

import pytest

from hear_tune.cli.common import non_negative_float, non_negative_int, positive_float, positive_int


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "1", 1),
        (non_negative_int, "0", 0),
        (positive_float, "0.5", 0.5),
        (non_negative_float, "0", 0),
    ],
)
def test_values_in_range(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((positive_int, text) for text in ("0", "-1", "1.5", "many")),
        *((non_negative_int, text) for text in ("-1", "1.5")),
        *((positive_float, text) for text in ("0", "-1", "nan", "inf", "long")),
        *((non_negative_float, text) for text in ("-1", "nan", "inf", "long")),
    ],
)
def test_values_out_of_range(kind, text):
    with pytest.raises(ArgumentTypeError, match=text):
        kind(text)
