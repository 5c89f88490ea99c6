"""What a feedback does to the rows: a pure step over decisions, applied feedback and rows that the caller looked up.

Rules of this file:
- Feedback is folded in log order. The first feedback about a decision that can be used counts, every later one is a
  duplicate.
- A row has its own offset: feedback up to it is in the row, and is not folded again. So a step that a crash has cut in
  two (rows that are stored, and a position that is not) is finished by doing it again.
- A marker sets all rows of its application to what it says. How many feedbacks counted goes on: a restore takes back
  what was learned, and not that it was read; a feedback that counted does not count again.
- Where an application's policy or loss took effect is noted with the rows of the step, so that the fold can be done
  again.
- Nothing here is sent or stored: the step says what to write.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import gt
from typing import Any, NamedTuple, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.control.selection_states import row_of, state_of
from clipper_agents.control.state import DeclaredRestore
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.join import disagreement, feedback_value, is_policy_choice, join
from clipper_stream.feedback.update import LoggedDecision, fold
from clipper_stream.query import Application
from clipper_stream.selection.state import MOST_MODELS, SelectionState
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord, content_type, headers_of, read_headers
from clipper_topics.containers import LARGE_BYTES, check_containers
from clipper_topics.dead_letter import MESSAGE_CHARACTERS
from clipper_topics.feedback import EARLY_FEEDBACK_MS, AckRequest, Feedback, FeedbackAck, check_feedback, said_at_ms
from clipper_topics.logged_records import LoggedRecord, decode_audit, decode_prediction
from clipper_topics.manifests import REF_CHARACTERS, ApplicationManifest
from clipper_topics.query import ID_CHARACTERS, MOST_FEATURES
from clipper_topics.restore import Marker, UnusableRows, decode_marker, refusal_of, restore_id_of
from clipper_topics.selection_rows import (
    NOT_DECLARED,
    ConfigStart,
    SavedRow,
    SelectionRow,
    config_context,
    config_note,
    note_row,
    unsaved,
)

Record: TypeAlias = ConsumerRecord[Any, Any]
Row = tuple[str, str | None]
"""Application and context."""
DIGEST_BYTES = 4
FindApplication: TypeAlias = Callable[[str, int], Application | None]


class RefusedMarker(ValueError):
    """A record claims to restore a state and must not count; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A valid marker of a restored state.

    Attributes:
        marker: The rows.
        declared: Offset of its declaration on the control topic: of two restores the later one wins.
    """

    marker: Marker
    declared: int


class JoinedFeedback(NamedTuple):
    """A feedback, with the decision that it is about and its audit; None where none is known."""

    record: Record
    said: Feedback
    decision: LoggedRecord | None = None
    audit: LoggedRecord | None = None


class OrphanFeedback(ValueError):
    """No decision about the feedback's query and application is known in its partition."""


class UnusableFeedback(ValueError):
    """The feedback cannot be compared with the decision; the message says why."""


@dataclass(slots=True)
class Step:
    """The outcome of a list of feedback records of one partition.

    Attributes:
        rows: Rows that changed.
        applied_feedback: Offset of the decision, and of the feedback, of each feedback that was used.
        outcomes: How many ended how: `applied`, `restored`, `unlearned`, `duplicate`, `invalid`, `orphan`.
        refused: Records for the dead letters, with the reason.
        configs: Policy and loss in force of each application that was met, as a digest.
        acks: Key, value and headers of the acknowledgements that were asked for.
        states: What rows hold whose last change was a feedback.
    """

    rows: dict[Row, SelectionRow] = field(default_factory=dict)
    applied_feedback: dict[int, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[Record, Exception]] = field(default_factory=list)
    configs: dict[str, int] = field(default_factory=dict)
    acks: list[tuple[bytes | None, bytes, list[tuple[str, bytes]]]] = field(default_factory=list)
    states: dict[Row, SelectionState] = field(default_factory=dict)

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def conclude(
        self, record: Record, outcome: str, said: Feedback | AckRequest, explanation: str | None = None
    ) -> None:
        """Count one feedback with this outcome, and acknowledge it if it asks for that."""
        self.count(outcome)
        if said.ack:
            self.acks.append(_ack_record(record, said, outcome, explanation))

    def refuse(self, record: Record, outcome: str, error: Exception, said: Feedback | None = None) -> None:
        """Refuse a record, for the dead letters; `said` is what it says, where it is a feedback."""
        self.refused.append((record, error))
        self.conclude(record, outcome, said or _ack_request(record), str(error)[:MESSAGE_CHARACTERS])


def decode_feedback(record: Record) -> Feedback:
    """Decode the feedback of a record.

    Raises:
        UndecodableRecord: the record cannot be read, or does not give exactly one of label, loss and reward.
    """
    if len(record.value or b"") > LARGE_BYTES:
        _check_label(record)
    feedback = codec.feedback.decode(record.value, record.headers)
    wrong = check_feedback(feedback)
    if wrong is not None:
        raise UndecodableRecord(wrong)
    return feedback


def _check_label(record: Record) -> None:
    label = codec.raw_feedback.decode(record.value, record.headers).label
    if isinstance(label, msgspec.Raw):
        try:
            check_containers(bytes(label), content_type(record.headers))
        except (ValueError, RecursionError) as error:
            raise UndecodableRecord(f"the label: {error}") from error


def _ack_request(record: Record) -> AckRequest:
    try:
        return codec.ack_requests.decode(record.value, record.headers)
    except UndecodableRecord:
        return _NO_ACK


def _ack_record(
    record: Record, said: Feedback | AckRequest, outcome: str, explanation: str | None
) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
    kind, echoed, _ = read_headers(record.headers)
    ack = FeedbackAck(
        query_id=said.query_id,
        application=said.application,
        outcome=outcome,
        explanation=explanation,
        feedback_offset=record.offset,
    )
    return record.key, codec.feedback_acks.encode(ack, kind), [*headers_of(kind, state_json=True), *echoed]


def is_marker(record: Record) -> bool:
    """Return whether a record of the feedback topic is, or claims to be, a marker."""
    return bool(record.headers) and restore_id_of(record.headers) is not None


def read_markers(
    claims: Iterable[Record], find: Callable[[str], DeclaredRestore | None], partitions: int
) -> tuple[list[tuple[Record, Restored]], list[tuple[Record, Exception]]]:
    """Return the valid markers, and the refused ones with the reason; arguments as of `read_marker`."""
    counted: list[tuple[Record, Restored]] = []
    refused: list[tuple[Record, Exception]] = []
    for record in claims:
        try:
            counted.append((record, read_marker(record, find, partitions)))
        except RefusedMarker as error:
            refused.append((record, error))
    return counted, refused


def read_marker(record: Record, find: Callable[[str], DeclaredRestore | None], partitions: int) -> Restored:
    """Decode and check the marker of a record.

    Args:
        record: Of the feedback topic, with the header.
        find: Finds the declaration of a restore.
        partitions: Number of partitions of the feedback topic.

    Raises:
        RefusedMarker: the marker must not count.
    """
    restore_id = restore_id_of(record.headers) or ""
    declared = find(restore_id)
    try:
        value = record.value or b""
        reason = refusal_of(None if declared is None else declared.restore, restore_id, value, record.partition)
        if reason is not None or declared is None:
            raise RefusedMarker(reason)
        marker = decode_marker(value, record.partition, partitions)
    except UnusableRows as error:
        raise RefusedMarker(str(error)) from error
    if marker.application != declared.restore.application:
        raise RefusedMarker(
            f"restore {restore_id} is about {declared.restore.application}, the marker about {marker.application}: "
            "nothing is restored"
        )
    return Restored(marker=marker, declared=declared.offset)


def config_digest(manifest: ApplicationManifest) -> int:
    """Return the digest of a manifest's policy and loss; never 0.

    >>> one = ApplicationManifest(name="digits", models=["svm:1"])
    >>> config_digest(one) == config_digest(msgspec.structs.replace(one, revision=2, audit_ratio=0.5))
    True
    """
    learning = (manifest.policy.name, manifest.policy.parameters, manifest.scaled_loss)
    packed = msgspec.msgpack.encode(learning, order="deterministic")
    return int.from_bytes(hashlib.blake2b(packed, digest_size=DIGEST_BYTES).digest()) or 1


def learn(
    feedback: Sequence[JoinedFeedback],
    applied_feedback: Mapping[int, int | None],
    row: Callable[[Row], SelectionRow],
    application: FindApplication,
    markers: Sequence[tuple[Record, Restored]] = (),
    stored: Callable[[str], Iterable[Row]] = lambda _: (),
    step: Step | None = None,
) -> Step:
    """Fold feedback and markers of one partition, in log order.

    Args:
        feedback: Records, and what they are about.
        applied_feedback: By offset of the decision, offset of the feedback that counted; None where none did.
        row: The row as it is stored.
        application: Finds a registered application by its name, for the feedback at an offset.
        markers: Records that restore a state, and how.
        stored: The rows of an application that are stored.
        step: Of the records before, to be gone on with; None: a new one.
    """
    step = Step() if step is None else step
    entries: list[JoinedFeedback | tuple[Record, Restored]] = [*feedback, *markers]
    for entry in sorted(entries, key=_offset) if markers else entries:
        if not isinstance(entry, JoinedFeedback):
            _restore(step, *entry, row, stored)
            continue
        record, said, logged, _ = entry
        if logged is None:
            step.refuse(record, "orphan", OrphanFeedback(_orphan(said, record)), said)
            continue
        before = step.applied_feedback.get(logged.offset, applied_feedback[logged.offset])
        if before is not None and before < record.offset:
            step.conclude(record, "duplicate", said)
        else:
            _apply(step, entry, logged, row, application)
    return step


def _apply(
    step: Step, entry: JoinedFeedback, logged: LoggedRecord, row: Callable[[Row], SelectionRow], find: FindApplication
) -> None:
    record, feedback, _, audit = entry
    prediction = decode_prediction(logged)
    known = find(prediction.application, record.offset)
    wrong = disagreement(feedback, prediction)
    if wrong is not None:
        step.refuse(record, "invalid", UnusableFeedback(wrong), feedback)
        return
    key = (prediction.application, prediction.context)
    before = step.rows[key] if key in step.rows else row(key)
    if record.offset > before.offset:
        _note_config(step, prediction.application, known, record.offset, row)
    if known is None or not is_policy_choice(prediction):
        step.applied_feedback[logged.offset] = record.offset
        step.conclude(record, "unlearned", feedback)
        return
    decision, value = join(prediction, None if audit is None else decode_audit(audit)), feedback_value(feedback)
    try:
        _check_bounds(prediction.context, decision)
        state = step.states.get(key) or state_of(before)
        said_ms = said_at_ms(record.timestamp, record.headers)
        learned = fold(state, decision, value, known.policy, known.loss, said_ms)
    except InvalidLabel as error:
        step.refuse(record, "invalid", error, feedback)
        return
    step.applied_feedback[logged.offset] = record.offset
    step.conclude(record, "applied", feedback)
    if record.offset > before.offset:
        step.rows[key] = row_of(learned, record.offset, before.applied + 1)
        step.states[key] = learned


def _check_bounds(context: str | None, decision: LoggedDecision) -> None:
    longest = max(map(len, decision.propensities), default=0)
    sizes = (len(context or ""), len(decision.features), len(decision.propensities), longest)
    if any(map(gt, sizes, _BOUNDS)):
        raise InvalidLabel(
            f"the prediction has {sizes} of at most {_BOUNDS} characters of context, features, models, and characters "
            "of a model: no router wrote it, look who may write predictions"
        )


def _note_config(
    step: Step, name: str, known: Application | None, offset: int, row: Callable[[Row], SelectionRow]
) -> None:
    """Note the policy and loss where others were in force before; a name that was no application has no note."""
    config = NOT_DECLARED if known is None else known.learning_config
    if config is None or step.configs.get(name) == config:
        return
    place = ("", config_context(name))
    before = step.rows.get(place) or row(place)
    last = before.configs[-1].config if before.configs else NOT_DECLARED
    if config != last:
        if offset <= before.offset:
            return
        step.rows[place] = config_note(before, ConfigStart(offset, config))
    step.configs[name] = config


def _offset(entry: JoinedFeedback | tuple[Record, Restored]) -> int:
    offset: int = entry[0].offset
    return offset


def _restore(
    step: Step,
    record: Record,
    restored: Restored,
    row: Callable[[Row], SelectionRow],
    stored: Callable[[str], Iterable[Row]],
) -> None:
    name = restored.marker.application
    note = ("", name)
    last = step.rows.get(note) or row(note)
    newest = last.applied if last.offset >= 0 else -1
    if record.offset <= last.offset or restored.declared == newest:
        step.count("duplicate")
        return
    if restored.declared < newest:
        reason = f"a later restore of {name} was counted before this one: repeat it if it is still wanted"
        step.refuse(record, "invalid", RefusedMarker(reason))
        return
    saved = {(name, one.context): one for one in restored.marker.rows}
    for key in dict.fromkeys([*stored(name), *(key for key in step.rows if key[0] == name), *saved]):
        before = step.rows.get(key) or row(key)
        if record.offset > before.offset:
            step.rows[key] = unsaved(saved.get(key, _EMPTY), record.offset, before.applied)
            step.states.pop(key, None)
    step.rows[note] = note_row(record.offset, restored.declared)
    step.count("restored")


_NO_ACK = AckRequest(query_id="")
_EMPTY = SavedRow(partition=0)
_BOUNDS = (ID_CHARACTERS, MOST_FEATURES, MOST_MODELS, REF_CHARACTERS)


def _orphan(feedback: Feedback, record: Record) -> str:
    whose = "" if feedback.application is None else f" of application {feedback.application!r}"
    where = f"query {feedback.query_id!r}{whose} in partition {record.partition}"
    early = f"at most {EARLY_FEEDBACK_MS // 1000} s before it and the feedback horizon after it"
    return f"no decision about {where}: send the feedback with the query's key, {early}"
