import math

from clipper_stream.query.deadlines import DEAD_ENTRIES, DeadlineQueue


def queue_of(**deadlines_s):
    queue = DeadlineQueue()
    for item, deadline_s in deadlines_s.items():
        queue.push(deadline_s, item)
    return queue


def test_due_items_come_earliest_first_and_once():
    queue = queue_of(c=3.0, a=1.0, b=2.0)
    assert queue.pop_due(2.0) == ["a", "b"]
    assert queue.pop_due(2.0) == []
    assert queue.next_s == 3.0


def test_an_item_is_due_at_its_deadline_and_not_before():
    queue = queue_of(a=1.0)
    assert queue.pop_due(math.nextafter(1.0, 0.0)) == []
    assert queue.pop_due(1.0) == ["a"]


def test_equal_deadlines_keep_the_order_of_pushing():
    assert queue_of(b=1.0, a=1.0, c=1.0).pop_due(1.0) == ["b", "a", "c"]


def test_items_need_not_be_comparable():
    queue = DeadlineQueue()
    queue.push(1.0, "text")
    queue.push(1.0, 7)
    assert queue.pop_due(1.0) == ["text", 7]


def test_an_empty_queue_has_no_next_deadline():
    queue = queue_of(a=1.0)
    queue.discard("a")
    assert (queue.next_s, len(queue), queue.pop_due(9.0)) == (None, 0, [])


def test_the_next_deadline_is_one_of_an_item_that_is_not_finished():
    queue = queue_of(a=1.0, b=2.0)
    queue.discard("a")
    assert queue.next_s == 2.0


def test_an_item_pushed_again_moves():
    queue = queue_of(a=1.0, b=2.0)
    queue.push(3.0, "a")
    assert (len(queue), queue.pop_due(2.0), queue.pop_due(3.0)) == (2, ["b"], ["a"])


def test_an_item_discarded_and_pushed_again_is_due_once():
    queue = queue_of(a=1.0)
    queue.discard("a")
    queue.push(1.0, "a")
    assert queue.pop_due(1.0) == ["a"]


def test_discarding_an_unknown_or_due_item_is_no_error():
    queue = queue_of(a=1.0)
    queue.pop_due(1.0)
    queue.discard("a")
    queue.discard("never seen")
    assert len(queue) == 0


def test_memory_follows_the_items_that_wait_when_most_finish_early():
    queue = DeadlineQueue()
    for item in range(10_000):
        queue.push(1e9 + item, item)
        queue.discard(item - 10)
    assert len(queue) == 10
    assert len(queue._heap) <= 2 * len(queue) + DEAD_ENTRIES


def test_memory_does_not_grow_when_one_item_moves_for_ever():
    queue = DeadlineQueue()
    for moment in range(10_000):
        queue.push(float(moment), "item")
    assert len(queue._heap) <= 2 + DEAD_ENTRIES
    assert queue.pop_due(1e9) == ["item"]
