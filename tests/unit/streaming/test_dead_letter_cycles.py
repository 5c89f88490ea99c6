"""What was refused and told holds nothing: the collector comes seldom, and a stack of bad records would wait for it."""

import asyncio
import gc
import weakref

from builders.kafka import record

from clipper_agents.router.feedback import _decoded
from clipper_agents.streaming.dead_letters import send_dead_letters


class Outbox:
    """Takes letters."""

    def __init__(self):
        self.sent = []

    async def send(self, topic, partition, records):
        self.sent += records


class Large:
    """Something that was under way."""


def test_a_dead_letter_leaves_no_reference_cycle():
    outbox, seen = Outbox(), []

    async def step():
        large = Large()
        seen.append(weakref.ref(large))
        _, refused = _decoded([record(0, b"{")])
        await send_dead_letters(outbox, "dead-letters", refused)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(step())
        assert seen[0]() is None
    finally:
        gc.enable()
    headers = dict(outbox.sent[0][2])
    assert b"decode_feedback" in headers["__streams.errors.stacktrace"], "the letter still says where"
