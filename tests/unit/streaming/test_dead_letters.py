"""A record that cannot be used is kept with the reason, however large it is."""

import asyncio
import gc
import weakref
from types import SimpleNamespace

from builders.kafka import record

from clipper_agents.router.feedback import _decoded
from clipper_agents.streaming.dead_letters import KEPT_BYTES, send_dead_letters
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.dead_letter import MESSAGE_CHARACTERS, read_dead_letter


class Outbox:
    """Keeps what was sent."""

    def __init__(self):
        self.sent = []

    async def send(self, topic, partition, records):
        self.sent += [(topic, partition, *record) for record in records]


def letters_of(*values):
    refused = [
        (
            SimpleNamespace(topic="t", partition=3, offset=n, key=b"k", value=value, headers=(("a", b"b"),)),
            ValueError("no"),
        )
        for n, value in enumerate(values)
    ]
    outbox = Outbox()
    asyncio.run(send_dead_letters(outbox, "dead", refused))
    return outbox.sent


def test_key_value_and_headers_are_kept_and_the_reason_added():
    (topic, partition, key, value, headers), (_, _, _, nothing, _) = letters_of(b"v", None)
    assert (topic, partition, key, value, nothing) == ("dead", 0, b"k", b"v", None)
    assert headers[0] == ("a", b"b")
    letter = read_dead_letter(headers)
    assert (letter.message, letter.topic, letter.partition, letter.offset) == ("no", "t", 3, 0)


def test_a_value_that_no_topic_takes_is_cut():
    ((*_, value, _),) = letters_of(bytes(KEPT_BYTES + 1))
    assert value == bytes(KEPT_BYTES)


def test_a_letter_of_the_largest_record_fits_whatever_part_is_large():
    large = LARGEST_RECORD_BYTES - 200
    for part, name in ((dict(key=bytes(large)), "key"), (dict(headers=(("h", bytes(large)),)), "headers")):
        fields = dict(topic="t", partition=3, offset=1, key=b"k", value=b"v", headers=()) | part
        outbox = Outbox()
        asyncio.run(send_dead_letters(outbox, "dead", [(SimpleNamespace(**fields), ValueError("x" * large))]))
        ((_, _, key, value, headers),) = outbox.sent
        size = len(key) + len(value) + sum(len(header) + len(content) for header, content in headers)
        assert size < LARGEST_RECORD_BYTES / 2
        letter = read_dead_letter(headers)
        assert letter.cut.startswith(f"{name} of 8388")
        assert len(letter.message) == MESSAGE_CHARACTERS


def test_a_letter_says_that_its_value_was_cut_and_only_then():
    (*_, cut), (*_, whole) = letters_of(bytes(KEPT_BYTES + 1), bytes(KEPT_BYTES))
    assert read_dead_letter(cut).cut == f"value of {KEPT_BYTES + 1} bytes"
    assert read_dead_letter(whole).cut is None


# --- memory -------------------------------------------------------------------------------------------------------
class Large:
    """Something that was under way."""


def test_a_dead_letter_leaves_no_reference_cycle():
    """The collector comes seldom, and a stack of bad records would wait for it."""
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
