"""The host's decisions, without clock and event loop."""

import numpy as np
import pytest
from builders.host import FunctionOfRow, asked, rows_of

from clipper_agents.host.batching import HostBatcher
from clipper_stream.batching.aimd import RelaxedTarget
from clipper_stream.batching.registry import Fixed
from clipper_stream.batching.window import Window
from clipper_stream.models.runner import BatchOutcome, predict_rows

DOUBLE = FunctionOfRow(lambda row: 2 * row)


def core_of(rows=4, max_delay_s=0.0):
    return HostBatcher(Window(max_delay_s), Fixed(rows))


def predicted(core, now_s=0.0, model=DOUBLE):
    """The replies to the next batch."""
    step = core.step(now_s)
    return core.complete(step.batch, predict_rows(model, step.batch.inputs), latency_s=0.001)


def test_rows_of_several_frames_are_one_batch():
    core = core_of(rows=10)
    core.admit("a", asked([1, 2], frame=1), 0.0)
    core.admit("b", asked([3], frame=2), 0.0)
    core.admit("c", asked([4, 5], frame=3), 0.0)
    assert core.step(0.0).batch.inputs == [1, 2, 3, 4, 5]
    assert core.step(0.0).batch is None


def test_a_batch_has_one_piece_a_frame_and_one_reply_a_partition():
    core = core_of(rows=10)
    core.admit("a", asked([1, 2], frame=1, reply=3), 0.0)
    core.admit("b", asked([3], frame=2, reply=1), 0.0)
    core.admit("c", asked([4], frame=3, reply=3), 0.0)
    replies = predicted(core)
    assert [(reply.partition, [piece.frame for piece in reply.pieces]) for reply in replies] == [(3, [1, 3]), (1, [2])]


def test_a_matrix_is_joined_in_order_and_is_the_models_own():
    core = core_of(rows=3)
    rows = np.arange(8.0).reshape(4, 2)
    core.admit("a", asked(rows[:2], dtype="float32", frame=1), 0.0)
    core.admit("b", asked(rows[2:], dtype="float32", frame=2), 0.0)
    inputs = core.step(0.0).batch.inputs
    assert inputs.tolist() == rows[:3].tolist()
    assert inputs.dtype == np.float32
    inputs[:] = 0.0
    assert core.step(0.0).batch.inputs.tolist() == rows[3:].tolist()


def test_a_failed_row_is_told_by_its_place_in_the_request():
    core = core_of(rows=2)
    core.admit("a", asked([1, 2, 0, 4], frame=1), 0.0)
    model = FunctionOfRow(lambda row: 4 // row)
    predicted(core, model=model)
    (reply,) = predicted(core, model=model)
    (piece,) = reply.pieces
    assert (piece.row0, piece.outputs) == (2, [None, 1])
    assert [(failure.row, failure.reason) for failure in piece.failed] == [(2, "error")]
    assert "division" in piece.failed[0].explanation


def test_rows_past_their_deadline_are_answered_without_the_model():
    core = core_of(rows=10)
    core.admit("a", asked([1, 2, 3, 4], frame=1, deadline_s=[5.0, 20.0, 7.5, 20.0]), 0.0)
    step = core.step(10.0)
    assert step.batch.inputs == [2, 4]
    assert step.late_rows == 2
    assert rows_of(piece for reply in step.late for piece in reply.pieces) == {(1, 0): ["late"], (1, 2): ["late"]}
    assert step.late[0].pieces[0].failed[0].explanation.startswith("dropped 5000.0 ms after its deadline")


def test_a_batch_waits_for_company_as_long_as_the_window_says():
    core = core_of(rows=2, max_delay_s=0.01)
    core.admit("a", asked([1], frame=1), 100.0)
    step = core.step(100.0)
    assert step.batch is None
    assert step.wake_at_s == pytest.approx(100.01)
    core.admit("b", asked([2], frame=2), 100.002)
    assert core.step(100.002).batch.inputs == [1, 2]


def test_a_clock_that_is_set_back_delays_no_row():
    core = core_of(rows=2, max_delay_s=0.01)
    core.admit("a", asked([1], frame=1), 100.0)
    core.admit("b", asked([2, 3], frame=2), 50.0)
    assert core.step(50.0).batch.inputs == [1, 2]
    assert core.step(50.0).wake_at_s == pytest.approx(100.01)


def test_the_limit_learns_from_whole_batches_only():
    core = HostBatcher(Window(0.0), RelaxedTarget(target_s=0.02, max_rows=100, start_rows=10))
    core.admit("a", asked([1] * 20), 0.0)
    step = core.step(0.0)
    core.complete(step.batch, BatchOutcome([1] * 10, {}, calls=3), latency_s=10.0)
    assert core.limit_rows == 10
    step = core.step(0.0)
    core.complete(step.batch, BatchOutcome([1] * 10, {}), latency_s=10.0)
    assert core.limit_rows == 9


def test_a_host_whose_batches_vary_leaves_rows_more_time():
    core = core_of(rows=1)
    for _ in range(100):
        core.delivered(0.1)
        core.delivered(0.3)
    core.admit("a", asked([1, 2], deadline_s=[1.4, 3.0]), 0.0)
    assert core.step(1.0).late_rows == 1


def test_an_overloaded_host_spends_no_batch_on_rows_that_would_be_late():
    core = core_of(rows=1)
    for _ in range(100):
        core.delivered(0.2)
    core.admit("a", asked([1, 2], deadline_s=[1.0, 2.0]), 0.0)
    step = core.step(0.9)
    assert (step.late_rows, step.batch.inputs) == (1, [2])
