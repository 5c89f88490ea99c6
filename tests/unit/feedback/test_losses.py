"""Losses in [0, 1], whatever types the label and the output arrive in."""

import math
from functools import reduce
from typing import Any

import pytest

from clipper_stream.errors import InvalidLabel, UnknownName
from clipper_stream.feedback.update import differences, loss_of, loss_of_rows, same

EQUAL = [
    (3, 3), (3, 3.0), (3, "3"), ("3.0", 3), ("01", 1), (True, 1), ("cat", "cat"), ([1, "a"], (1.0, "a")),
    ({"x": 1}, {"x": 1.0}), (str(2**53 + 1), 2**53 + 1),
]  # fmt: skip
DIFFERENT = [
    (3, 4), ("cat", "Cat"), ("01", "1"), ([1, 2], [1, 3]), ([1, 2], [1, 2, 3]), (["a", 1], ["b", 2, 3]), ([], [1]),
    ([1, None], [1, 2]), ({"x": 1}, {"y": 1}), (2**53 + 1, 2**53), (3, None), (3, math.nan),
]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "output", "loss"), [*((*pair, 0.0) for pair in EQUAL), *((*pair, 1.0) for pair in DIFFERENT)]
)
def test_zero_one_compares_text_as_text_and_all_else_as_numbers_where_it_can(label, output, loss):
    assert loss_of("zero_one", label, output) == loss


@pytest.mark.parametrize(
    ("kind", "label", "output", "loss"),
    [
        ("absolute", 0.25, 0.75, 0.5),
        ("absolute", "0.25", 0.75, 0.5),
        ("absolute", 10, 3, 1.0),
        ("absolute", [0.0, 1.0], [0.5, 1.0], 0.25),
        ("absolute", [[0.0], [1.0]], [[0.5], [0.0]], 0.75),
        ("absolute", True, 0.25, 0.75),
        ("absolute", 0.5, math.nan, 1.0),
        ("absolute", 0.5, None, 1.0),
        ("absolute", 0.5, 10**400, 1.0),
        ("squared", 0.25, 0.75, 0.25),
        ("squared", 0, 1e300, 1.0),
        ("absolute:10", 7, 4, 0.3),
        ("absolute:0.5", [0, 0], [0.25, 9], 0.75),
        ("squared:10.0", 7, 4, 0.09),
        ("squared", 0.5, -math.inf, 1.0),
    ],
)
def test_numeric_losses_are_clipped_and_averaged_over_elements(kind, label, output, loss):
    assert loss_of(kind, label, output) == loss


REFUSED: dict[str, list[tuple[Any, Any]]] = {
    "zero_one": [
        (None, 3), ("cat", 3), ({"class": "cat"}, 3), ([0], 3), (3, "cat"), (True, "true"), (3, [3]), ("cat", ["cat"]),
        (["cat"], [3]), ([[1], [2]], [1, 2]), ({"x": 1}, "x"), (math.nan, 3), (10**400, 3), ("inf", 3),
        ([1, [math.inf]], [1, [3]]),
    ],
    "absolute": [
        ("cat", 0.5), (0.5, "cat"), (math.nan, 0.5), ([1.0], [1.0, 2.0]), (1.0, [1.0]), ([], []), ({"x": 1}, 1.0),
    ],
    "squared": [(math.inf, 0.5), (10**400, 0.5)],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "label", "output"), [(kind, *pair) for kind in REFUSED for pair in REFUSED[kind]])
def test_a_label_that_cannot_be_compared_is_refused(kind, label, output):
    with pytest.raises(InvalidLabel, match=r"give|use"):
        loss_of(kind, label, output)


def test_an_unknown_loss_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match="use one of absolute, squared, zero_one"):
        loss_of("hinge", 1, 1)


@pytest.mark.parametrize("kind", ["zero_one:2", "hinge:2"])
def test_a_scale_of_a_loss_that_measures_nothing_is_refused(kind):
    with pytest.raises(UnknownName, match="use one of"):
        loss_of(kind, 1, 1)


@pytest.mark.parametrize(
    ("label", "output", "found"),
    [([1, [2.5]], [4, [2]], [3.0, 0.5]), (1, None, []), ([1], [1, 2], []), (1, math.inf, []), ("1", 1, [0.0])],
)
def test_differences_are_those_of_all_finite_numbers_and_none_where_nothing_is_compared(label, output, found):
    assert differences(label, output) == found


def test_the_loss_of_several_rows_is_their_mean():
    assert loss_of_rows("zero_one", [1, 2, 3, 4], [1, 2, 3, None]) == 0.25
    assert loss_of_rows("absolute", [[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]) == 0.25


@pytest.mark.parametrize(
    ("labels", "outputs"), [*((one, [1, 2]) for one in ([1], [1, 2, 3], 1, "12", {}, None)), ([], [])]
)
def test_labels_have_to_be_one_for_each_row(labels, outputs):
    with pytest.raises(InvalidLabel, match="one label a row"):
        loss_of_rows("zero_one", labels, outputs)


def test_equality_is_symmetric():
    values = [0, 1, "1", "01", 1.0, True, None, "cat", [1], ["1"], [1, 2], {"a": 1}, math.inf, "inf"]
    assert all(same(first, second) == same(second, first) for first in values for second in values)


def test_a_label_of_any_depth_is_refused_in_a_short_message():
    with pytest.raises(InvalidLabel) as caught:
        loss_of("absolute", reduce(lambda deep, _: [deep], range(2000), []), 1.0)
    assert len(str(caught.value)) < 200
