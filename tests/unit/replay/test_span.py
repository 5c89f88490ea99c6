"""Spans of logs, and how partitions are shared out among processes."""

import pytest
import typer

from clipper_agents.cli.options import span_from
from clipper_agents.replay.span import EmptySpan, PartitionSpan, Span
from clipper_agents.replay.workers import shared_out


def part(partition, records):
    return PartitionSpan(partition=partition, first=0, predictions=(0, records), audits=(0, 0), feedback=(5, 5))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(since_ms=5, until_ms=5),
        dict(since_ms=6, until_ms=5),
        dict(offsets={0: (4, 4)}),
        dict(offsets={0: (None, None)}, since_ms=1),
    ],
)
def test_a_span_that_is_empty_or_says_two_things_is_refused(wrong):
    with pytest.raises(EmptySpan):
        Span(**wrong)


def test_options_say_times_offsets_and_the_horizon():
    assert span_from(None, None, None, None, 60.0) == Span(horizon_s=60.0)
    span = span_from("1970-01-01T00:00:10+00:00", "1970-01-01T00:01:00+00:00", None, "2h", 60.0)
    assert span == Span(since_ms=10_000, until_ms=60_000, horizon_s=7_200.0)
    assert span_from(None, None, ["0=1:2", "3=:"], None, 60.0).offsets == {0: (1, 2), 3: (None, None)}
    assert span_from("-2h", None, None, None, 60.0).since_ms == pytest.approx(
        span_from("2h", None, None, None, 60.0).since_ms, abs=1_000
    )


@pytest.mark.parametrize("wrong", ["0", "0=5", "a=1:2", "0=1:2:3", "0=-1:2"])
def test_offsets_that_cannot_be_read_are_refused(wrong):
    with pytest.raises(typer.BadParameter, match="write PARTITION=FIRST:END"):
        span_from(None, None, [wrong], None, 60.0)


def test_a_horizon_that_cannot_be_read_is_refused():
    with pytest.raises(typer.BadParameter, match="write 90s"):
        span_from(None, None, None, "soon", 60.0)


def test_processes_get_about_as_many_records_each_and_none_is_without():
    spans = [part(0, 10), part(1, 90), part(2, 40), part(3, 50)]
    shares = shared_out(spans, 2)
    assert sorted(sum(one.records for one in share) for share in shares) == [90, 100]
    assert sorted(one.partition for share in shares for one in share) == [0, 1, 2, 3]
    assert [len(share) for share in shared_out(spans, 9)] == [1, 1, 1, 1]
