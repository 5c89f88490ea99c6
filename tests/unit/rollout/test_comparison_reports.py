"""Is what a steward publishes neither too often nor too seldom, and does a Kafka that is away hold up nobody?"""

import asyncio
import logging
from contextlib import suppress

import msgspec
import pytest

from clipper_agents.rollout.comparison_reports import AGAIN_S, CHANGED_S, ComparisonReports
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.examples import CANDIDATE_COMPARISON, COMPARISON

KEY, OTHER = b"digits/svm:2", b"digits/forest:2"
NOWHERE = KafkaConnection("127.0.0.1:1")


class Written:
    """What would be written at each second, as the value by key that a broker took then."""

    def __init__(self):
        self.reports, self.at_s = ComparisonReports(NOWHERE, Catalogue()), {}

    def put(self, now_s, *comparisons):
        self.reports.put(comparisons, now_s)
        for key in self.reports.due:
            self.at_s.setdefault(key, []).append(now_s)
        due, self.reports.due = self.reports.due, {}
        return due


def counted(feedbacks):
    return msgspec.structs.replace(COMPARISON, feedbacks=feedbacks)


@pytest.mark.parametrize(
    ("seconds", "feedbacks", "written_s"),
    [
        (12, lambda second: second, [0, CHANGED_S, 2 * CHANGED_S]),
        (130, lambda second: 1 if second < 90 else 2, [0, AGAIN_S, 90]),
    ],
    ids=["it changes each second", "it stays for a minute, and changes"],
)
def test_a_comparison_is_written_each_minute_or_when_it_changes_though_not_each_second(seconds, feedbacks, written_s):
    written = Written()
    for second in range(seconds):
        written.put(second, counted(feedbacks(second)))
    assert written.at_s == {KEY: written_s}


def test_a_version_that_is_not_compared_any_more_is_said_once():
    written = Written()
    written.put(0, COMPARISON, CANDIDATE_COMPARISON)
    assert written.put(1, CANDIDATE_COMPARISON) == {KEY: None}
    assert written.put(2, CANDIDATE_COMPARISON) == {}
    assert written.put(3) == {OTHER: None}
    assert written.put(4, COMPARISON) == {KEY: codec.comparisons.encode(COMPARISON)}


def test_only_the_newest_comparison_of_a_version_waits_to_be_written():
    reports = ComparisonReports(NOWHERE, Catalogue())
    for minute in range(100):
        reports.put([counted(minute)], minute * 60.0)
    assert reports.due == {KEY: codec.comparisons.encode(counted(99))}
    reports.put([], 6_000.0)
    assert reports.due == {KEY: None}


async def test_a_kafka_that_is_away_is_said_once_and_waited_for(caplog):
    reports, attempts = ComparisonReports(NOWHERE, Catalogue()), []

    async def sleep(seconds):
        attempts.append(seconds)
        if len(attempts) == 3:
            raise asyncio.CancelledError

    with caplog.at_level(logging.WARNING, "clipper_agents.rollout"), suppress(asyncio.CancelledError):
        reports.put([COMPARISON], 0.0)
        await reports.run(sleep)
    (said,) = [one for one in caplog.records if one.name.startswith("clipper_agents.rollout")]
    assert said.getMessage() == "comparisons are not published, decisions are made all the same"
    assert reports.due.keys() == {KEY}, "it is written when Kafka is back"
