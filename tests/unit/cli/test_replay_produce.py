import pytest
import typer
from aiokafka import TopicPartition

from clipper_agents.cli.replay_produce import figures_of, lines_of, speed_of, wanted
from clipper_agents.kafka.reader import Range
from clipper_agents.replay.merged_log import TimeRange
from clipper_agents.replay.resend import RerunSummary


def test_a_range_is_one_of_times_or_of_offsets():
    assert wanted("1h", "30m", None, 7_200.0) == TimeRange(since_ms=3_600_000, until_ms=5_400_000)
    assert wanted("1h", None, None, 7_200.0).until_ms is None
    assert wanted(None, None, ["queries/0=1:2", "feedback/3=0:9"], 0.0) == {
        ("queries", 0): Range(1, 2),
        ("feedback", 3): Range(0, 9),
    }


@pytest.mark.parametrize(
    ("since", "until", "offsets", "said"),
    [
        (None, None, None, "--since"),
        ("1h", None, ["queries/0=1:2"], "leave one of them out"),
        ("1h", "2h", None, "the range is empty"),
        ("1h", "soon", None, "--until soon"),
        (None, None, ["outputs/0=1:2"], "outputs/0=1:2"),
        (None, None, ["queries/0=2:2"], "the end behind it"),
    ],
)
def test_what_is_no_range_is_said(since, until, offsets, said):
    with pytest.raises(typer.BadParameter, match=said):
        wanted(since, until, offsets, 86_400.0)


@pytest.mark.parametrize("text", ["0", "-1", "fast", "1e9", "nan", ""])
def test_a_speed_is_max_or_a_number_above_zero(text):
    with pytest.raises(typer.BadParameter, match="--speed"):
        speed_of(text)


def test_the_summary_says_what_was_sent_how_fast_and_how_late():
    summary = RerunSummary(read=3, first_ms=1_000, last_ms=5_000, took_s=0.5)
    summary.sent["staging.queries"] = 2
    summary.left_out["no_query"] = 1
    summary.lateness.add(0.001)
    lines = lines_of(figures_of(summary, run="r1", dry=False))
    assert lines == [
        "sent      2 of 3 records, logged within 4.0 s",
        "  staging.queries: 2",
        "left out  feedback about queries that this run did not send: 1",
        "run       r1: the new ids end with it",
        "pace      4 records/s, 8 times as fast as logged",
        "late      1.0 ms (p50), 1.0 ms (p99), 1.0 ms (most)",
    ]


def test_a_dry_run_and_an_interrupted_one_say_so():
    figures = figures_of(RerunSummary(interrupted=True), run=None, dry=True)
    assert figures["pace"] is None
    assert lines_of(figures) == [
        "would be sent 0 of 0 records, logged within 0.0 s",
        "interrupted before the end of the range",
    ]


def test_a_run_that_did_not_reach_its_end_says_with_which_offsets_to_go_on():
    summary = RerunSummary(interrupted=True)
    summary.unread = {
        TopicPartition("clipper.queries", 0): Range(7, 9),
        TopicPartition("clipper.queries", 1): Range(3, 3),
        TopicPartition("clipper.feedback", 1): Range(0, 4),
    }
    figures = figures_of(summary, run=None, dry=False)
    assert figures["unread"] == ["queries/0=7:9", "feedback/1=0:4"]
    assert lines_of(figures)[-1].endswith(": --offsets queries/0=7:9 --offsets feedback/1=0:4")
    assert wanted(None, None, figures["unread"], 0.0) == {("queries", 0): Range(7, 9), ("feedback", 1): Range(0, 4)}
