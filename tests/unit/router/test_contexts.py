"""Ten thousand contexts: each learns its own weights, in rows on disk, and has them again after its files are lost."""

import time
from collections import Counter
from functools import partial
from types import SimpleNamespace

import msgspec
from builders.feedback import logged
from builders.kafka import FakeLogReader, FakeProducer, FakeWriter, record
from builders.query_router import application

from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.feedback import FeedbackProcessor
from clipper_agents.router.selection_store import MAX_PREPARED, SelectionStore
from clipper_agents.streaming.app import make_app
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.recovery import StateLock
from clipper_agents.streaming.table import StepTable
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

CONTEXTS, ROUNDS, PARTITIONS, A_STEP = 10_000, 2, 2, 500
APP = application("app", ("a:1", "b:1"), "exp4")
OUTPUTS = (("a:1", 0), ("b:1", 1))


def make_selection(folder, producer):
    table = StepTable(
        make_app("app", KafkaConnection("localhost:1"), folder, "instance"),
        name="selection",
        partitions=PARTITIONS,
        open_writer=partial(FakeWriter, producer),
    )
    table.app.tables.add(table)
    return SelectionStore(table, PARTITIONS), table


def own(selection):
    selection.own(range(PARTITIONS))
    return selection


def partition_of(context):
    return context % PARTITIONS


def label_of(context):
    """Which model is right depends on the context, and not only on its parity: neighbours must not be mixed up."""
    return (context // 3) % 2


async def test_ten_thousand_contexts_keep_their_weights_when_their_files_are_lost(tmp_path):
    producer = FakeProducer(batch_bytes=900 * 1024)
    selection, table = make_selection(tmp_path / "first", producer)
    await table.restore(FakeLogReader(producer), range(PARTITIONS))
    own(selection)
    decisions = LogIndex(tmp_path / "decisions", 3600.0)
    for partition in range(PARTITIONS):
        asked = [(context, turn) for context in range(partition, CONTEXTS, PARTITIONS) for turn in range(ROUNDS)]
        told = [
            (f"{context}/{turn}", logged(offset, f"{context}/{turn}", context=f"c{context}", outputs=OUTPUTS))
            for offset, (context, turn) in enumerate(asked)
        ]
        decisions.of(partition).index(told, len(told), time.time())
    app = SimpleNamespace(generation=0, state_lock=StateLock(), outbox=Outbox(producer))
    metrics = SimpleNamespace(outcomes=Counter(), count_dead_letters=None)
    metrics.count_feedback = lambda outcome, count: metrics.outcomes.update({outcome: count})
    registry = SimpleNamespace(application={"app": APP}.get, restore={}.get)
    audits = LogIndex(tmp_path / "audits", 3600.0)
    learner = FeedbackProcessor(
        app, Catalogue(partitions=PARTITIONS), registry, selection, decisions, audits, None, metrics,
        lambda: 0,
    )  # fmt: skip
    for partition in range(PARTITIONS):
        feedback = [
            record(offset, msgspec.json.encode({"query_id": f"{context}/{turn}", "label": label_of(context)}))
            for offset, (turn, context) in enumerate(
                (turn, context) for turn in range(ROUNDS) for context in range(partition, CONTEXTS, PARTITIONS)
            )
        ]
        for first in range(0, len(feedback), A_STEP):
            assert await learner.learn(partition, feedback[first : first + A_STEP], 0)
    assert metrics.outcomes == {"applied": CONTEXTS * ROUNDS}

    again, table = make_selection(tmp_path / "second", producer)
    await table.restore(FakeLogReader(producer), range(PARTITIONS))
    own(again)
    check(selection)
    check(again)
    for index in (decisions, audits):
        index.keep_only(())


def check(selection):
    for context in range(CONTEXTS):
        state = selection.state("app", partition_of(context), f"c{context}")
        losses = {model: (totals.count, totals.loss) for model, totals in state.totals.items()}
        assert losses == {
            "a:1": (ROUNDS, ROUNDS * label_of(context)),
            "b:1": (ROUNDS, ROUNDS * (1 - label_of(context))),
        }
    for context in range(0, CONTEXTS, 7):
        weights = selection.prepare(APP, partition_of(context), f"c{context}").weights
        assert max(weights, key=weights.__getitem__) == ("b:1" if label_of(context) else "a:1")
    assert len(selection._prepared) <= MAX_PREPARED
    assert selection.state("app", 0, None).totals == {}
