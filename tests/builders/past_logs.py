"""Hours of a deployment's records without a Kafka, and a reader of them."""

from bisect import bisect_left
from collections import defaultdict
from operator import attrgetter

import msgspec
from aiokafka import TopicPartition

from builders.kafka import record
from builders.status import DIGITS, MODELS, compared, prediction, row
from clipper_agents.kafka.reader import Range
from clipper_agents.status.deployment_view import DeploymentView
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.comparison import comparison_key
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.feedback import Feedback

NOW_S = 1_700_000_400
BEGAN_S = NOW_S - 3 * 3_600
"""When the application was declared."""
TRIED_S = NOW_S - 1_200
"""When a version was put on trial."""
CATALOGUE = Catalogue(partitions=2)


def facts():
    """An application with one model, which has a second one on trial lately."""
    found = DeploymentView()
    before = msgspec.structs.replace(DIGITS, revision=1, models=["svm:1"], trials=[])
    for model in MODELS:
        found.control(key_of(model), codec.models.encode(model))
    found.control(key_of(DIGITS), codec.applications.encode(DIGITS))
    for command, revision, at_s, was in (("create", 1, BEGAN_S, None), ("canary", 2, TRIED_S, before)):
        one = Change(application="digits", revision=revision, command=command, at_ms=1000 * at_s, by="ada", before=was)
        found.control(change_key("digits", revision), codec.changes.encode(one))
    return found


def logs(every_s=1.0, hours=3.0):
    """A query each so many seconds in one of two partitions, and a feedback to every second one; totals and more."""
    found = defaultdict(list)

    def add(topic, partition, at_s, value, key=b"k"):
        log = found[TopicPartition(topic, partition)]
        log.append(record(len(log), value, key, topic, partition, timestamp=int(1000 * at_s)))

    told = codec.feedback.encode(Feedback(query_id="0-1", application="digits", label=1))
    for number in range(int(hours * 3_600 / every_s)):
        at_s = NOW_S - hours * 3_600 + number * every_s
        answer = prediction(number % 50, "svm:1", latency_ms=20.0)
        answer.predicted_at_ms = int(1000 * at_s) - 5
        add(CATALOGUE.predictions, number % 2, at_s, codec.predictions.encode(answer))
        if number % 2 == 0:
            add(CATALOGUE.feedback, 0, at_s, told)
    for at_s, loss in ((BEGAN_S + 60, 30.0), (NOW_S - 600, 10.0)):
        key, value = row(0, {"svm:1": (100.0, loss)})
        add(CATALOGUE.selection, 0, at_s, value, key)
    for at_s in range(TRIED_S, NOW_S, 60):
        value = codec.comparisons.encode(compared("rf:2"))
        add(CATALOGUE.comparisons, 0, at_s, value, comparison_key("digits", "rf:2"))
    return found


class FakeLogReader:
    """Reads logs in memory, as `LogReader` does, and fails after so many records.

    Attributes:
        partitions: Those that there are.
        read: How many records were read.
    """

    def __init__(self, logs, fails_after=float("inf")):
        self._logs, self.partitions = logs, [*logs]
        self.read, self.fails_after = 0, fails_after

    async def end_offsets(self, partitions):
        return {tp: len(self._logs[tp]) for tp in partitions}

    async def ranges(self, partitions):
        return {tp: Range(0, len(self._logs[tp])) for tp in partitions}

    async def offsets_at(self, partitions, at_ms):
        firsts = {tp: bisect_left(self._logs[tp], at_ms, key=attrgetter("timestamp")) for tp in partitions}
        return {tp: first for tp, first in firsts.items() if first < len(self._logs[tp])}

    async def lists(self, ranges, max_records=None):
        for tp, (first, end) in ranges.items():
            for at in range(first, end, max_records or max(1, end - first)):
                found = self._logs[tp][at : min(at + (max_records or end), end)]
                self.read += len(found)
                if self.read > self.fails_after:
                    raise TimeoutError
                yield tp, found
