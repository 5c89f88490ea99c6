"""A record that cannot be used is kept with the reason, however large it is."""

import asyncio
from types import SimpleNamespace

from clipper_agents.streaming.dead_letters import KEPT_BYTES, send_dead_letters
from clipper_topics.dead_letter import read_dead_letter


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
