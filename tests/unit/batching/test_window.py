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


def test_an_empty_window_gives_nothing_and_need_not_be_asked_again():
    assert Window(0.01).take(0.0, 8) == Taken(batch=[], late=[], wake_at_s=None)


def test_without_a_delay_what_is_there_goes():
    assert filled("ab").take(0.0, 8) == Taken(batch=["a", "b"], late=[], wake_at_s=None)


def test_a_batch_has_at_most_the_limit_and_the_rest_may_go_next():
    window = filled("abcde")
    taken = window.take(0.0, 2)
    assert (taken.batch, len(window)) == (["a", "b"], 3)
    assert taken.wake_at_s <= 0.0
    assert window.take(0.0, 8).batch == ["c", "d", "e"]


def test_fewer_rows_than_the_limit_wait_until_the_oldest_has_waited_long_enough():
    window = filled("a", max_delay_s=0.5)
    window.add("b", "s", NEVER, 0.25)
    assert window.take(0.25, 8) == Taken(batch=[], late=[], wake_at_s=0.5)
    assert window.take(0.5, 8) == Taken(batch=["a", "b"], late=[], wake_at_s=None)


def test_a_full_batch_does_not_wait():
    assert filled("ab", max_delay_s=10.0).take(0.0, 2).batch == ["a", "b"]


def test_what_a_full_batch_leaves_waits_from_its_own_oldest_row_on():
    window = filled("ab", max_delay_s=0.5)
    window.add("c", "s", NEVER, 0.25)
    assert window.take(0.25, 2) == Taken(batch=["a", "b"], late=[], wake_at_s=0.75)


def test_shapes_are_never_mixed_and_the_shape_of_the_oldest_row_goes_first():
    window = Window(0.0)
    for item, shape in (("a1", "A"), ("b1", "B"), ("a2", "A")):
        window.add(item, shape, NEVER, 0.0)
    assert window.take(0.0, 8).batch == ["a1", "a2"]
    assert window.take(0.0, 8).batch == ["b1"]


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


def test_late_rows_take_no_place_in_the_batch():
    window = Window(0.0)
    for item, deadline_s in (("a", NEVER), ("b", 1.0), ("c", NEVER), ("d", NEVER)):
        window.add(item, "s", deadline_s, 0.0)
    taken = window.take(1.0, 2)
    assert (taken.batch, taken.late, len(window)) == (["a", "c"], ["b"], 1)


def test_late_rows_in_front_do_not_make_a_batch_full():
    window = Window(5.0)
    for item, deadline_s in (("a", 6.0), ("b", 6.0), ("c", NEVER)):
        window.add(item, "s", deadline_s, 0.0 if item != "c" else 5.5)
    assert window.take(6.0, 3) == Taken(batch=[], late=["a", "b"], wake_at_s=10.5)


def test_a_row_that_cannot_afford_the_wait_makes_the_batch_go_at_once():
    window = filled("a", max_delay_s=0.5)
    window.add("urgent", "s", 0.3, 0.1)
    assert window.take(0.1, 8).batch == ["a", "urgent"]
    window.add("b", "s", NEVER, 0.2)
    assert window.take(0.2, 8).batch == []


@pytest.mark.parametrize("max_delay_s", [-0.001, math.nan])
def test_a_negative_delay_is_refused(max_delay_s):
    with pytest.raises(InvalidSetting, match="max_delay_s"):
        Window(max_delay_s)
