"""The topics of a deployment in memory, and a learner that writes what a router would write."""

import asyncio
import hashlib
import tempfile
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import oracle
from builders.columns import concatenated
from builders.decision_logs import audit_of
from builders.feedback import prediction
from builders.kafka import record
from builders.learner_logs import flipped
from e2e.any_client import Record
from msgspec import UNSET

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import (
    JoinedFeedback,
    config_digest,
    decode_feedback,
    is_marker,
    learn,
    read_markers,
)
from clipper_agents.kafka.reader import Range
from clipper_agents.replay.decision_join import DecisionJoin
from clipper_agents.replay.log_tables import LogTables
from clipper_agents.replay.verify import verify_logs
from clipper_agents.router.selection_store import SelectionStore
from clipper_stream.evaluation.log.parquet import FileFacts, read_chunks
from clipper_stream.query import Application
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.codec import UndecodableRecord
from clipper_topics.control_keys import application_key, change_key, restore_key
from clipper_topics.dead_letter import dead_letter_headers
from clipper_topics.feedback import EARLY_FEEDBACK_MS, queried_between, repeated_between
from clipper_topics.logged_records import audit_key, decides, prediction_head, read_audit, read_prediction
from clipper_topics.manifests import ApplicationManifest, PolicySpec
from clipper_topics.restore import RESTORE, Restore, markers_of
from clipper_topics.selection_rows import (
    POSITION,
    RowKey,
    SavedRow,
    decode_key,
    decode_row,
    encode_key,
    encode_row,
    note_row,
)

HORIZON_S = 3600.0
HORIZON_MS = HORIZON_S * 1000
LATER_MS = round(2 * (HORIZON_MS + EARLY_FEEDBACK_MS)) + 1
"""After so long no feedback can be about what was asked before, nor about what such feedback may be about."""
START_MS = 1_700_000_000_000
CATALOGUE = Catalogue(partitions=2)
SAVED = [SavedRow(partition=0, totals={"b:1": (3.0, 1.0, 4.0, 2.0)})]


def manifest(name="app", policy="exp4", loss="zero_one", audit_ratio=0.0, **parameters):
    """An application that observes all models, and forgets when it has a half-life."""
    spec = PolicySpec(name=policy, parameters=parameters)
    return ApplicationManifest(name=name, models=["a:1", "b:1"], policy=spec, loss=loss, audit_ratio=audit_ratio)


def restore_id(number):
    return f"r-{number:016x}"


class MemoryLogs:
    """Records by topic and partition, given in lists of three; the next one is stamped `now_ms`."""

    def __init__(self, now_ms=START_MS, step_ms=1):
        self.topics, self.starts = defaultdict(list), Counter()
        self.now_ms, self._step_ms = now_ms, step_ms

    def append(self, topic, value, partition=0, key=b"", headers=()):
        log = self.topics[topic, partition]
        offset = log[-1].offset + 1 if log else self.starts[topic, partition]
        log.append(record(offset, value, key, topic, partition, headers, self.now_ms))
        self.now_ms += self._step_ms
        return self

    # --- as a `LogReader` -----------------------------------------------------------------------------------------
    async def ranges(self, partitions):
        return {
            tp: Range(self.starts[tp], log[-1].offset + 1 if (log := self.topics[tp]) else self.starts[tp])
            for tp in partitions
        }

    async def end_offsets(self, partitions):
        return {tp: one.end for tp, one in (await self.ranges(partitions)).items()}

    async def read(self, starts, apply, ends):
        for tp, start in starts.items():
            wanted = [one for one in self.topics[tp] if (start or 0) <= one.offset < ends[tp]]
            for first in range(0, len(wanted), 3):
                apply(tp, wanted[first : first + 3])

    async def read_all(self, partitions):
        return [one for tp in partitions for one in self.topics[tp]]

    def every(self, topic):
        return [
            Record(
                topic=topic, partition=number, offset=one.offset, key=one.key, value=one.value,
                headers=dict(one.headers), timestamp_ms=one.timestamp,
            )
            for number in range(CATALOGUE.partitions)
            for one in self.topics[topic, number]
        ]  # fmt: skip


class Deployment:
    """Applications, their traffic, and a learner of each partition; what happens to it is told one after the other.

    Attributes:
        logs: What all of them wrote.
        rows: The selection table, by application, context and partition.
        outcomes: How many feedbacks ended how.
        manifests: The applications that are declared.
        changed: Whether one of them was declared more than once.
    """

    def __init__(self, *manifests):
        self.logs, self.rows, self.outcomes = MemoryLogs(), {}, Counter()
        self.manifests, self._revisions, self._applications = {}, Counter(), {}
        self._control, self._selection, self._crash_after = ControlState(), SelectionStore(self, 2), None
        self._decisions, self._audits, self._credits, self._markers = defaultdict(list), {}, {}, []
        self.declare(*(manifests or [manifest()])).follow()

    @property
    def changed(self):
        return any(number > 1 for number in self._revisions.values())

    @property
    def changelog(self):
        """Of partition 0, to be falsified."""
        return self.logs.topics[CATALOGUE.selection_changelog, 0]

    def wait(self, ms):
        self.logs.now_ms += int(ms)
        return self

    # --- operators ----------------------------------------------------------------------------------------------
    def declare(self, *manifests):
        """Publish applications, with the records of their changes."""
        for one in manifests:
            self._revisions[one.name] += 1
            after = msgspec.structs.replace(one, revision=self._revisions[one.name])
            self._change(one.name, codec.applications.encode(after), before=self.manifests.get(one.name), after=after)
            self.manifests[one.name] = after
        return self

    def withdraw(self, name):
        """Delete an application, and have the learners follow."""
        self._revisions[name] += 1
        self._change(name, b"", before=self.manifests.pop(name))
        del self._applications[name]
        return self

    def _change(self, name, value, **sides):
        revision = self._revisions[name]
        change = Change(
            application=name, revision=revision, command="update", at_ms=self.logs.now_ms, by="ada", **sides
        )
        self.logs.append(CATALOGUE.control, value, 0, application_key(name))
        self.logs.append(CATALOGUE.control, codec.changes.encode(change), 0, change_key(name, revision))

    def follow(self):
        """The learners know now what is declared."""
        for name, one in self.manifests.items():
            policy = make_policy(one.policy.name, one.policy.parameters)
            self._applications[name] = Application(
                name=name, candidates=(), policy=policy, loss=one.loss, learning_config=config_digest(one)
            )
        self._control.take(self.logs.topics[CATALOGUE.control, 0])
        return self

    def restore(self, rows, name="app"):
        return self.declare_restore(rows, name).mark(len(self._markers) - 1)

    def declare_restore(self, rows, name="app", digests=None):
        values = markers_of(name, rows, CATALOGUE.partitions)
        digests = digests or {str(number): hashlib.sha256(value).hexdigest() for number, value in enumerate(values)}
        said = Restore(application=name, at_ms=self.logs.now_ms, by="ada", digests=digests)
        key = restore_key(restore_id(len(self._markers)))
        self.logs.append(CATALOGUE.control, codec.restores.encode(said), 0, key)
        self._markers.append(values)
        self._control.take(self.logs.topics[CATALOGUE.control, 0])
        return self

    def mark(self, number):
        """The markers of a restore, whether it is declared or not."""
        headers = [*codec.MSGPACK_HEADERS, (RESTORE, restore_id(number).encode())]
        for partition, value in enumerate([*self._markers, [b""] * 2][min(number, len(self._markers))]):
            self.logs.append(CATALOGUE.feedback, value, partition, None, headers)
        return self

    # --- brokers ------------------------------------------------------------------------------------------------
    def delete_before(self, offset, topics=(CATALOGUE.predictions, CATALOGUE.feedback)):
        """What retention does in partition 0."""
        for topic in topics:
            self.logs.starts[topic, 0] = offset
            self.logs.topics[topic, 0] = [one for one in self.logs.topics[topic, 0] if one.offset >= offset]
        return self

    def compact(self, dirty=0):
        """What compaction does to all but the last records of the changelog of partition 0."""
        end = len(self.changelog) - dirty
        clean = {one.key: one for one in self.changelog[:end]}
        self.changelog[:end] = sorted(clean.values(), key=lambda one: one.offset)
        return self

    # --- applications -------------------------------------------------------------------------------------------
    def ask(self, query_id, application="app", partition=0, **changes):
        asked = prediction(query_id, application, **{"queried_at_ms": self.logs.now_ms} | changes)
        self.logs.append(CATALOGUE.predictions, codec.predictions.encode(asked), partition)
        _, logged = read_prediction(self.logs.topics[CATALOGUE.predictions, partition][-1])
        known, repeats = self._decisions[partition, query_id], repeated_between(asked.queried_at_ms, HORIZON_MS)
        if not any(decides(one, application, *repeats) for one in known):
            known.append(logged)
        return self

    def audit(self, query_id, *models, partition=0, **changes):
        value = codec.audits.encode(audit_of(query_id, *models, **changes))
        self.logs.append(CATALOGUE.audits, value, partition)
        key, logged = read_audit(self.logs.topics[CATALOGUE.audits, partition][-1])
        self._audits.setdefault((partition, key), logged)
        return self

    def tell(self, query_id, label=UNSET, partition=0, **changes):
        given = any(changes.get(name) is not None for name in ("loss", "reward"))
        truth = {} if label is UNSET and given else {"label": 1 if label is UNSET else label}
        said = {"query_id": query_id} | truth | changes
        self.logs.append(CATALOGUE.feedback, msgspec.json.encode(said), partition, b"key")
        return self

    def work(self, count, application="app", partition=0, first=0, every=1, **changes):
        """So many queries with feedback, learned in steps of `every`; 0: not learned."""
        for number in range(first, first + count):
            query_id = f"{application}-{number}"
            self.ask(query_id, application, partition, outputs=[("a:1", number % 3), ("b:1", number % 2)], **changes)
            self.tell(query_id, number % 5, partition)
            if every and (number + 1 - first) % every == 0:
                self.learn(partition)
        return self.learn(partition) if every else self

    # --- learners -----------------------------------------------------------------------------------------------
    def position(self, partition=0):
        """The last feedback offset that is in the rows."""
        return self._selection.position(partition)

    def learn(self, partition=0, most=None, crash_after=None):
        """One step over feedback behind the position, of so many records; a crash comes before more rows."""
        position, log = self.position(partition), self.logs.topics[CATALOGUE.feedback, partition]
        records = [one for one in log if one.offset > position][:most]
        if not records:
            return self
        markers, refused = read_markers(filter(is_marker, records), self._control.restores.get, CATALOGUE.partitions)
        feedback = [one for record in records if not is_marker(record) for one in self._joined(record)]
        if any(one.decision is None for one in feedback):
            self.wait(EARLY_FEEDBACK_MS + 1)  # so long it was waited for
        decided = [one.decision.offset for one in feedback if one.decision]
        step = learn(
            feedback,
            {offset: self._credits.get((partition, offset)) for offset in decided},
            lambda row: self._selection.row(*row, partition),
            lambda name, _: self._applications.get(name),
            markers,
            lambda name: [(name, context) for context in self._selection.contexts(name, partition)],
        )
        self._crash_after = crash_after
        asyncio.run(self._selection.write(partition, step.rows, records[-1].offset))
        if self.position(partition) < records[-1].offset:
            return self  # the next process does it again
        self._credits |= {(partition, decision): offset for decision, offset in step.applied_feedback.items()}
        self.outcomes.update(step.outcomes)
        for one, error in [*refused, *step.refused]:
            headers = dead_letter_headers(one.topic, one.partition, one.offset, error)
            self.logs.append(CATALOGUE.dead_letters, one.value, 0, one.key, headers)
        return self

    def _joined(self, told):
        """A feedback with the decision that it is about and its audit, if it can be read."""
        try:
            said = decode_feedback(told)
        except UndecodableRecord:
            return
        known = self._decisions[told.partition, said.query_id]
        span = queried_between(told.timestamp, HORIZON_MS)
        decision = next((one for one in known if decides(one, said.application, *span)), None)
        head = prediction_head(decision) if decision and decision.audited else None
        audit = head and self._audits.get((told.partition, audit_key(head.query_id, head.query_offset)))
        yield JoinedFeedback(told, said, decision, audit)

    def forget(self, before, partition=0):
        """Forget the contexts whose last feedback is before an offset."""
        keys = [encode_key(RowKey(*one)) for one in self.rows if one[0] and one[1] is not None and one[2] == partition]
        asyncio.run(self._selection.forget_contexts(partition, before, keys))
        return self

    # --- what no router writes ------------------------------------------------------------------------------------
    def put(self, place, row, partition=0):
        """A row into the table and its changelog."""
        asyncio.run(self.write(partition, {encode_key(RowKey(place[0], place[1], partition)): encode_row(row)}))
        return self

    def falsify(self, offset, place=("app", None), partition=0):
        """A row with another last bit, as of a feedback."""
        return self.put(place, flipped(msgspec.structs.replace(self.rows[*place, partition], offset=offset)), partition)

    def skip(self):
        """The position goes to the last feedback, which is not learned."""
        return self.put(POSITION, note_row(self.logs.topics[CATALOGUE.feedback, 0][-1].offset))

    # --- the table, as `SelectionStore` uses it -------------------------------------------------------------------
    def get_row(self, _, key):
        row = self.rows.get(msgspec.structs.astuple(decode_key(key)))
        return None if row is None else encode_row(row)

    def items(self, partition, first=b""):
        encoded = [(encode_key(RowKey(*one)), encode_row(row)) for one, row in self.rows.items() if one[2] == partition]
        return iter(sorted(one for one in encoded if one[0] >= first))

    async def write(self, partition, rows, _=()):
        """All rows, or none when the process crashes before: a step is a transaction."""
        crashed, self._crash_after = self._crash_after is not None and self._crash_after < len(rows), None
        if crashed:
            return
        for key, value in rows.items():
            self.rows |= {msgspec.structs.astuple(decode_key(key)): value and decode_row(value)}
            self.logs.append(CATALOGUE.selection_changelog, value, partition, key)
        self.rows = {place: row for place, row in self.rows.items() if row is not None}


def verified(at):
    return asyncio.run(verify_logs(at.logs, CATALOGUE, HORIZON_S))


def joined(logs, partition=0, *, first_offset=0, lists_of=3, **rules):
    """The decisions of a partition in log order, and the counts; records are read in lists of so many."""
    rules = dict(application="app", loss_kind="zero_one", partitions=4) | rules
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decisions.parquet"
        with LogTables(Path(folder), "0", CATALOGUE, rules["application"], {partition: first_offset}) as tables:
            for topic in (CATALOGUE.predictions, CATALOGUE.audits, CATALOGUE.feedback):
                records = iter(logs.topics[topic, partition])
                while some := [*islice(records, lists_of)]:
                    tables.take(some)
        with DecisionJoin(Path(folder), **rules) as join:
            facts = FileFacts(application=rules["application"], loss_kind=rules["loss_kind"], models=join.models)
            join.write(path, facts.metadata, 2_048)
            counts = tables.counts + Counter(join.counts)
        columns = concatenated(read_chunks(path))
    return columns.take(np.argsort(columns.offset)), +counts


def folded(at, partitions=(0, 1), changelog=None):
    """The rows that the logs of a deployment lead to, by the oracle."""
    read = at.logs.every
    told = [one for one in read(CATALOGUE.feedback) if one.partition in partitions]
    return oracle.fold(
        read(CATALOGUE.predictions),
        [one for one in told if one.offset <= at.position(one.partition)],
        msgspec.to_builtins(at.manifests),
        read(CATALOGUE.audits),
        read(CATALOGUE.control),
        read(CATALOGUE.selection_changelog) if changelog is None else changelog,
        HORIZON_S,
    )


def is_told_alike(at):
    """Whether the table is verified; unless an application was changed, the oracle folds it as well."""
    if not at.changed:
        table = oracle.table(at.logs.every(CATALOGUE.selection_changelog))
        assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in folded(at).items()}
    return verified(at).equal
