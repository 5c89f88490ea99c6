"""The state of the model of takeover and learning (`takeover.actions`): logs of one partition, and two routers.

Rules of this file:
- Everything is immutable and small, so that a state can be looked up among those that were seen.
- Rows are bytes as they stand in the changelog, and come from the routers' own `learn`. Each decision names a model of
  its own and each feedback has a loss of its own, so a row says which feedback counted for which decision.
- Time is counted in ticks of `EARLY_FEEDBACK_MS`, and the horizon is one tick.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import NamedTuple

from builders.feedback import Rows, feedback, logged
from builders.query_router import application

from clipper_agents.feedback.feedback_step import JoinedFeedback, learn
from clipper_topics.feedback import EARLY_FEEDBACK_MS, queried_between, repeated_between
from clipper_topics.selection_rows import NO_ROW, decode_row, encode_row

TICK_MS = EARLY_FEEDBACK_MS
HORIZON = EARLY = 1
APART = HORIZON + EARLY
"""Queries with one id that are further apart are different ones: no feedback can be about both."""
LOGS = frozenset({"changelog", "predictions", "feedback", "queries"})
NOTHING = -1
EMPTY_ROW = encode_row(NO_ROW)
APPLICATION = application("app")
KEY = ("app", None)


class Rules(NamedTuple):
    """What the pipeline relies on; a mutation takes something away."""

    fencing: bool = True  # a takeover ends and refuses the writes of earlier writers
    last_row: bool = True  # of the rows with one key a router takes the last; else that of the later feedback
    proven: frozenset[str] = LOGS  # logs of which a router knows the end; of others it believes what a broker names
    log_time: bool = True  # what a router forgets and reads follows the log's time; else its own clock


class Sizes(NamedTuple):
    """How much may happen: distinct ids, records, ticks of time, and takeovers after the first one."""

    ids: int = 1
    queries: int = 1
    feedback: int = 2
    ticks: int = 2
    takeovers: int = 1


Phase = Enum("Phase", ["DOWN", "TAKEN_OVER", "RUNNING"])
"""How far a router has come since it was started."""


class Query(NamedTuple):
    """A record of the queries or the feedback topic."""

    query: int
    at: int = 0


Feedback = Query


class Prediction(NamedTuple):
    """A record of the predictions topic; repetitions of one decision have its `content` and `queried_at`."""

    query: int
    query_offset: int
    content: int
    queried_at: int = 0
    at: int = 0


class Committed(NamedTuple):
    """What compaction has left of a transaction of the changelog."""

    offset: int
    row: bytes | None
    position: int | None


class Table(NamedTuple):
    """Rows that a router has stored, and the changelog offset up to which they are."""

    upto: int = NOTHING
    row: bytes = EMPTY_ROW
    position: int = NOTHING


class Age(NamedTuple):
    """A database of the index of decisions."""

    number: int  # the horizon of the log's time that it is for
    decisions: tuple[int, ...] = ()  # their offsets
    upto: int = NOTHING  # predictions up to this offset are indexed
    notes: tuple[tuple[int, int], ...] = ()  # offset of a decision, and of the feedback that counted
    noted_upto: int = NOTHING  # feedback up to this offset is noted


class Step(NamedTuple):
    """What a learning step stores."""

    row: bytes | None
    notes: tuple[tuple[int, int], ...]
    position: int


class Request(NamedTuple):
    """What is on its way to the broker: the transaction of a step, or a prediction."""

    router: int
    epoch: int
    query_offset: int = NOTHING  # the query that the prediction is about
    repeated: int = NOTHING  # offset of the prediction that it repeats
    step: Step | None = None


class Router(NamedTuple):
    """A router; all but what is on its disk, its rows and decisions, is lost when it is killed."""

    table: Table = Table()
    ages: tuple[Age, ...] = ()
    phase: Phase = Phase.DOWN
    epoch: int = NOTHING  # of its takeover
    read: int = 0  # the next query to read
    pending: tuple[int, ...] = ()  # offsets of queries whose predictions are on their way
    busy: bool = False  # whether a step is on its way

    @property
    def finished(self) -> int:
        """Queries below this offset are answered."""
        return min(self.pending, default=self.read)


class World(NamedTuple):
    """Everything."""

    now: int = 0
    queries: tuple[Query, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    changelog: tuple[Committed, ...] = ()
    end: int = 0  # one past the last offset of the changelog
    epoch: int = 0  # of the newest takeover
    committed: int = 0  # the next query, as the consumer group knows it
    answered: int = 0  # the same, as the owner may have committed it meanwhile
    requests: frozenset[Request] = frozenset()
    routers: tuple[Router, Router] = (Router(phase=Phase.RUNNING, epoch=0), Router())


def is_about(told: Feedback, decision: Prediction) -> bool:
    """Whether feedback is about a decision, if it is about no earlier one."""
    return _is_of(queried_between, told, decision)


def is_repeated(asked: Query, decision: Prediction) -> bool:
    """Whether a query is the one that was decided."""
    return _is_of(repeated_between, asked, decision)


def _is_of(bounds_ms: Callable[[int, int], tuple[int, int]], one: Query, decision: Prediction) -> bool:
    first_ms, last_ms = bounds_ms(one.at * TICK_MS, HORIZON * TICK_MS)
    return one.query == decision.query and first_ms <= decision.queried_at * TICK_MS <= last_ms


def table_of(changelog: Sequence[Committed], known: Table, end: int, rules: Rules) -> Table:
    """What a router has stored once it has read the changelog up to an end."""
    upto, row, position = known
    for one in changelog:
        if known.upto < one.offset < end:
            upto = one.offset
            if one.row is not None and (rules.last_row or decode_row(one.row).offset > decode_row(row).offset):
                row = one.row
            if one.position is not None and (rules.last_row or one.position > position):
                position = one.position
    return Table(upto, row, position)


def compacted(changelog: tuple[Committed, ...]) -> tuple[Committed, ...]:
    """What is left when of each key the last record stays."""
    row = max((offset for offset, value, _ in changelog if value is not None), default=NOTHING)
    position = max((offset for offset, _, number in changelog if number is not None), default=NOTHING)
    left = (
        Committed(offset, value if offset == row else None, number if offset == position else None)
        for offset, value, number in changelog
    )
    return tuple(one for one in left if one.row is not None or one.position is not None)


Joined = tuple[int, Prediction | None, int, int | None]
"""Offset of a feedback, its decision, the decision's offset, and the feedback that counted for it before."""
Content = tuple[int, int, dict[str, tuple[float, float]]]
"""What a row says: the last feedback that counted, how many did, and count and loss by model."""


@cache
def learned(joined: tuple[Joined, ...], row: bytes) -> tuple[bytes | None, tuple[tuple[int, int], ...]]:
    """The routers' learning step: the changed row, and offsets of decisions and of the feedback that counted."""
    entries, applied = [], {}
    for offset, decision, number, before in joined:
        known = None
        if decision is not None:
            known = logged(number, "query", outputs=((f"m:{decision.content}", 1),))
            applied[number] = before
        record, said = feedback(offset, "query", loss=loss_of(offset))
        entries.append(JoinedFeedback(record, said, known))
    step = learn(entries, applied, Rows({KEY: decode_row(row)}), lambda *_: APPLICATION)
    changed = step.rows.get(KEY)
    return None if changed is None else encode_row(changed), tuple(step.applied_feedback.items())


@cache
def content(row: bytes) -> Content:
    """What a row says."""
    found = decode_row(row)
    return found.offset, found.applied, {one.model: (one.count, one.loss) for one in found.totals}


@cache
def expected(predictions: tuple[Prediction, ...], told: tuple[Feedback, ...]) -> Content:
    """What the row has to say, by the serial fold of the logs; it shares nothing with the routers' step."""
    decisions: dict[int, Prediction] = {}
    for number, one in enumerate(predictions):
        if not any(is_repeated(Query(one.query, one.queried_at), before) for before in decisions.values()):
            decisions[number] = one
    counted: dict[int, int] = {}
    for offset, said in enumerate(told):
        about = [number for number, decision in decisions.items() if is_about(said, decision)]
        if about:
            counted.setdefault(about[0], offset)
    sums: dict[str, tuple[float, float]] = {}
    for number, offset in counted.items():
        model = f"m:{predictions[number].content}"
        count, loss = sums.get(model, (0.0, 0.0))
        sums[model] = count + 1, loss + loss_of(offset)
    return max(counted.values(), default=NOTHING), len(counted), sums


def loss_of(offset: int) -> float:
    """A loss that tells which feedback was counted, also in a sum of several."""
    return 0.5 ** (offset + 1)
