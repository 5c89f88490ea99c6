"""Every row is answered exactly once, and a frame is finished after its answers are safe and never before."""

import asyncio
from collections import Counter
from functools import partial
from itertools import count, cycle
from math import inf

import numpy as np
from builders.host import FunctionOfRow, asked, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_agents.host.batching import HostBatcher
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_agents.observability.metrics import BatchMetrics, ProcessMetrics
from clipper_stream.batching.limits import Fixed, RelaxedTarget
from clipper_stream.batching.window import Window

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


class UnevenSend:
    """Acknowledges after as many turns of the loop as it is told, so that sends overtake one another.

    A frame is finished when the outputs of all its rows, of those that are expected by frame and row, are safe.
    """

    def __init__(self, turns, expected):
        self.turns, self.expected, self.safe, self.finished = cycle(turns), expected, [], []

    async def send(self, partition, pieces):
        for _ in range(next(self.turns)):
            await asyncio.sleep(0)
        self.safe += [(partition, frame) for _, frame in pieces]

    def finish(self, origins):
        safe = Counter(piece.frame for _, piece in self.safe for _ in piece.outputs)
        assert all(safe[origin] == sum(frame == origin for frame, _ in self.expected) for origin in origins)
        self.finished.extend(origins)


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
    expected = {}
    send = UnevenSend(turns, expected)

    async def serve():
        core = HostBatcher(Window(max_delay_s), make_limit(), max_open_rows)
        clock = partial(next, count(NOW_S, 0.0005))  # so that windows come to their end and far deadlines do not
        predictor, observer = Predictor(MODEL, inline=inline), BatchMetrics(ProcessMetrics("host"), "m", "1")
        engine = HostEngine(core, predictor, send, observer, clock=clock)
        running = asyncio.create_task(engine.run())
        for submission in submissions:
            await engine.submit(submission)
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
            submission[place] = asked(rows, frame=name, origin=name, **frame)
    asyncio.run(asyncio.wait_for(serve(), timeout=10))
    assert rows_of(piece for _, piece in send.safe) == expected
    assert all(replies[piece.frame] == partition for partition, piece in send.safe)
    assert sorted(send.finished) == sorted(replies)
