"""What comes later about a decision: an audit, or a feedback, kept until the decision's chunk is finished."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from clipper_agents.replay.values import packed, unpacked
from clipper_agents.replay.wire import UNSAID, LeanAnswer, LeanAudit, Record


class FeedbackPatch(NamedTuple):
    """One feedback about a decision.

    Attributes:
        row: Number of the decision.
        offset: Of the feedback's record.
        at_ms: Its timestamp, milliseconds since the epoch.
        label: What was true; None, which is a label too, when a loss is given.
        given: Loss in [0, 1]; None: a label is given.
        context: That it names.
    """

    row: int
    offset: int
    at_ms: int
    label: Any
    given: float | None
    context: str | None


FeedbackTuple: TypeAlias = tuple[int, int, int, Any, float | None, str | None]
"""A `FeedbackPatch`, or a plain tuple of its fields: of these there are millions."""


class AuditEntry(NamedTuple):
    """A model that was asked for the log only; `output` says nothing when it did not answer."""

    model: str
    propensity: float
    latency_ms: float
    answered: bool
    output: Any


class AuditPatch(NamedTuple):
    """One audit of a decision.

    Attributes:
        row: Number of the decision.
        offset: Of the audit's record.
        at_ms: Its timestamp, milliseconds since the epoch.
        query_offset: Of the query that it is about: one with the same id may have come before.
        entries: Whom it asked.
    """

    row: int
    offset: int
    at_ms: int
    query_offset: int
    entries: list[AuditEntry]


def audit_patch(row: int, record: Record, found: LeanAudit) -> AuditPatch:
    """The audit as it is kept."""
    entries = [
        AuditEntry(f"{one.model}:{one.version}", one.propensity, one.latency_ms, answered=True, output=_said(one))
        for one in found.models
    ]
    entries += [
        AuditEntry(f"{one.model}:{one.version}", one.propensity, 0.0, answered=False, output=None)
        for one in found.missing
    ]
    return AuditPatch(row, record.offset, record.timestamp, found.query_offset, entries)


def _said(one: LeanAnswer) -> Any:
    said = one.output if one.outputs is UNSAID else one.outputs
    return None if said is UNSAID else said


def encode_patches(audits: Sequence[AuditPatch], feedback: Sequence[FeedbackTuple]) -> bytes:
    """Patches as bytes."""
    plain_audits = [(*one[:4], [(*entry[:4], packed(entry.output)) for entry in one.entries]) for one in audits]
    plain_feedback = [(*one[:3], packed(one[3]), *one[4:]) for one in feedback]
    return msgspec.msgpack.encode((plain_audits, plain_feedback))


def decode_patches(content: bytes) -> tuple[list[AuditPatch], list[FeedbackPatch]]:
    """The patches that were encoded."""
    audits, feedback = msgspec.msgpack.decode(content)
    return (
        [
            AuditPatch(row, offset, at_ms, query_offset, [_entry(*entry) for entry in entries])
            for row, offset, at_ms, query_offset, entries in audits
        ],
        [
            FeedbackPatch(row, offset, at_ms, unpacked(label), given, context)
            for row, offset, at_ms, label, given, context in feedback
        ],
    )


def _entry(model: str, propensity: float, latency_ms: float, came: bool, output: bytes) -> AuditEntry:
    return AuditEntry(model, propensity, latency_ms, came, unpacked(output))
