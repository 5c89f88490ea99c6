"""What an application learned later: one record on the feedback topic."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

_Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

OUTCOMES = {
    "applied": "the models were scored by it",
    "unlearned": "it counts, but no policy learns from it: the query named its models, or has no application any more",
    "duplicate": "other feedback about the decision counted before",
    "orphan": "no decision about the query is known in the partition, within the horizon",
    "invalid": "it cannot be read, or does not fit the decision",
}
"""What becomes of a feedback, with the meaning; of the last two there is a dead letter."""

_Outcome = Annotated[str, msgspec.Meta(extra_json_schema={"examples": list(OUTCOMES)})]

TRUTHS = ("label", "loss", "reward")
"""The three ways to say what was true; a feedback has exactly one."""
LONGEST_MS = 16
"""Digits of a time in milliseconds."""
LONGEST_AWAY_MS = 86_400_000
"""Routers may be away for so long, a day, before feedback that they send on is younger than it was said."""
EARLY_FEEDBACK_MS = 5_000
"""Feedback may come so long before its query, by the timestamps of the two in the log; one that comes earlier is an
orphan. Until then all later feedback of the partition waits behind it."""
FORWARDED = "clipper-forwarded"
"""Header of a feedback that a router sent on to the partition that its query's id names: it is sent on once, and the
header says from which partition, and at what time of the log it was said there, as `<partition> <milliseconds>`."""


class Feedback(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was true about one query. Exactly one of `label`, `loss` and `reward` is given; null beside it is absent.

    The record's key is the query's key, so that it reaches the partition of the decision. An id that names its
    partition (`<partition>@<offset>` of a router, `<partition>-<32 hexadecimal digits>` of the client) needs no key.
    """

    query_id: Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]
    """The query that this is about."""
    application: str | None = None
    """The query's application; absent: of the decisions under the id, the first is meant."""
    context: str | None = None
    """The query's context."""
    label: Any = msgspec.UNSET
    """The true output; a list, one a row, for a query of several rows. The application's loss compares."""
    loss: _Unit | None = None
    """Loss of the answer that was given, in [0, 1]."""
    reward: _Unit | None = None
    """Reward of the answer that was given, in [0, 1]: a loss of `1 - reward`."""
    ack: bool = False
    """Whether to say on the topic of acknowledgements what became of this."""


class RawFeedback(Feedback, kw_only=True, omit_defaults=True):
    """A feedback whose label is not decoded."""

    label: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class FeedbackAck(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of one feedback with `ack: true`, written in one transaction with what was learned."""

    query_id: str
    """As in the feedback."""
    application: str | None = None
    """As in the feedback."""
    outcome: _Outcome
    """What became of it, in a word; a reader must expect new ones."""
    explanation: str | None = None
    """What is wrong with it, in words, of an orphan or invalid one."""
    feedback_offset: int
    """Offset of the feedback's record in the same partition; of feedback that was sent on, of its copy."""


class AckRequest(msgspec.Struct):
    """The part of a feedback that says whether and under which id it is acknowledged, even if the rest is invalid."""

    query_id: str
    application: str | None = None
    ack: bool = False


def forwarded_header(partition: int, at_ms: int) -> tuple[str, bytes]:
    """The header of a feedback that is sent on, which was said in a partition at a time.

    >>> forwarded_header(2, 1_767_225_600_000)
    ('clipper-forwarded', b'2 1767225600000')
    """
    return FORWARDED, b"%d %d" % (partition, at_ms)


def said_at_ms(timestamp_ms: int, headers: Iterable[tuple[str, bytes]]) -> int:
    """When a feedback was said, by its record: one that was sent on was said when its first record was written.

    >>> said_at_ms(9_000, [forwarded_header(2, 4_000)]), said_at_ms(9_000, [])
    (4000, 9000)
    """
    for name, value in headers:
        if name == FORWARDED:
            said = (value or b"").partition(b" ")[2]
            known = said.isdigit() and len(said) <= LONGEST_MS
            return max(timestamp_ms - LONGEST_AWAY_MS, min(int(said), timestamp_ms)) if known else timestamp_ms
    return timestamp_ms


def queried_between(feedback_at_ms: float, horizon_ms: float) -> tuple[float, float]:
    """When the query was asked that feedback of this time may be about: first and last moment, by the logs' time.

    >>> queried_between(10_000_000, 3_600_000)
    (6400000, 10005000)
    """
    return feedback_at_ms - horizon_ms, feedback_at_ms + EARLY_FEEDBACK_MS


def repeated_between(queried_at_ms: float, horizon_ms: float) -> tuple[float, float]:
    """When a query was asked that one of this time repeats if it has the same id: first and last moment.

    Beyond that no feedback can be about both: what has the id is another query.
    """
    apart_ms = horizon_ms + EARLY_FEEDBACK_MS
    return queried_at_ms - apart_ms, queried_at_ms + apart_ms


def check_feedback(feedback: Feedback) -> str | None:
    """What is wrong with the feedback by itself and what to do about it; None when it can be used.

    >>> check_feedback(Feedback(query_id="0-1", label=3))
    >>> check_feedback(Feedback(query_id="0-1", label=3, loss=0.0))
    'the feedback has label and loss: give exactly one of label, loss, reward'
    """
    if not feedback.query_id:
        return "query_id is empty: give the id of the query that this is about"
    given = [name for name in ("loss", "reward") if getattr(feedback, name) is not None]
    if feedback.label is not msgspec.UNSET and not (given and feedback.label is None):
        given = ["label", *given]
    if len(given) != 1:
        found = " and ".join(given) or "no truth"
        return f"the feedback has {found}: give exactly one of {', '.join(TRUTHS)}"
    for name in ("loss", "reward"):
        value = getattr(feedback, name)
        if value is not None and not (isinstance(value, int | float) and 0.0 <= value <= 1.0):
            return f"{name} is {value!r}: give a number in [0, 1]"
    return None
