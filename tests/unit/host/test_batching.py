import numpy as np
import pytest
from builders.host import FunctionOfRow, asked, pieces_of, rows_of

from clipper_agents.host.batching import HostBatcher
from clipper_stream.batching.limits import Fixed, RelaxedTarget
from clipper_stream.batching.window import Window
from clipper_stream.models.runner import BatchOutcome, predict_rows

DOUBLE = FunctionOfRow(lambda row: 2 * row)


def core_of(*frames, rows=10, max_delay_s=0.0):
    core = HostBatcher(Window(max_delay_s), Fixed(rows))
    for number, (values, how) in enumerate(frames, 1):
        core.admit(asked(values, frame=number, **how), 0.0)
    return core


def predicted(core, model=DOUBLE):
    step = core.step(0.0)
    return core.complete(step.spans, predict_rows(model, step.inputs), latency_s=0.001)


def test_rows_of_several_frames_are_one_batch_with_one_piece_a_frame_and_one_reply_a_partition():
    core = core_of(([1, 2], {"reply": 3}), ([3], {"reply": 1}), ([4], {"reply": 3}))
    replies = predicted(core)
    assert {partition: [frame.frame for _, frame in pieces] for partition, pieces in replies.items()} == {
        3: [1, 3], 1: [2],
    }  # fmt: skip
    assert rows_of(pieces_of(replies)) == {
        (1, 0): [2], (1, 1): [4], (2, 0): [6], (3, 0): [8],
    }  # fmt: skip
    assert not core.step(0.0).spans


def test_a_matrix_is_joined_in_order_and_is_the_models_own():
    rows = np.arange(8.0).reshape(4, 2)
    core = core_of(*((some, {"dtype": "float32"}) for some in (rows[:2], rows[2:])), rows=3)
    inputs = core.step(0.0).inputs
    assert (inputs.tolist(), inputs.dtype) == (rows[:3].tolist(), np.float32)
    inputs[:] = 0.0
    assert core.step(0.0).inputs.tolist() == rows[3:].tolist()


def test_a_clock_that_is_set_back_delays_no_row():
    core = core_of(rows=2, max_delay_s=0.01)
    core.admit(asked([1], frame=1), 100.0)
    core.admit(asked([2, 3], frame=2), 50.0)
    assert core.step(50.0).inputs == [1, 2]
    assert core.step(50.0).wake_at_s == pytest.approx(100.01)


def test_the_limit_learns_from_whole_batches_only():
    core = HostBatcher(Window(0.0), RelaxedTarget(target_s=0.02, max_rows=100, start_rows=10))
    core.admit(asked([1] * 20), 0.0)
    core.complete(core.step(0.0).spans, BatchOutcome([1] * 10, {}, calls=3), latency_s=10.0)
    assert core.limit_rows == 10
    core.complete(core.step(0.0).spans, BatchOutcome([1] * 10, {}), latency_s=10.0)
    assert core.limit_rows == 9


@pytest.mark.parametrize(
    ("took_s", "deadlines_s", "now_s"),
    [([0.1, 0.3], [1.4, 3.0], 1.0), ([0.2, 0.2], [1.0, 2.0], 0.9)],
    ids=["a host whose batches vary leaves more time", "an overloaded host"],
)
def test_no_batch_is_spent_on_rows_that_would_be_late(took_s, deadlines_s, now_s):
    core = core_of(([1, 2], {"deadline_s": deadlines_s}), rows=1)
    for each_s in took_s * 100:
        core.delivered(each_s)
    step = core.step(now_s)
    assert (len(pieces_of(step.late)), step.inputs) == (1, [2])
