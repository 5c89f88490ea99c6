"""A log in memory that is sent again: records, a clock that jumps to whatever is waited for, and what was sent."""

import asyncio
import json

from builders.kafka import record
from clipper_agents.replay.resent_records import RecordResender
from clipper_agents.replay.run_ids import NewIds
from clipper_topics.catalogue import Catalogue

SOURCE = Catalogue(prefix="clipper", partitions=4)


def query(offset, partition=0, key=b"ada", headers=(), **said):
    """A record of the queries topic; `said` is its JSON."""
    value = json.dumps({"application": "digits", "input": [1]} | said).encode()
    return record(offset, value, key, SOURCE.queries, partition, headers)


def feedback(offset, query_id, partition=0, key=b"ada", headers=(), **said):
    """A record of the feedback topic."""
    value = json.dumps({"query_id": query_id, "loss": 0.5} | said).encode()
    return record(offset, value, key, SOURCE.feedback, partition, headers)


def resending(partitions=4, prefix="staging", ids=None, **options):
    """To a deployment of so many partitions, with new ids of the run `r1` unless others are given."""
    return RecordResender(SOURCE, Catalogue(prefix=prefix, partitions=partitions), ids or NewIds("r1"), **options)


def said(copy):
    """The JSON of what is sent."""
    return json.loads(copy.value)


class FakeTimer:
    """A `RunTimer` whose seconds pass by waiting alone; it is stopped when they reach `stop_at_s`."""

    def __init__(self, stop_at_s=None):
        self.at_s, self.waits_s, self.stopped, self._stop_at_s = 100.0, [], False, stop_at_s

    def now_s(self):
        return self.at_s

    async def wait(self, seconds):
        self.waits_s.append(seconds)
        self.at_s += seconds
        self.stopped = self._stop_at_s is not None and self.at_s >= self._stop_at_s


class Sent:
    """Takes copies, at the time of a timer."""

    def __init__(self, timer, error=None):
        self.copies, self.times_s, self._timer, self._error = [], [], timer, error

    async def __call__(self, copy):
        self.copies.append(copy)
        self.times_s.append(self._timer.now_s())
        future = asyncio.get_running_loop().create_future()
        if self._error is None:
            future.set_result(None)
        else:
            future.set_exception(self._error)
        return future


async def log_of(*records):
    """Records with their times, in milliseconds."""
    for at_ms, found in records:
        yield at_ms, found
