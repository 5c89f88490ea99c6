"""The window against a plain list that is searched anew at each step."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clipper_stream.batching.window import Window

DELAYS_S = st.sampled_from([0.0, 4.0])  # whole seconds, so that sums of times are exact


def is_late(row, now_s, needed_s):
    _, _, deadline_s, came_s = row
    return now_s >= deadline_s or (now_s + needed_s >= deadline_s and now_s - came_s > needed_s)


class NaiveWindow:
    """Rows (number, shape, deadline_s, came_s) in the order they came."""

    def __init__(self, delay_s):
        self.delay_s, self.rows = delay_s, []

    def go_at_s(self, shape, limit_rows):
        rows = [row for row in self.rows if row[1] == shape]
        urgent = any(deadline_s <= came_s + self.delay_s for _, _, deadline_s, came_s in rows)
        return rows[0][3] if urgent or len(rows) >= limit_rows else rows[0][3] + self.delay_s

    def shapes(self):
        return list(dict.fromkeys(row[1] for row in self.rows))  # oldest row first

    def take(self, now_s, limit_rows, needed_s=0.0):
        late = [row for shape in self.shapes() for row in self.late_heads(shape, now_s, needed_s)]
        self.rows = [row for row in self.rows if row not in late]
        batch = []
        while not batch:
            ready = [shape for shape in self.shapes() if self.go_at_s(shape, limit_rows) <= now_s]
            if not ready:
                break
            for row in [row for row in self.rows if row[1] == ready[0]]:
                if len(batch) == limit_rows:
                    break
                (late if is_late(row, now_s, needed_s) else batch).append(row)
                self.rows.remove(row)
        return batch, late

    def late_heads(self, shape, now_s, needed_s):
        heads = []
        for row in self.rows:
            if row[1] == shape:
                if not is_late(row, now_s, needed_s):
                    break
                heads.append(row)
        return heads


class WindowMachine(RuleBasedStateMachine):
    @initialize(delay_s=DELAYS_S)
    def start(self, delay_s):
        self.window, self.naive = Window(delay_s), NaiveWindow(delay_s)
        self.now_s, self.added, self.given = 100.0, 0, []

    @rule(shape=st.sampled_from("ABC"), wait_s=st.integers(-2, 12) | st.just(math.inf), count=st.integers(1, 4))
    def add(self, shape, wait_s, count):
        for _ in range(count):
            row = (self.added, shape, self.now_s + wait_s, self.now_s)
            self.added += 1
            self.window.add(row, shape, row[2], self.now_s)
            self.naive.rows.append(row)

    @rule(passed_s=st.integers(1, 5))
    def let_time_pass(self, passed_s):
        self.now_s += passed_s

    @rule(limit_rows=st.integers(1, 6), needed_s=st.integers(0, 5))
    def take(self, limit_rows, needed_s):
        self.taken(limit_rows, needed_s)

    @rule(limit_rows=st.integers(1, 6))
    def sleep_until_told_to_wake(self, limit_rows):
        taken = self.taken(limit_rows)
        if taken.wake_at_s is not None:
            self.now_s = max(self.now_s, taken.wake_at_s)
            taken = self.taken(limit_rows)
            assert taken.batch or taken.late

    def taken(self, limit_rows, needed_s=0.0):
        taken = self.window.take(self.now_s, limit_rows, needed_s)
        batch, late = self.naive.take(self.now_s, limit_rows, needed_s)
        assert taken.batch == batch
        assert sorted(taken.late) == sorted(late)
        assert len({row[1] for row in batch}) <= 1
        assert all(row[2] > self.now_s for row in batch)
        assert all(row[2] <= self.now_s + needed_s for row in late)
        waits = (self.naive.go_at_s(shape, limit_rows) for shape in self.naive.shapes())
        assert taken.wake_at_s == min(waits, default=None)
        self.given += [row[0] for row in batch + late]
        return taken

    @invariant()
    def every_row_waits_or_has_come_out_once(self):
        assert len(self.window) == len(self.naive.rows)
        assert sorted(self.given + [row[0] for row in self.naive.rows]) == list(range(self.added))


WindowMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestWindow = WindowMachine.TestCase
