"""Every row is answered exactly once, and a frame is finished after its answers are safe and never before."""

import asyncio
from collections import Counter
from functools import partial
from itertools import count
from math import inf

import numpy as np
from builders.host import FunctionOfRow, asked, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clipper_agents.host.batching import HostBatcher
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_agents.observability.metrics import BatchMetrics, HostMetrics
from clipper_stream.batching.aimd import RelaxedTarget
from clipper_stream.batching.registry import Fixed
from clipper_stream.batching.window import Window
from clipper_stream.models.runner import predict_rows

NOW_S = 1000.0
POISON = 13
PAST_S = NOW_S - 1
deadlines_s = st.sampled_from([PAST_S, NOW_S + 50, NOW_S + 500, inf])
kinds = st.sampled_from(["json", "float32", "float64", "wide"])


def answer_to(row):
    """What the model of these tests answers; it cannot stand a row of 13."""
    value = float(np.ravel(row)[0])
    if value == POISON:
        raise ValueError("13")
    return value + 1


MODEL = FunctionOfRow(answer_to)


@st.composite
def frames(draw):
    values = draw(st.lists(st.integers(0, POISON), max_size=7))
    kind = draw(kinds)
    rows = values if kind == "json" else np.tile(np.asarray(values)[:, None], 3 if kind == "wide" else 1)
    return {
        "rows": rows,
        "dtype": "float32" if kind == "wide" else kind,
        "reply": draw(st.integers(0, 2)),
        "deadline_s": draw(st.lists(deadlines_s, min_size=len(values), max_size=len(values))),
    }


def expected_answer(row, deadline_s):
    if deadline_s == PAST_S:
        return "late"
    value = float(np.ravel(row)[0])
    return "error" if value == POISON else value + 1


class Core(RuleBasedStateMachine):
    """Frames come, batches go, replies are acknowledged in any order, time passes."""

    def __init__(self):
        super().__init__()
        self.core = HostBatcher(Window(0.01), Fixed(3))
        self.now_s = NOW_S
        self.rows = {}
        self.sent, self.unacknowledged, self.finished = [], [], []

    @rule(frame=frames())
    def a_frame_comes(self, frame):
        number = len(self.rows)
        rows = asked(frame.pop("rows"), frame=number, **frame)
        self.rows[number] = rows.deadlines_s
        if self.core.admit(number, rows, self.now_s):
            self.finished.append(number)

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.02, 60.0]))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule()
    def a_batch_goes(self):
        step = self.core.step(self.now_s)
        replies = list(step.late)
        if step.batch is not None:
            owners = [run.frame.request for run in step.batch.runs for _ in range(len(run))]
            assert len({owner.kind for owner in owners}) == 1
            assert len(owners) == len(step.batch.inputs) <= 3
            replies += self.core.complete(step.batch, predict_rows(MODEL, step.batch.inputs), 0.001)
        else:
            assert step.wake_at_s is None or step.wake_at_s > self.now_s
        self.sent += [piece for reply in replies for piece in reply.pieces]
        self.unacknowledged += replies

    @rule(random=st.randoms(use_true_random=False))
    def a_reply_is_acknowledged(self, random):
        if self.unacknowledged:
            reply = self.unacknowledged.pop(random.randrange(len(self.unacknowledged)))
            self.finished += self.core.acknowledge(reply)

    @invariant()
    def no_row_is_answered_twice(self):
        assert all(len(answers) == 1 for answers in rows_of(self.sent).values())

    @invariant()
    def only_frames_whose_answers_are_all_safe_are_finished(self):
        open_rows = Counter(frame for frame, deadlines in self.rows.items() for _ in deadlines)
        open_rows.subtract(piece.frame for piece in self.safe() for _ in piece.outputs)
        assert sorted(self.finished) == sorted(frame for frame in self.rows if open_rows[frame] == 0)
        assert self.core.open_rows == open_rows.total()

    def safe(self):
        waiting = {id(piece) for reply in self.unacknowledged for piece in reply.pieces}
        return [piece for piece in self.sent if id(piece) not in waiting]

    def teardown(self):
        self.now_s += 1000
        while self.core.queued_rows:
            self.a_batch_goes()
        answered = Counter(frame for frame, _ in rows_of(self.sent))
        assert answered == Counter({frame: len(rows) for frame, rows in self.rows.items() if rows})


TestCore = Core.TestCase
TestCore.settings = settings(max_examples=150, stateful_step_count=30)


class UnevenSend:
    """Acknowledges after as many turns of the loop as it is told, so that sends overtake one another."""

    def __init__(self, turns):
        self.turns = turns
        self.calls = 0
        self.safe = []

    async def __call__(self, reply):
        turns = self.turns[self.calls % len(self.turns)]
        self.calls += 1
        for _ in range(turns):
            await asyncio.sleep(0)
        self.safe += [(reply.partition, piece) for piece in reply.pieces]


@given(
    submissions=st.lists(st.lists(frames(), max_size=4), min_size=1, max_size=5),
    make_limit=st.sampled_from(
        [lambda: Fixed(1), lambda: Fixed(3), lambda: Fixed(64), lambda: RelaxedTarget(0.02, 50)]
    ),
    max_open_rows=st.sampled_from([1, 5, 1000]),
    max_delay_s=st.sampled_from([0.0, 0.001]),
    inline=st.booleans(),
    turns=st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
@settings(max_examples=100)
def test_every_row_is_answered_once_and_every_frame_finished_after_that(
    *, submissions, make_limit, max_open_rows, max_delay_s, inline, turns
):
    send, finished, expected = UnevenSend(turns), [], {}

    def finish(origins):
        safe = Counter(piece.frame for _, piece in send.safe for _ in piece.outputs)
        assert all(safe[origin] == sum(frame == origin for frame, _ in expected) for origin in origins)
        finished.extend(origins)

    async def serve():
        core = HostBatcher(Window(max_delay_s), make_limit())
        clock = partial(next, count(NOW_S, 0.0005))  # so that windows come to their end and far deadlines do not
        predictor, observer = Predictor(MODEL, inline=inline), BatchMetrics(HostMetrics(), "m", "1")
        engine = HostEngine(core, predictor, send, finish, observer, max_open_rows=max_open_rows, clock=clock)
        running = asyncio.create_task(engine.run())
        for number, submission in enumerate(submissions):
            await engine.submit([(10 * number + place, rows) for place, rows in enumerate(submission)])
        engine.drain()
        await running
        assert core.open_rows == core.queued_rows == 0

    replies = {}
    for number, submission in enumerate(submissions):
        for place, frame in enumerate(submission):
            name = 10 * number + place
            rows, replies[name] = frame.pop("rows"), frame["reply"]
            for row, (value, deadline_s) in enumerate(zip(rows, frame["deadline_s"], strict=True)):
                expected[name, row] = [expected_answer(value, deadline_s)]
            submission[place] = asked(rows, frame=name, **frame)
    asyncio.run(asyncio.wait_for(serve(), timeout=10))
    assert rows_of(piece for _, piece in send.safe) == expected
    assert all(replies[piece.frame] == partition for partition, piece in send.safe)
    assert sorted(finished) == sorted(replies)
