import asyncio
import time

import numpy as np

from clipper_loadgen.run import DelayedFeedback


class CollectingOutlet:
    """Numbers of the queries that feedback was sent about, and when."""

    def __init__(self):
        self.sent = []

    async def send(self, records):
        self.sent += [(query, time.perf_counter()) for query in records]


async def delayed(delays_s, wait_s=10.0):
    """Answer every query in turn; what was sent when, after the start, and what is left."""
    outlet = CollectingOutlet()
    feedback = DelayedFeedback(int, delays_s, outlet.send)
    running = asyncio.create_task(feedback.run())
    start_s = time.perf_counter()
    for query in range(len(delays_s)):
        feedback.answered(query)
    await feedback.drained(wait_s)
    running.cancel()
    return [(query, at - start_s) for query, at in outlet.sent], feedback


async def test_no_feedback_leaves_before_its_delay_and_all_of_it_leaves():
    delays_s = np.random.default_rng(0).exponential(0.02, 200).tolist()
    sent, feedback = await delayed(delays_s)
    assert sorted(query for query, _ in sent) == list(range(200))
    assert all(at >= delays_s[query] for query, at in sent)
    assert (feedback.sent_count, feedback.pending) == (200, 0)


async def test_a_later_answer_with_a_shorter_delay_goes_first():
    sent, _ = await delayed([0.2, 0.01])
    assert [query for query, _ in sent] == [1, 0]


async def test_feedback_that_is_not_due_by_the_end_is_left_and_told():
    sent, feedback = await delayed([0.0, 3600.0], wait_s=0.05)
    assert [query for query, _ in sent] == [0]
    assert feedback.pending == 1
