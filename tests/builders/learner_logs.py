"""The topics of a deployment in memory, and a learner that writes what a router would write."""

import asyncio
import hashlib
import struct

import msgspec

from builders.feedback import prediction
from builders.kafka import record
from builders.router_deployment import Read
from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import JoinedFeedback, decode_feedback, learn
from clipper_agents.feedback.learning_config import config_digest
from clipper_agents.feedback.restore_markers import is_marker, read_markers
from clipper_agents.replay.verify import verify
from clipper_stream.query import Application
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.control_keys import application_key, change_key, restore_key
from clipper_topics.dead_letter import dead_letter_headers
from clipper_topics.feedback import EARLY_FEEDBACK_MS, queried_between, repeated_between
from clipper_topics.logged_records import LoggedRecord, decides
from clipper_topics.manifests import ApplicationManifest, PolicySpec
from clipper_topics.restore import RESTORE, Restore, markers_of
from clipper_topics.selection_rows import (
    NO_ROW,
    POSITION,
    ForgottenContexts,
    RowKey,
    SavedRow,
    encode_key,
    encode_row,
    position_note,
)

HORIZON_S = 3600.0
SAVED = [SavedRow(partition=0, totals={"b:1": (3.0, 1.0, 4.0, 2.0)})]
HORIZON_MS = HORIZON_S * 1000
LATER_MS = round(2 * (HORIZON_MS + EARLY_FEEDBACK_MS)) + 1
"""After so long no feedback can be about what was asked before, nor about what such feedback may be about."""
START_MS = 1_700_000_000_000
CATALOGUE = Catalogue(partitions=2)
encode = msgspec.msgpack.Encoder().encode


def manifest(name="app", revision=1, half_life=None, half_life_s=None, **changes):
    """An application that observes all models, and forgets when it has a half-life."""
    given = {"half_life": half_life, "half_life_s": half_life_s}
    parameters = {key: value for key, value in given.items() if value is not None}
    return ApplicationManifest(
        name=name,
        revision=revision,
        models=["a:1", "b:1"],
        policy=PolicySpec(name="exp4", parameters=parameters),
        **changes,
    )


class MemoryLogs:
    """Records by topic and partition.

    Attributes:
        topics: The records.
        now_ms: Timestamp of the next one.
        list_size: Records of one list.
    """

    def __init__(self, catalogue=CATALOGUE, list_size=3):
        self.catalogue, self.list_size, self.now_ms = catalogue, list_size, START_MS
        self.topics, self._starts = {}, {}

    def append(self, topic, value, partition=0, key=b"", headers=()):
        """Store a record; its offset."""
        log = self.topics.setdefault((topic, partition), [])
        offset = log[-1].offset + 1 if log else 0
        log.append(record(offset, value, key, topic, partition, headers, self.now_ms))
        self.now_ms += 1
        return offset

    def delete_before(self, topic, partition, offset):
        """What retention does."""
        log = self.topics.setdefault((topic, partition), [])
        self._starts[topic, partition] = offset
        self.topics[topic, partition] = [one for one in log if one.offset >= offset]

    def compact(self, topic, partition, dirty):
        """What compaction does to all but the last records."""
        log = self.topics[topic, partition]
        clean = {one.key: one for one in log[: len(log) - dirty]}
        newest = sorted(clean.values(), key=lambda one: one.offset)
        self.topics[topic, partition] = newest + log[len(log) - dirty :]

    async def bounds(self, topic, partition):
        log = self.topics.get((topic, partition), [])
        start = self._starts.get((topic, partition), 0)
        return start, log[-1].offset + 1 if log else start

    async def offset_at(self, topic, partition, at_ms):
        found = [one.offset for one in self.topics.get((topic, partition), []) if one.timestamp >= at_ms]
        return found[0] if found else (await self.bounds(topic, partition))[1]

    async def read(self, topic, partition, start, end):
        wanted = [one for one in self.topics.get((topic, partition), []) if start <= one.offset < end]
        for first in range(0, len(wanted), self.list_size):
            yield wanted[first : first + self.list_size]

    def read_all(self, topic):
        """As `oracle` reads them."""
        return [
            Read(one.partition, one.offset, one.key, one.value, dict(one.headers), one.timestamp)
            for number in range(self.catalogue.partitions)
            for one in self.topics.get((topic, number), [])
        ]


class Deployment:
    """Applications, their traffic, and a learner of each partition that follows the control topic when it is told to.

    Attributes:
        logs: What they wrote.
    """

    def __init__(self, *manifests, catalogue=CATALOGUE):
        self.logs, self.catalogue = MemoryLogs(catalogue), catalogue
        self._applications, self._control = {}, ControlState()
        self._decided, self._credits, self.rows = {}, {}, {}
        self._manifests = {}
        for one in manifests:
            self.declare(one)
        self.follow()

    # --- operators ----------------------------------------------------------------------------------------------
    def declare(self, manifest):
        """Publish an application, with the record of its change."""
        name = manifest.name
        ends = [
            len(self.logs.topics.get((self.catalogue.feedback, number), []))
            for number in range(self.catalogue.partitions)
        ]
        change = Change(
            application=name,
            revision=manifest.revision,
            command="update",
            at_ms=self.logs.now_ms,
            by="ada",
            before=self._manifests.get(name),
            after=manifest,
            feedback_ends=ends,
        )
        self._manifests[name] = manifest
        self.logs.append(self.catalogue.control, codec.applications.encode(manifest), 0, application_key(name))
        self.logs.append(self.catalogue.control, codec.changes.encode(change), 0, change_key(name, manifest.revision))

    def withdraw(self, name, revision):
        """Delete an application, and have the learners follow."""
        change = Change(
            application=name, revision=revision, command="delete", at_ms=self.logs.now_ms, by="ada",
            before=self._manifests.pop(name),
        )  # fmt: skip
        self.logs.append(self.catalogue.control, b"", 0, application_key(name))
        self.logs.append(self.catalogue.control, codec.changes.encode(change), 0, change_key(name, revision))
        del self._applications[name]

    def follow(self):
        """The learners know now what is declared."""
        for name, one in self._manifests.items():
            policy = make_policy(one.policy.name, one.policy.parameters)
            self._applications[name] = Application(
                name=name, candidates=(), policy=policy, loss=one.loss, learning_config=config_digest(one)
            )
        self._control.take(self.logs.topics.get((self.catalogue.control, 0), []))

    def restore(self, name, rows, restore_id="r-0000000000000001", partitions=None):
        """Declare a restore, and mark it."""
        values = markers_of(name, rows, self.catalogue.partitions)
        digests = {str(number): hashlib.sha256(value).hexdigest() for number, value in enumerate(values)}
        restore = Restore(application=name, at_ms=self.logs.now_ms, by="ada", digests=digests)
        self.logs.append(self.catalogue.control, codec.restores.encode(restore), 0, restore_key(restore_id))
        headers = [*codec.MSGPACK_HEADERS, (RESTORE, restore_id.encode())]
        for number, value in enumerate(values):
            self.logs.append(self.catalogue.feedback, value, number, None, headers)
        self._control.take(self.logs.topics[self.catalogue.control, 0])

    # --- applications -------------------------------------------------------------------------------------------
    def ask(self, query_id, application="app", partition=0, **changes):
        """A decision about a query."""
        asked = {"queried_at_ms": self.logs.now_ms} | changes
        value = codec.predictions.encode(prediction(query_id, application, **asked))
        offset = self.logs.append(self.catalogue.predictions, value, partition)
        logged = LoggedRecord(offset, value, msgpack=False)
        under = self._decided.setdefault((partition, query_id), [])
        if not any(decides(one, application, *repeated_between(asked["queried_at_ms"], HORIZON_MS)) for one in under):
            under.append(logged)

    def tell(self, query_id, label=1, partition=0, **changes):
        """Feedback about a query; its offset."""
        said = {"query_id": query_id} | ({} if changes.keys() - {"application"} else {"label": label}) | changes
        return self.logs.append(self.catalogue.feedback, msgspec.json.encode(said), partition, b"key")

    # --- learners -----------------------------------------------------------------------------------------------
    def position(self, partition=0):
        """The last feedback offset that is in the rows."""
        return self.rows.get((*POSITION, partition), NO_ROW).offset

    def learn(self, partition=0, most=None):
        """One step: feedback behind the position, up to so many records, as the router's learner does it."""
        position = self.position(partition)
        log = self.logs.topics.get((self.catalogue.feedback, partition), [])
        records = [one for one in log if one.offset > position][:most]
        if not records:
            return
        claims = [one for one in records if is_marker(one)]
        markers, _ = read_markers(claims, self._control.restores.get, self.catalogue.partitions)
        said = [(one, decode_feedback(one)) for one in records if not is_marker(one)]
        feedback = [JoinedFeedback(one, found, self._about(one, found)) for one, found in said]
        if any(one.decision is None for one in feedback):
            self.logs.now_ms += EARLY_FEEDBACK_MS + 1  # so long it was waited for
        step = learn(
            feedback,
            {
                one.decision.offset: self._credits.get((partition, one.decision.offset))
                for one in feedback
                if one.decision
            },
            lambda place: self.rows.get((*place, partition), NO_ROW),
            lambda name, _: self._applications.get(name),
            markers,
            lambda name: [key[:2] for key in self.rows if key[0] == name and key[2] == partition],
        )
        self._credits |= {(partition, decision): offset for decision, offset in step.applied_feedback.items()}
        for one, error in step.refused:
            headers = dead_letter_headers(one.topic, one.partition, one.offset, error)
            self.logs.append(self.catalogue.dead_letters, one.value, 0, one.key, headers)
        notes_last = sorted(step.rows.items(), key=lambda item: item[0][0] == "")
        before = self.rows.get((*POSITION, partition), NO_ROW)
        for place, row in [*notes_last, (POSITION, position_note(before, records[-1].offset, ()))]:
            self.write(place, row, partition)

    def forget(self, before, partition=0):
        """Forget the contexts whose last feedback is before an offset, as the router does it."""
        at = self.rows.get((*POSITION, partition), NO_ROW)
        for name, context, number in [*self.rows]:
            old = name and context is not None and self.rows[name, context, number].offset < before
            if old and number == partition:
                del self.rows[name, context, number]
                key = encode_key(RowKey(name, context, partition))
                self.logs.append(self.catalogue.selection_changelog, None, partition, key)
        self.write(POSITION, position_note(at, at.offset, (), (ForgottenContexts(at.offset + 1, before),)), partition)

    def _about(self, record, found):
        """The decision that a feedback is about."""
        span = queried_between(record.timestamp, HORIZON_MS)
        under = self._decided.get((record.partition, found.query_id), [])
        return next((one for one in under if decides(one, found.application, *span)), None)

    def write(self, place, row, partition=0):
        """A row into the table and its changelog."""
        self.rows[(*place, partition)] = row
        key = encode_key(RowKey(place[0], place[1], partition))
        self.logs.append(self.catalogue.selection_changelog, encode_row(row), partition, key)

    def work(self, count, application="app", partition=0, first=0, every=1, **changes):
        """So many queries with feedback, learned in steps of `every`."""
        for number in range(first, first + count):
            query_id = f"{application}-{number}"
            self.ask(query_id, application, partition, outputs=[("a:1", number % 3), ("b:1", number % 2)], **changes)
            self.tell(query_id, number % 5, partition)
            if (number + 1 - first) % every == 0:
                self.learn(partition)
        self.learn(partition)


def flipped(row):
    """The row with another last bit in one sum."""
    first, *others = row.totals
    (bits,) = struct.unpack("<q", struct.pack("<d", first.weighted_loss))
    (loss,) = struct.unpack("<d", struct.pack("<q", bits ^ 1))
    return msgspec.structs.replace(row, totals=[msgspec.structs.replace(first, weighted_loss=loss), *others])


def aged(at, before, after):
    """Traffic, an hour, and more traffic; then the first part is deleted."""
    at.work(before)
    at.logs.now_ms += LATER_MS
    at.work(after, first=100)
    at.logs.delete_before(CATALOGUE.predictions, 0, before - 2)
    at.logs.delete_before(CATALOGUE.feedback, 0, before - 2)
    return at


def verified(at, **changes):
    """The verification of a deployment's logs."""
    return asyncio.run(verify(at.logs, at.catalogue, **({"horizon_s": HORIZON_S} | changes)))
