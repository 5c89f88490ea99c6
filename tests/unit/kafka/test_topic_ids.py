"""A topic is told from a later one of its name: by the id that a process, or a position, saw first."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from clipper_agents.kafka.errors import TopicMadeAnew, TopicMismatch
from clipper_agents.kafka.topic_ids import FoundTopic, TopicIds, read_topic_ids
from clipper_agents.kafka.topic_renewal import replaced_logs
from clipper_topics.catalogue import Catalogue

OLD, NEW = b"o" * 16, b"n" * 16
CATALOGUE = Catalogue()


def answer(*topics):
    """What a broker says: error code, name and id of each topic."""
    return SimpleNamespace(topics=[(*one, False, [], 0, {}) for one in topics])


class Client:
    """Gives one answer after the other."""

    def __init__(self, *answers):
        self.answers = [*answers]

    def get_random_node(self):
        return 1

    async def send(self, _, request):
        assert request.build(lambda *fields: fields)[1] is False, "no topic is to be created"
        return self.answers.pop(0)


def test_a_topic_that_is_not_there_yet_is_waited_for(caplog):
    client, ids = (
        Client(answer((UnknownTopicOrPartitionError.errno, "a", bytes(16))), answer((0, "a", NEW))),
        TopicIds(),
    )

    async def learn():
        learning = asyncio.ensure_future(ids.learn(client, ["a"]))
        while not ids.missing:
            await asyncio.sleep(0)
        assert ids.missing == {"a"}
        await learning

    asyncio.run(learn())
    assert (ids.known, ids.missing) == ({"a": NEW}, frozenset())
    assert "waiting for topics=a: run `clipper-stream topics create`" in caplog.text


def test_a_topic_with_another_id_is_another_topic():
    ids = TopicIds()
    ids.note({"a": FoundTopic(OLD, 1)})
    ids.note({})
    ids.note({"a": FoundTopic(OLD, 2)})
    with pytest.raises(TopicMadeAnew, match="topic a was deleted and created again"):
        ids.note({"a": FoundTopic(NEW, 2)})


def test_a_topic_that_grew_is_told_where_its_partitions_matter():
    ids = TopicIds({"a": 2})
    ids.note({"a": FoundTopic(OLD, 2), "b": FoundTopic(OLD, 7)})
    with pytest.raises(TopicMismatch, match="topic a has 3 partitions, 2 are configured"):
        ids.note({"a": FoundTopic(OLD, 3)})


def test_a_topic_that_may_not_be_seen_is_a_missing_right():
    client = Client(answer((TopicAuthorizationFailedError.errno, "a", bytes(16))))
    with pytest.raises(TopicAuthorizationFailedError):
        asyncio.run(read_topic_ids(client, ["a"]))
    assert asyncio.run(read_topic_ids(Client(answer((0, "b", OLD))), ["b"])) == {"b": OLD}


@pytest.mark.parametrize(
    ("noted", "now", "replaced"),
    [
        ([], OLD, []),
        ([OLD, OLD], OLD, []),
        ([OLD, OLD], NEW, [CATALOGUE.feedback]),
        ([OLD, NEW], NEW, [CATALOGUE.feedback]),
        ([OLD], None, [CATALOGUE.feedback]),
    ],
)
def test_logs_that_any_position_knows_as_other_ones_are_replaced(noted, now, replaced):
    there = {name: OLD for name in CATALOGUE.logs if name != CATALOGUE.feedback}
    there |= {} if now is None else {CATALOGUE.feedback: now}
    positions = [(OLD, OLD, OLD, one) for one in noted]
    assert replaced_logs(CATALOGUE, positions, there) == replaced
