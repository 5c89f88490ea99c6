"""What the topics say when everything has come to rest: what was lost, what differs, what was counted wrongly."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import oracle
from e2e.any_client import Reading, Record
from e2e.programs import until
from faults.deployment import Deployment
from known_fields import Identity, known_fields
from msgspec.msgpack import decode as unpack

from clipper_agents.replay.verdicts import RowMismatch
from clipper_agents.replay.verify import verify
from clipper_topics.connection import KafkaConnection

Place = tuple[int, int]
"""Partition and offset of a query."""
Span = tuple[float, float]
"""From one time to another, milliseconds since the epoch."""
HORIZON_S = 3600.0
MAY_BE_DEFAULT = {"late", "arrived_late", "errors", "no_models"}
"""Reasons of defaults while processes are killed; without a model while colocated ones are made again."""
STOPS_WITHIN_MS = 20.0
"""So long a process may run on after SIGSTOP, until the kernel looks at it."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verdict:
    """The end of a case, as the logs tell it; answers and audits are all that there are, repeated ones too.

    Attributes:
        lost: Queries without a prediction and without a dead letter.
        differing: Queries with two predictions that are not the same bytes, each from when it was asked to when it was
            answered first, by the log.
        double_counted: Feedbacks that the table counts and the serial fold does not.
        uncounted: Feedbacks that the serial fold counts and the table does not.
        rows_differing: Rows of which not every bit is what the serial fold gives: as it is, and as the fold has it.
        unaudited: Decisions that say that an audit follows, where none does.
        parted: Rows that `replay verify` finds to differ: the same question, asked of the project itself.
        late_rows: Positions in the changelog that are not above the one before in their partition.
    """

    queries: int
    answers: Sequence[Record] = ()
    lost: frozenset[Place]
    differing: Mapping[Place, Span]
    double_counted: int = 0
    uncounted: int = 0
    rows_differing: Mapping[oracle.RowKey, tuple[oracle.Row, oracle.Row]] = field(default_factory=dict)
    applied: Counter[str] = field(default_factory=Counter)
    audits: Sequence[Record] = ()
    unaudited: frozenset[oracle.AuditKey] = frozenset()
    parted: Sequence[RowMismatch] = ()
    late_rows: int = 0

    @property
    def repeated(self) -> int:
        """Predictions beyond the first of their query: allowed, because they equal it."""
        return len(self.answers) - len({_about(one) for one in self.answers})

    @property
    def defaults(self) -> Counter[str]:
        first = {_about(one): one.content for one in reversed(self.answers)}
        return Counter(content["reason"] for content in first.values() if content.get("default"))

    def check(self, least_applied: int = 10, stood_still: Sequence[Span] = ()) -> None:
        """Nothing lost, nothing said twice and differently, nothing counted twice; and enough was learned to say so.

        Only queries that were in flight when a router was made to stand still, or when another took its name, may have
        two predictions that differ: what it had handed to Kafka is written when it wakes up.
        """
        said_twice = {
            place for place, (asked_ms, answered_ms) in self.differing.items()
            if not any(asked_ms <= until_ms and answered_ms >= since_ms for since_ms, until_ms in stood_still)
        }  # fmt: skip
        counted = ("lost", "unaudited", "double_counted", "uncounted", "rows_differing", "parted")
        wrong = {name: getattr(self, name) for name in counted} | {"differing": said_twice}
        assert not any(wrong.values()), {name: one for name, one in wrong.items() if one}
        assert min(self.applied.values(), default=0) >= least_applied, self.applied


def judge(deployment: Deployment, within_s: float = 300.0, horizon_s: float = HORIZON_S) -> Verdict:
    """Read the topics of a deployment that is asked nothing more, once all its feedback is in the table."""
    client, catalogue, applications = deployment.client, deployment.catalogue, deployment.applications
    with client.reading(catalogue.feedback) as told, client.reading(catalogue.selection_changelog) as rows:
        table = until("all feedback is in the table", lambda: _settled(told, rows), within_s)
    feedback, answers, asked = told.records, client.read(catalogue.predictions), client.read(catalogue.queries)
    by_query: defaultdict[Place, list[Record]] = defaultdict(list)
    for one in answers:
        by_query[_about(one)].append(one)
    queries = {(one.partition, one.offset): one.timestamp_ms for one in asked}
    audits, changelog = client.read(catalogue.audits), client.read(catalogue.selection_changelog)
    expected = oracle.fold(answers, feedback, applications, audits, changelog=changelog, horizon_s=horizon_s)
    pairs = {key: (table.get(key, oracle.Row()), expected.get(key, oracle.Row())) for key in {*table, *expected}}
    applied = Counter(dict.fromkeys(applications, 0))
    for (application, _, _), row in table.items():
        if application:
            applied[application] += row.applied
    return Verdict(
        queries=len(queries),
        answers=answers,
        lost=frozenset(queries.keys() - by_query.keys() - elsewhere(deployment, asked, answers)),
        differing={
            place: (queries[place], some[0].timestamp_ms)
            for place, some in by_query.items()
            if len({one.value for one in some}) > 1
        },
        double_counted=sum(max(0, row.applied - fold.applied) for row, fold in pairs.values()),
        uncounted=sum(max(0, fold.applied - row.applied) for row, fold in pairs.values()),
        rows_differing={key: (row, fold) for key, (row, fold) in pairs.items() if row.bits != fold.bits},
        applied=applied,
        audits=audits,
        unaudited=frozenset(oracle.unaudited(answers, audits)),
        parted=asyncio.run(verify(KafkaConnection(client.bootstrap), catalogue, horizon_s)).partings,
        late_rows=_rows_out_of_order(changelog),
    )


def _settled(feedback: Reading, changelog: Reading) -> dict[oracle.RowKey, oracle.Row] | None:
    ends = {one.partition: one.offset for one in feedback.to_the_end()}
    table = oracle.table(changelog.to_the_end())
    return table if oracle.positions(table) == ends else None


def _rows_out_of_order(changelog: Sequence[Record]) -> int:
    late, highest = 0, dict[int, int]()
    for record in changelog:
        application, context, partition = unpack(record.key or b"")
        assert partition == record.partition
        if not application and context is None:
            offset = unpack(record.value or b"")[1]
            late += offset <= highest.get(partition, -2)  # -1: before the first feedback
            highest[partition] = max(offset, highest.get(partition, -1))
    return late


def answered_again(queries: Sequence[Record], answers: Sequence[Record]) -> set[Place]:
    """Queries under an id of which another one was decided about, and whose answer stands once more for each of them.

    Mostly the first in the log is decided about; but what finds no room is read again later.
    """
    given = Counter(about for about in map(identity, answers) if about is not None)
    own = {*map(_about, answers)}
    asked: defaultdict[tuple[int, str, str], list[Place]] = defaultdict(list)
    for one in queries:
        about = identity(one)
        if about is not None:
            asked[about].append((one.partition, one.offset))
    again = set()
    for about, places in asked.items():
        others = [place for place in places if place not in own]
        again.update(others[: max(0, given[about] - len(places) + len(others))])
    return again


def identity(record: Record) -> tuple[int, str, str] | None:
    """Partition, query id and application, of a query or a prediction; None for a record that is neither.

    A query without an id is `<partition>@<offset>`.
    """
    try:
        content = known_fields(record, Identity)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    names = content.get("query_id") or f"{record.partition}@{record.offset}", content.get("application")
    return (record.partition, *names) if all(isinstance(name, str) for name in names) else None


def elsewhere(deployment: Deployment, queries: Sequence[Record], answers: Sequence[Record]) -> set[Place]:
    """Queries that have no prediction of their own and need none: dead letters, and repetitions of an id."""
    letters = refused(deployment, deployment.catalogue.queries).keys()
    return letters | answered_again([one for one in queries if (one.partition, one.offset) not in letters], answers)


def without_prediction(deployment: Deployment) -> set[Place]:
    """The same of what the topics hold now."""
    catalogue, read = deployment.catalogue, deployment.client.read
    return elsewhere(deployment, read(catalogue.queries), read(catalogue.predictions))


def refused(deployment: Deployment, of: str) -> Counter[Place]:
    """How often each record of a topic is among the dead letters."""
    places = []
    for one in deployment.client.read(deployment.catalogue.dead_letters):
        topic, *place = (one.headers[f"__streams.errors.{name}"].decode() for name in ("topic", "partition", "offset"))
        if topic == of:
            places.append((int(place[0]), int(place[1])))
    return Counter(places)


def _about(answer: Record) -> Place:
    return answer.partition, answer.content["query_offset"]
