"""What the topics say when everything has come to rest: what was lost, what differs, what was counted wrongly."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import oracle
from e2e.any_client import AnyClient, Reading, Record
from e2e.programs import until
from known_fields import Identity, known_fields

from clipper_agents.replay.log_ranges import KafkaLogs
from clipper_agents.replay.verdicts import RowMismatch, Verification
from clipper_agents.replay.verify import verify
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

Place = tuple[int, int]
"""Partition and offset of a query."""
Span = tuple[float, float]
"""From one time to another, milliseconds since the epoch."""
STOPS_WITHIN_MS = 20.0
"""So long a process may run on after SIGSTOP, until the kernel looks at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of a case, as the logs tell it.

    Attributes:
        queries: How many records the queries topic has.
        answers: Every prediction, repeated ones too.
        lost: Queries without a prediction and without a dead letter.
        differing: Queries with two predictions that are not the same bytes, each from when it was asked to when it was
            answered first, by the log.
        double_counted: Feedbacks that the table counts and the serial fold does not.
        uncounted: Feedbacks that the serial fold counts and the table does not.
        rows_differing: Rows of which not every bit is what the serial fold gives: as it is, and as the fold has it.
        applied: Feedbacks in the table, by application.
        audits: Every audit, repeated ones too.
        unaudited: Decisions that say that an audit follows, where none does.
        parted: Rows that `replay verify` finds to differ: the same question, asked of the project itself.
    """

    queries: int
    answers: Sequence[Record]
    lost: frozenset[Place]
    differing: Mapping[Place, Span]
    double_counted: int
    uncounted: int
    rows_differing: Mapping[oracle.RowKey, tuple[oracle.Row, oracle.Row]]
    applied: Counter[str]
    audits: Sequence[Record]
    unaudited: frozenset[oracle.AuditKey]
    parted: Sequence[RowMismatch] = ()

    @property
    def repeated(self) -> int:
        """Predictions beyond the first of their query: allowed, because they equal it."""
        return len(self.answers) - len({_about(one) for one in self.answers})

    @property
    def defaults(self) -> Counter[str]:
        """Default answers by reason, each query once."""
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
        wrong = self.lost, said_twice, self.unaudited, self.double_counted, self.uncounted, self.rows_differing
        assert not any((*wrong, self.parted)), self
        assert min(self.applied.values(), default=0) >= least_applied, self.applied

    def __repr__(self) -> str:
        return (
            f"Verdict(queries={self.queries}, lost={sorted(self.lost)[:5]}, "
            f"differing={sorted(self.differing.items())[:5]}, double_counted={self.double_counted}, "
            f"uncounted={self.uncounted}, "
            f"unaudited={sorted(self.unaudited)[:5]}, parted={list(self.parted)[:3]}, "
            f"rows_differing={list(self.rows_differing.items())[:3]})"
        )


def judge(
    client: AnyClient, prefix: str, applications: Mapping[str, Mapping[str, Any]], within_s: float = 300.0
) -> Verdict:
    """Read the topics of a deployment that is asked nothing more, once all its feedback is in the table.

    Args:
        client: Reads.
        prefix: Of the topics.
        applications: The manifests by name, as the configuration declares them.
        within_s: How long the last feedback may take.
    """
    with client.reading(f"{prefix}.feedback") as told, client.reading(f"{prefix}.router-selection-changelog") as rows:
        table = until("all feedback is in the table", lambda: _settled(told, rows), within_s)
    feedback = told.records
    answers = client.read(f"{prefix}.predictions")
    by_query: defaultdict[Place, list[Record]] = defaultdict(list)
    for one in answers:
        by_query[_about(one)].append(one)
    asked = client.read(f"{prefix}.queries")
    queries = {(one.partition, one.offset): one.timestamp_ms for one in asked}
    restored = any(oracle.RESTORE in one.headers for one in feedback)
    control = client.read(f"{prefix}.control") if restored else ()
    audits = client.read(f"{prefix}.audits")
    changelog = client.read(f"{prefix}.router-selection-changelog")
    expected = oracle.fold(answers, feedback, applications, audits, control, changelog)
    pairs = {key: (table.get(key, oracle.Row()), expected.get(key, oracle.Row())) for key in {*table, *expected}}
    applied = Counter(dict.fromkeys(applications, 0))
    for (application, _, _), row in table.items():
        if application:
            applied[application] += row.applied
    return Verdict(
        queries=len(queries),
        answers=answers,
        lost=frozenset(queries.keys() - by_query.keys() - elsewhere(client, prefix, asked, answers)),
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
        parted=verification(client, prefix).partings,
    )


def _settled(feedback: Reading, changelog: Reading) -> dict[oracle.RowKey, oracle.Row] | None:
    ends = {one.partition: one.offset for one in feedback.to_the_end()}
    table = oracle.table(changelog.to_the_end())
    return table if oracle.positions(table) == ends else None


def verification(client: AnyClient, prefix: str, horizon_s: float = 3600.0) -> Verification:
    """What `replay verify` says about the same logs."""
    catalogue = Catalogue(prefix=prefix, partitions=client.partitions(f"{prefix}.feedback"))
    logs = KafkaLogs(KafkaConnection(bootstrap=client.bootstrap), catalogue)
    return asyncio.run(verify(logs, catalogue, horizon_s))


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


def elsewhere(client: AnyClient, prefix: str, queries: Sequence[Record], answers: Sequence[Record]) -> set[Place]:
    """Queries that have no prediction of their own and need none: dead letters, and repetitions of an id."""
    letters = refused(client, prefix, f"{prefix}.queries").keys()
    return letters | answered_again([one for one in queries if (one.partition, one.offset) not in letters], answers)


def refused(client: AnyClient, prefix: str, of: str) -> Counter[Place]:
    """How often each record of a topic is among the dead letters."""
    places = []
    for one in client.read(f"{prefix}.dead-letters"):
        topic, *place = (one.headers[f"__streams.errors.{name}"].decode() for name in ("topic", "partition", "offset"))
        if topic == of:
            places.append((int(place[0]), int(place[1])))
    return Counter(places)


def _about(answer: Record) -> Place:
    return answer.partition, answer.content["query_offset"]
