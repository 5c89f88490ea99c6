import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from builders.kafka import settle

from clipper_agents.kafka.errors import TopicMadeAnew, TopicMismatch
from clipper_agents.kafka.topic_ids import FoundTopic, TopicIds, find_topics, replaced_logs
from clipper_topics.catalogue import Catalogue

OLD, NEW = b"o" * 16, b"n" * 16
UNKNOWN, REFUSED = UnknownTopicOrPartitionError.errno, TopicAuthorizationFailedError.errno
CATALOGUE = Catalogue()


class Client:
    """Says one thing after the other of one topic: an error code and an id."""

    def __init__(self, *answers):
        self.answers = [*answers]

    def get_random_node(self):
        return 1

    async def send(self, _, request):
        (topic,), is_created, _, _ = request.build(lambda *fields: fields)
        assert not is_created
        code, topic_id = self.answers.pop(0)
        return SimpleNamespace(topics=[(code, topic[1], topic_id, False, [], 0, {})])


async def test_a_topic_that_is_not_there_yet_is_waited_for(caplog):
    ids = TopicIds()
    learning = asyncio.ensure_future(ids.learn(Client((UNKNOWN, bytes(16)), (0, NEW)), ["a"]))
    await settle()
    assert (ids.known, ids.missing) == ({}, {"a"})
    await learning
    assert (ids.known, ids.missing) == ({"a": NEW}, frozenset())
    assert "topics=a: run `clipper-stream topics create`" in caplog.text


@pytest.mark.parametrize(
    ("later", "error"),
    [
        ({}, None),
        ({"a": FoundTopic(OLD, 2), "b": FoundTopic(OLD, 8)}, None),
        ({"a": FoundTopic(NEW, 2)}, (TopicMadeAnew, "topic a was deleted and created again")),
        ({"a": FoundTopic(OLD, 3)}, (TopicMismatch, "topic a has 3 partitions, 2 are configured")),
    ],
    ids=["unknown now", "grown where it does not matter", "made anew", "grown where it matters"],
)
def test_a_topic_with_another_id_or_number_of_partitions_is_another_topic(later, error):
    ids = TopicIds({"a": 2})
    ids.note({"a": FoundTopic(OLD, 2), "b": FoundTopic(OLD, 7)})
    if error is None:
        ids.note(later)
        return
    with pytest.raises(error[0], match=error[1]):
        ids.note(later)


async def test_a_topic_that_may_not_be_seen_is_a_missing_right():
    with pytest.raises(TopicAuthorizationFailedError):
        await find_topics(Client((REFUSED, bytes(16))), ["a"])
    assert (await find_topics(Client((0, OLD)), ["b"]))["b"].topic_id == OLD


@pytest.mark.parametrize(
    ("noted", "now", "is_replaced"),
    [([], OLD, False), ([OLD, OLD], OLD, False), ([OLD, OLD], NEW, True), ([OLD, NEW], NEW, True), ([OLD], None, True)],
)
def test_logs_that_any_position_knows_as_other_ones_are_replaced(noted, now, is_replaced):
    there = {name: OLD for name in CATALOGUE.logs if name != CATALOGUE.feedback}
    there |= {} if now is None else {CATALOGUE.feedback: now}
    positions = [(OLD, OLD, OLD, one) for one in noted]
    assert replaced_logs(CATALOGUE, positions, there) == [CATALOGUE.feedback] * is_replaced
