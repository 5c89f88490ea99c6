"""Is a sample of the logs as large as it may be, and does it stand for everything that was written?"""

from collections import Counter
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from hypothesis import example, given
from hypothesis import strategies as st

from clipper_agents.status.tailer import LogSampler

ONE, TWO, OTHER = TopicPartition("log", 0), TopicPartition("log", 1), TopicPartition("control", 0)
EVERY_S = 0.2


class FakeLogs:
    """Partitions that grow; a fetch takes what was written up to the moment at which the one before was taken."""

    def __init__(self, *partitions, fetch_records=1_000):
        self.positions = dict.fromkeys(partitions, 0)
        self.ends, self.known = Counter(), Counter()
        self.most, self.taken = fetch_records, Counter()

    def known_end(self, tp):
        return self.known[tp]

    def skip_to(self, tp, offset):
        assert offset > self.positions[tp]
        self.positions[tp] = offset

    async def fetch(self, partitions, max_records=None, wait_s=None):
        assert wait_s == 0
        found = {}
        for tp in partitions:
            first = self.positions[tp]
            end = min(self.known[tp], first + self.most, first + (self.most if max_records is None else max_records))
            if offsets := range(first, end):
                found[tp] = [SimpleNamespace(offset=offset) for offset in offsets]
                self.taken[tp] += len(offsets)
                self.positions[tp] = offsets.stop
        return found

    def write(self, **counts):
        """The fetch of before is answered, then so many records are written to the partitions of the log."""
        self.known = Counter(self.ends)
        self.ends += {ONE: counts.get("one", 0), TWO: counts.get("two", 0), OTHER: counts.get("other", 0)}


async def read(sampler, at):
    return {tp: (len(records), weight) for tp, records, weight in await sampler.read(at * EVERY_S)}


async def test_everything_is_read_while_the_budget_suffices():
    logs = FakeLogs(ONE, TWO)
    sampler, weights = LogSampler(logs, ["log"], per_s=100), set()
    for at in range(50):
        logs.write(one=1, two=15)
        weights |= {weight for _, weight in (await read(sampler, at)).values()}
    assert (weights, logs.taken) == ({1.0}, {ONE: 49, TWO: 49 * 15})


async def test_a_second_without_records_is_saved_up_and_not_two():
    logs = FakeLogs(ONE)
    sampler = LogSampler(logs, ["log"], per_s=100)
    await read(sampler, 0)
    for at, (written, weight) in enumerate([(100, 1.0), (1_000, 10.0)]):
        logs.write(one=written)
        logs.write()
        assert await read(sampler, 50 * (at + 1)) == {ONE: (100, weight)}


async def test_of_more_than_the_budget_a_part_of_each_partition_is_read_for_the_rest():
    logs = FakeLogs(ONE, TWO, OTHER)
    sampler = LogSampler(logs, ["log"], per_s=100)
    for at in range(100):
        logs.write(one=100, two=300, other=50)
        found = await read(sampler, at)
    assert found == {ONE: (5, 20.0), TWO: (15, 20.0), OTHER: (50, 1.0)}
    assert logs.positions == {ONE: 9_900, TWO: 29_700, OTHER: 4_950}, "it keeps up with the logs"


@pytest.mark.parametrize("fetch_records", [3, 1_000])
@given(
    rounds=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30)), min_size=1, max_size=40),
    per_s=st.integers(1, 200),
)
@example(rounds=[(1, 0)], per_s=1)
async def test_what_was_read_stands_for_all_and_is_no_more_than_the_budget(fetch_records, rounds, per_s):
    logs = FakeLogs(ONE, TWO, fetch_records=fetch_records)
    sampler, stands_for = LogSampler(logs, ["log"], per_s), Counter()
    for at, (one, two) in enumerate([*rounds, (0, 0)]):
        logs.write(one=one, two=two)
        for tp, (count, weight) in (await read(sampler, at)).items():
            assert weight >= 1.0
            stands_for[tp] += count * weight
    for tp in (ONE, TWO):
        assert stands_for[tp] + sampler._skipped[tp] == pytest.approx(logs.positions[tp])
    assert logs.taken.total() <= per_s * (1 + EVERY_S * len(rounds)) + 2, "of each partition a record more, at most"


async def test_a_partition_whose_records_did_not_come_is_stood_for_by_the_next_that_do():
    logs = FakeLogs(ONE, TWO)
    sampler = LogSampler(logs, ["log"], per_s=10)
    await read(sampler, 0)
    logs.most = 0
    logs.write(one=500)
    logs.write(one=300)
    assert await read(sampler, 1) == {}
    logs.most = 1_000
    logs.write()
    assert await read(sampler, 2) == {ONE: (10, 80.0)}
