"""A log with markers of restored states anywhere in it, read in steps cut anywhere, is what the oracle folds."""

import asyncio
import hashlib

import msgspec
import oracle
from builders.feedback import prediction
from builders.kafka import record
from builders.query_router import application
from builders.router_deployment import Read
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import JoinedFeedback, decode_feedback, learn
from clipper_agents.feedback.restore_markers import is_marker, read_markers
from clipper_agents.router.selection_store import SelectionStore
from clipper_topics import codec
from clipper_topics.control_keys import restore_key
from clipper_topics.logged_records import LoggedRecord
from clipper_topics.restore import RESTORE, Restore, markers_of
from clipper_topics.selection_rows import SavedRow

NAMES, CONTEXTS, MODELS = ("app", "other"), (None, "c"), ("a:1", "b:1", "c:1")
POLICIES = {"app": "exp4", "other": "lin_ucb"}
APPLICATIONS = {name: application(name, MODELS, policy=POLICIES[name]) for name in NAMES}
FEATURES = ([0.1, -0.0, 1 / 3], [-2.5])
QUERIES = {
    f"{name}-{context}-{number}": prediction(
        f"{name}-{context}-{number}",
        name,
        context=context,
        outputs=[(ref, place + number) for place, ref in shown],
        features=FEATURES[number] if context is None else [],
    )
    for name in NAMES
    for context in CONTEXTS
    for number in range(2)
    for shown in [list(enumerate(MODELS))[number:]]
}
BROKEN = "r-0000000000000000"

sums = st.tuples(*[st.floats(0.0, 1e6)] * 4)
moments = st.sampled_from([0, 5, 14]).flatmap(lambda size: st.tuples(*[st.floats(-1e6, 1e6)] * size))
saved_rows = st.dictionaries(
    st.sampled_from(CONTEXTS),
    st.dictionaries(st.sampled_from(MODELS), st.tuples(sums, moments), max_size=3),
    max_size=2,
).map(lambda found: [saved(context, models) for context, models in found.items()])
restores = st.tuples(st.sampled_from(NAMES), saved_rows)
events = st.one_of(
    st.tuples(st.sampled_from(sorted(QUERIES)), st.integers(0, 3)),
    st.tuples(st.none(), st.integers(0, 4)),
)


def saved(context, models):
    return SavedRow(
        partition=0,
        context=context,
        totals={model: four for model, (four, _) in models.items()},
        moments={model: others for model, (_, others) in models.items() if others},
    )


class CrashingTable:
    """Rows in memory; a write stops after so many rows, when it is told to."""

    def __init__(self):
        self.kept, self.stop_after = {}, None

    def get_row(self, partition, key):
        return self.kept.get(key)

    def items(self, partition, first=b""):
        return iter(sorted(one for one in self.kept.items() if one[0] >= first))

    async def write(self, partition, rows, beside=()):
        stop, self.stop_after = self.stop_after, None
        self.kept.update(list(rows.items())[:stop])


class Process:
    """Learns a partition as the learner does; the table survives it, and what was credited up to the position does."""

    def __init__(self, declared):
        self.table, self.credits, self.outcomes = CrashingTable(), {}, {}
        self.selection = SelectionStore(self.table, 1)
        self.control = ControlState()
        self.control.take(declared)

    def learn(self, records, stop_after=None):
        """One step; whether it was stored whole."""
        position = self.selection.position(0)
        fresh = [one for one in records if one.offset > position]
        markers, _ = read_markers([one for one in fresh if is_marker(one)], self.control.restores.get, 1)
        said = [(one, decode_feedback(one)) for one in fresh if not is_marker(one)]
        found = [JoinedFeedback(one, told, logged(told.query_id)) for one, told in said]
        step = learn(
            found,
            {one.decision.offset: self.credits.get(one.decision.offset) for one in found},
            lambda row: self.selection.row(*row, 0),
            lambda name, _: APPLICATIONS.get(name),
            markers,
            lambda name: [(name, context) for context in self.selection.contexts(name, 0)],
        )
        self.table.stop_after = stop_after
        asyncio.run(self.selection.write(0, step.rows, records[-1].offset))
        if self.selection.position(0) == records[-1].offset:
            self.credits |= {name: offset for name, offset in step.applied_feedback.items() if name not in self.credits}
            return True
        return False


def logged(query_id):
    offset = list(QUERIES).index(query_id)
    return LoggedRecord(offset, codec.predictions.encode(QUERIES[query_id]), msgpack=False)


def declarations(states):
    """Records of the control topic, and the marker of each, the last of which has another digest than it should."""
    found = []
    for number, (name, rows) in enumerate(states):
        (value,) = markers_of(name, rows, 1)
        restore = Restore(application=name, at_ms=0, by="a", digests={"0": hashlib.sha256(value).hexdigest()})
        found.append((f"r-{number + 1:016x}", codec.restores.encode(restore), value))
    wrong = Restore(application="app", at_ms=0, by="a", digests={"0": "0" * 64})
    return [*found, (BROKEN, codec.restores.encode(wrong), markers_of("app", [], 1)[0])]


def log_of(happened, declared):
    """Records of the feedback topic."""
    for offset, (query_id, number) in enumerate(happened):
        if query_id is not None:
            yield record(offset, msgspec.json.encode({"query_id": query_id, "label": number}), b"key")
        else:
            restore_id, _, value = declared[number % len(declared)]
            yield record(offset, value, None, headers=[*codec.MSGPACK_HEADERS, (RESTORE, restore_id.encode())])


def read(one):
    return Read(0, one.offset, one.key, one.value, dict(one.headers), one.timestamp)


@settings(max_examples=100)
@example([("app", [saved(None, {"a:1": ((0.0,) * 4, (-0.0,) * 14)})])], [(None, 0), ("app-None-0", 0)], [])
@given(
    st.lists(restores, min_size=1, max_size=3),
    st.lists(events, min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 6)), max_size=8),
)
def test_a_log_with_markers_cut_by_crashes_is_the_oracles_serial_fold(states, happened, steps):
    declared = declarations(states)
    control = [record(number, value, restore_key(name)) for number, (name, value, _) in enumerate(declared)]
    log = list(log_of(happened, declared))
    process = Process(control)
    for size, stop_after in [*steps, *[(len(log), None)] * 2]:
        todo = [one for one in log if one.offset > process.selection.position(0)][:size]
        if todo:
            process.learn(todo, stop_after)
    predictions = [Read(0, n, None, codec.predictions.encode(one), {}) for n, one in enumerate(QUERIES.values())]
    manifests = {name: {"policy": {"name": policy}} for name, policy in POLICIES.items()}
    expected = oracle.fold(predictions, map(read, log), manifests, control=map(read, control))
    table = oracle.table(Read(0, 0, key, value, {}) for key, value in process.table.kept.items())
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}


@settings(max_examples=30)
@given(st.lists(restores, min_size=1, max_size=1), st.lists(events, max_size=15))
def test_behind_a_marker_nothing_is_left_of_what_was_learned_before_it(states, happened):
    """Whatever stands before it, the state is that of a log that begins with the marker, but for what had counted."""
    (name, _), declared = states[0], declarations(states)
    control = [record(number, value, restore_key(name)) for number, (name, value, _) in enumerate(declared)]
    (first, second) = (Process(control), Process(control))
    before = [event for event in happened if event[0] is not None]
    first.learn(list(log_of([*before, (None, 0)], declared)))
    second.learn(list(log_of([(None, 0)], declared)))
    for context in CONTEXTS:
        assert first.selection.row(name, context, 0).totals == second.selection.row(name, context, 0).totals
