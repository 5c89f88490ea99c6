"""Rules of the window one by one; `WindowMachine` compares all of them with a plain list."""

import math

import pytest

from clipper_stream.batching.window import Taken, Window
from clipper_stream.errors import InvalidSetting

NEVER = math.inf


def filled(items, max_delay_s=0.0, shape="s", deadline_s=NEVER, now_s=0.0):
    window = Window(max_delay_s)
    for item in items:
        window.add(item, shape, deadline_s, now_s)
    return window


def test_fewer_rows_than_the_limit_wait_until_the_oldest_has_waited_long_enough():
    window = filled("a", max_delay_s=0.5)
    window.add("b", "s", NEVER, 0.25)
    assert window.take(0.25, 8) == Taken(batch=[], late=[], wake_at_s=0.5)
    assert window.take(0.5, 8) == Taken(batch=["a", "b"], late=[], wake_at_s=None)


def test_a_full_batch_does_not_wait():
    assert filled("ab", max_delay_s=10.0).take(0.0, 2).batch == ["a", "b"]


def test_a_full_shape_does_not_wait_for_an_older_one_that_is_not():
    window = filled("a", max_delay_s=1.0, shape="A")
    window.add("b1", "B", NEVER, 0.1)
    window.add("b2", "B", NEVER, 0.1)
    assert window.take(0.1, 2) == Taken(batch=["b1", "b2"], late=[], wake_at_s=1.0)


def test_a_row_is_late_at_its_deadline_and_not_before():
    assert filled("a", deadline_s=1.0).take(math.nextafter(1.0, 0.0), 8).batch == ["a"]
    assert filled("a", deadline_s=1.0).take(1.0, 8) == Taken(batch=[], late=["a"], wake_at_s=None)


def test_a_row_that_cannot_be_answered_in_time_is_late_before_its_deadline():
    assert filled("a", deadline_s=1.0).take(0.7, 8, needed_s=0.3).late == ["a"]
    assert filled("a", deadline_s=1.0).take(0.6, 8, needed_s=0.3).batch == ["a"]


def test_a_row_that_has_just_come_is_tried_however_little_time_it_has():
    assert filled("a", deadline_s=0.1).take(0.05, 8, needed_s=5.0).batch == ["a"]


@pytest.mark.parametrize("max_delay_s", [-0.001, math.nan])
def test_a_negative_delay_is_refused(max_delay_s):
    with pytest.raises(InvalidSetting, match="max_delay_s"):
        Window(max_delay_s)
