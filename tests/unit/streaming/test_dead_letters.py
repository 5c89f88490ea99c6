"""A record that cannot be used is kept with the reason, however large it is."""

import asyncio
import gc
import weakref

import pytest
from builders.kafka import FakeProducer, record

from clipper_agents.streaming.dead_letters import KEPT_BYTES, send_dead_letters
from clipper_agents.streaming.outbox import Outbox
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.dead_letter import MESSAGE_CHARACTERS, read_dead_letter

LARGE = LARGEST_RECORD_BYTES - 200


def kept(error=ValueError, message="no", **parts):
    """Key, value and headers that are kept of a refused record, and what its letter says."""
    producer, refused = FakeProducer(), record(7, topic="t", partition=3, **parts)
    asyncio.run(send_dead_letters(Outbox(producer), "dead", [(refused, error(message))]))
    ((key, value, headers),) = producer.logs["dead", 0]
    return key, value, headers, read_dead_letter(headers)


@pytest.mark.parametrize("value", [b"v", None, bytes(KEPT_BYTES)], ids=["a value", "none", "the largest"])
def test_key_value_and_headers_are_kept_and_the_reason_added(value):
    key, found, headers, letter = kept(value=value, headers=(("a", b"b"),))
    assert (key, found, headers[0]) == (b"key", value, ("a", b"b"))
    assert (letter.message, letter.topic, letter.partition, letter.offset) == ("no", "t", 3, 7)
    assert letter.cut is None


@pytest.mark.parametrize(
    ("part", "cut"),
    [
        (dict(value=bytes(KEPT_BYTES + 1)), f"value of {KEPT_BYTES + 1} bytes"),
        (dict(key=bytes(LARGE)), f"key of {LARGE} bytes"),
        (dict(headers=(("h", bytes(LARGE)),)), f"headers of {LARGE + 17} bytes"),
    ],
    ids=["value", "key", "headers"],
)
def test_a_letter_of_the_largest_record_fits_whatever_part_is_large_and_says_what_was_cut(part, cut):
    key, value, headers, letter = kept(message="x" * LARGE, **part)
    size = len(key) + len(value) + sum(len(header) + len(content) for header, content in headers)
    assert size < LARGEST_RECORD_BYTES * 3 / 4
    assert len(value) == (KEPT_BYTES if "value" in part else len(b"value"))
    assert letter.cut == cut
    assert len(letter.message) == MESSAGE_CHARACTERS


def test_a_dead_letter_leaves_no_reference_cycle():
    """The collector comes seldom, and a stack of bad records would wait for it."""
    seen = []

    class Large:
        """Something that was under way."""

    async def step():
        large = Large()
        seen.append(weakref.ref(large))
        error = RuntimeError("no")
        try:
            int("no number")
        except ValueError as cause:
            error.__cause__ = cause
        refused = [(record(0), error)]
        await send_dead_letters(Outbox(FakeProducer()), "dead", refused)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(step())
        assert seen[0]() is None
    finally:
        gc.enable()
