"""What comes about a decision: an audit, or a feedback, kept until the decision's chunk is finished."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from clipper_agents.replay.spill_store import SpillingDict
from clipper_agents.replay.values import packed, unpacked
from clipper_agents.replay.wire import UNSAID, LeanAnswer, LeanAudit, Record


class FeedbackPatch(NamedTuple):
    """A feedback about a decision, as the join keeps it.

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
    """A model that was asked for the log only; without an answer `output` is meaningless."""

    model: str
    propensity: float
    latency_ms: float
    answered: bool
    output: Any


class AuditPatch(NamedTuple):
    """An audit of a decision, as the join keeps it.

    Attributes:
        row: Number of the decision.
        offset: Of the audit's record.
        at_ms: Its timestamp, milliseconds since the epoch.
        query_offset: Of its query; an earlier query may have the same id.
        entries: The models that it asked.
    """

    row: int
    offset: int
    at_ms: int
    query_offset: int
    entries: list[AuditEntry]


def audit_patch(row: int, record: Record, found: LeanAudit) -> AuditPatch:
    """Return an audit as the join keeps it."""
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
    """Encode patches as bytes."""
    plain_audits = [(*one[:4], [(*entry[:4], packed(entry.output)) for entry in one.entries]) for one in audits]
    plain_feedback = [(*one[:3], packed(one[3]), *one[4:]) for one in feedback]
    return msgspec.msgpack.encode((plain_audits, plain_feedback))


def decode_patches(content: bytes) -> tuple[list[AuditPatch], list[FeedbackPatch]]:
    """Decode the patches that `encode_patches` encoded."""
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


Patch: TypeAlias = AuditPatch | FeedbackPatch


class OrphanBuffer:
    """Patches read before the prediction that they are about, by the query's id.

    They wait until the end: a query may have waited for a router for any time. What is taken out comes in the order in
    which it was put in.

    Args:
        folder: For patches that do not fit into memory; created when needed.
        most_in_memory: Most ids in memory.
    """

    def __init__(self, folder: Path, most_in_memory: int) -> None:
        self._most = most_in_memory
        self._waiting = SpillingDict[list[Patch]](folder, _encode_waiting, _decode_waiting)
        self.feedback_left = 0
        """Number of feedback records that wait."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, query_id: str, patch: Patch) -> None:
        """Keep a patch until the prediction is read."""
        recent = self._waiting.recent
        self.feedback_left += isinstance(patch, FeedbackPatch)
        recent.setdefault(query_id, []).append(patch)
        if len(recent) > self._most:
            for known, older in self._waiting.take_older(list(recent)).items():
                recent[known] = older + recent[known]
            self._waiting.spill(0)

    def take(self, ids: Sequence[str]) -> dict[str, list[Patch]]:
        """Remove and return the patches of these queries."""
        found, recent = self._waiting.take_older(ids), self._waiting.recent
        for query_id in recent.keys() & set(ids):
            found.setdefault(query_id, []).extend(recent.pop(query_id))
        self.feedback_left -= sum(isinstance(one, FeedbackPatch) for patches in found.values() for one in patches)
        return found

    def close(self) -> None:
        """Close the files."""
        self._waiting.close()


def _encode_waiting(patches: list[Patch]) -> bytes:
    audits = [one for one in patches if isinstance(one, AuditPatch)]
    return encode_patches(audits, [one for one in patches if isinstance(one, FeedbackPatch)])


def _decode_waiting(content: bytes) -> list[Patch]:
    audits, feedback = decode_patches(content)
    return [*audits, *feedback]
