import asyncio
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from builders.kafka import BehindReader
from builders.router_deployment import publish_manifests
from builders.status import row
from e2e.any_client import AnyClient

from clipper_agents.control import changes as rules
from clipper_agents.control.change_records import Signature, os_user, records_of, sign
from clipper_agents.control.errors import RefusedChange, StaleRevision
from clipper_agents.control.selection_states import StateSnapshot
from clipper_agents.control.state import read_control
from clipper_agents.control.writer import ControlWriter, change_control
from clipper_agents.kafka.errors import UnreadRecords
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.kafka.retry import COMMANDS
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial
from clipper_topics.selection_rows import SavedRow

LIVE, NEW, NEWER = (ModelManifest(name="svm", version=version, uri="m:f") for version in "123")
DIGITS = ApplicationManifest(
    name="digits", models=["svm:1"], trials=[Trial(model="svm:2"), Trial(model="svm:3", stage="canary", share=0.1)]
)


@pytest.fixture
def digits(kafka: KafkaConnection, catalogue: Catalogue) -> Catalogue:
    """An application at revision 1 with two versions on trial."""
    asyncio.run(publish_manifests(kafka, catalogue, [DIGITS, LIVE, NEW, NEWER]))
    return catalogue


def promoting(ref, before=lambda: None):
    def decide(state):
        before()
        return rules.promote(state.manifests, "digits", ref)

    return decide


def test_of_two_writers_that_saw_one_revision_one_wins_and_the_other_is_told(kafka, digits):
    both_decide = threading.Barrier(2, timeout=30)
    first_time = threading.local()

    def meet():
        if not getattr(first_time, "over", False):
            first_time.over = True
            both_decide.wait()

    def promote(ref):
        try:
            decide = promoting(ref, meet)
            return asyncio.run(change_control(kafka, digits, decide, Signature(by=ref), seen={"digits": 1}))
        except StaleRevision as error:
            return error

    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(promote, ["svm:2", "svm:3"]))
    (lost,) = [end for end in ends if isinstance(end, StaleRevision)]
    (won,) = [end for end in ends if not isinstance(end, StaleRevision)]
    assert str(lost).startswith("application digits is at revision 2, you saw 1: ")
    assert "clipper-stream application history digits" in str(lost)
    state = asyncio.run(read_control(kafka, digits))
    assert state.manifests.applications["digits"] == won.changes[0].after
    history = state.history("digits")
    assert [(each.revision, each.command, each.by) for each in history.values()] == [
        (1, "create", os_user()),
        (2, "promote", won.changes[0].model),
    ]
    assert history[2] == won.changes[0]


async def test_writers_at_once_that_saw_nothing_lose_nothing(kafka, digits):
    others = [ModelManifest(name=f"other-{number}", uri="m:f") for number in range(5)]
    deploying = [lambda state, model=model: rules.deploy(state.manifests, "digits", model) for model in others]
    await asyncio.gather(*(change_control(kafka, digits, decide) for decide in deploying))
    state = await read_control(kafka, digits)
    tried = [trial.model for trial in state.manifests.applications["digits"].trials]
    assert sorted(tried) == ["other-0:1", "other-1:1", "other-2:1", "other-3:1", "other-4:1", "svm:2", "svm:3"]
    history = list(state.history("digits").values())
    assert [each.revision for each in history] == [1, 2, 3, 4, 5, 6]
    assert all(later.before == earlier.after for earlier, later in itertools.pairwise(history))


async def test_a_writer_that_another_one_followed_writes_nothing_and_logs_nothing(kafka, digits, caplog):
    """A future that nobody asked would be logged when it is collected."""
    async with ControlWriter(kafka, digits) as slow:
        plan = rules.promote(slow.state.manifests, "digits", "svm:2")
        async with ControlWriter(kafka, digits) as quick:
            abort = rules.abort(quick.state.manifests, "digits", "svm:2")
            await quick.write(records_of(sign(abort, quick.state, Signature(by="quick"), StateSnapshot(), 0)))
        with pytest.raises(ProducerFenced):
            await slow.write(records_of(sign(plan, slow.state, Signature(by="slow"), StateSnapshot(), 0)))
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    state = await read_control(kafka, digits)
    assert state.manifests.applications["digits"].models == ["svm:1"]
    assert [each.by for each in state.history("digits").values()] == [os_user(), "quick"]


async def test_what_a_writer_has_not_committed_is_seen_by_nobody_and_ended_by_the_next_one(kafka, digits):
    """As if it had been killed: the broker hears of that from its successor."""
    async with ControlWriter(kafka, digits) as dead:
        await dead._producer.begin_transaction()
        for key in (b"application/digits", b"application/half"):
            await (await dead._producer.send(digits.control, key=key, value=b"{}", partition=0))
        assert (await read_control(kafka, digits)).manifests.unreadable == {}, "not while it is open"
        await change_control(kafka, digits, promoting("svm:2"))
    state = await read_control(kafka, digits)
    assert state.manifests.unreadable == {}
    assert list(state.manifests.applications) == ["digits"]
    assert list(state.history("digits")) == [1, 2]


async def test_a_change_is_there_for_every_reader_when_its_writer_says_so(kafka, digits):
    """The end of a transaction is answered before its marker is written: as if that were late."""
    producer = AIOKafkaProducer(**kafka.aiokafka(), transactional_id=f"{digits.control_writer}-late")
    async with ControlWriter(kafka, digits) as writer, producer as late:
        await writer.write([(b"application/first", b"{}")])
        await late.begin_transaction()
        await (await late.send(digits.control, key=b"application/late", value=b"{}", partition=0))
        second = asyncio.ensure_future(writer.write([(b"application/second", b"{}")]))
        await asyncio.wait([second], timeout=1.0)
        assert not second.done(), "nobody can read it yet"
        await late.abort_transaction()
        await second
        found = (await read_control(kafka, digits)).manifests.unreadable
        assert {*found} == {"application/first", "application/second"}


async def test_a_follower_skips_an_aborted_transaction_and_catches_up_behind_it(kafka, digits):
    """The last record of the topic is the marker of the end, of which nobody is told."""
    async with AIOKafkaProducer(**kafka.aiokafka(), transactional_id=digits.control_writer) as producer:
        await producer.begin_transaction()
        await (await producer.send(digits.control, key=b"application/half", value=b"{}", partition=0))
        await producer.abort_transaction()
    keys = []
    follower = TopicFollower(kafka, digits.control, lambda records: keys.extend(record.key for record in records))
    following = asyncio.ensure_future(follower.run())
    try:
        await asyncio.wait_for(follower.caught_up.wait(), 20)
    finally:
        following.cancel()
    assert b"application/digits" in keys
    assert b"application/half" not in keys


async def test_what_changes_nothing_or_is_refused_writes_nothing_and_leaves_the_topic_to_others(kafka, digits):
    client = AnyClient(kafka.bootstrap)
    before = client.written(digits.control)
    for _ in range(2):
        await publish_manifests(kafka, digits, [DIGITS, LIVE, NEW, NEWER])
        again = await change_control(kafka, digits, promoting("svm:1"))
        assert not again
        with pytest.raises(RefusedChange, match="svm:9 is not on trial"):
            await change_control(kafka, digits, promoting("svm:9"))
    assert client.written(digits.control) == before
    assert list((await read_control(kafka, digits)).history("digits")) == [1]


async def test_a_change_decided_on_a_stale_end_is_not_written(kafka, digits):
    """Else its revision would be one that another change has already."""
    writer = ControlWriter(kafka, digits)
    await writer._reader.close()
    writer._reader = BehindReader(kafka, policy=COMMANDS)
    async with writer:
        with pytest.raises(UnreadRecords, match=rf"{digits.control} was read up to offset \d+, and goes on to \d+"):
            await writer.write([(application_key("digits"), b"{}")])
    state = await read_control(kafka, digits)
    assert (state.manifests.applications["digits"].revision, state.manifests.unreadable) == (1, {})
    await change_control(kafka, digits, promoting("svm:3"))
    assert list((await read_control(kafka, digits)).history("digits")) == [1, 2]


async def test_a_change_keeps_the_application_s_rows_and_how_far_feedback_was(kafka, digits, at):
    """test_selection_states of tests/unit/control has which rows."""
    key, value = row(1, {"svm:1": (2.0, 1.0)}, "ada")
    await at.send(digits.selection_changelog, value, key=key, partition=1)
    await at.send(digits.feedback, *[b"{}"] * 3, partition=1)
    await change_control(kafka, digits, promoting("svm:2"))
    change = (await read_control(kafka, digits)).history("digits")[2]
    assert change.feedback_ends == [0, 3]
    assert change.rows == [SavedRow(partition=1, context="ada", totals={"svm:1": (2.0, 1.0, 2.0, 1.0)})]
