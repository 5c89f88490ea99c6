"""A cheap model runs on the event loop, every other one in a thread of its own."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from builders.host import CountingModel, FunctionOfRow, TickingTimer

from clipper_agents.host.predictor import FailureLog, Predictor, is_cheap
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.warm_up import sample_rows

NOW_OR_THREAD = FunctionOfRow(lambda row: threading.current_thread() is threading.main_thread())


async def where(predictor):
    return (await predictor.predict([0])).outcome.outputs[0]


@pytest.mark.parametrize("inline", [True, False])
def test_a_batch_runs_where_it_was_decided(inline, run):
    async def check():
        predictor = Predictor(NOW_OR_THREAD, inline=inline)
        assert await where(predictor) == inline
        predictor.close()

    run(check())


def test_the_latency_is_that_of_the_model(run):
    async def check():
        predictor = Predictor(NOW_OR_THREAD, inline=False, timer=TickingTimer(0.25))
        assert (await predictor.predict([0])).latency_s == 0.25
        predictor.close()

    run(check())


def test_a_model_that_turns_out_slow_moves_to_a_thread_for_good(run):
    async def check():
        timer = TickingTimer(0.002)
        predictor = Predictor(NOW_OR_THREAD, inline=True, timer=timer)
        assert [await where(predictor) for _ in range(5)] == [True, True, True, True, False]
        timer.step_s = 0.0
        assert [await where(predictor) for _ in range(20)] == [False] * 20
        predictor.close()

    run(check())


def test_a_slow_batch_now_and_then_moves_nothing(run):
    async def check():
        timer = TickingTimer(0.0)
        predictor = Predictor(NOW_OR_THREAD, inline=True, timer=timer)
        for number in range(100):
            timer.step_s = 0.05 if number % 5 == 0 else 0.0
            assert await where(predictor)
        predictor.close()

    run(check())


def test_one_batch_that_stalls_the_loop_is_enough(run):
    async def check():
        predictor = Predictor(NOW_OR_THREAD, inline=True, timer=TickingTimer(0.1))
        assert [await where(predictor) for _ in range(2)] == [True, False]
        predictor.close()

    run(check())


def sample(rows):
    return sample_rows("float32", [4], rows)


def test_a_model_that_is_fast_at_every_size_is_cheap():
    model = CountingModel(FunctionOfRow(np.sum))
    assert is_cheap(model, sample, 100, TickingTimer(0.0001))
    assert model.sizes == [1, 2, 4, 8, 16, 32, 64, 100]


def test_a_row_that_takes_too_long_is_not_cheap_and_larger_batches_are_not_tried():
    model = CountingModel(FunctionOfRow(np.sum))
    assert not is_cheap(model, sample, 100, TickingTimer(0.0003))
    assert model.sizes == [1] * 10


def test_a_row_that_takes_far_too_long_is_tried_once():
    model = CountingModel(FunctionOfRow(np.sum))
    assert not is_cheap(model, sample, 100, TickingTimer(1.0))
    assert model.sizes == [1]


def test_a_large_batch_that_takes_too_long_ends_the_measuring():
    timer = TickingTimer(0.0)

    def busy(row):
        timer.step_s += 0.0001
        return 0

    assert not is_cheap(FunctionOfRow(busy), sample, 4096, timer)


def test_the_limit_of_one_row_is_measured_too():
    assert is_cheap(FunctionOfRow(np.sum), sample, 1, TickingTimer(0.0))


def test_without_a_sample_or_with_one_that_is_refused_nothing_is_cheap():
    assert not is_cheap(FunctionOfRow(np.sum), lambda rows: None, 8, TickingTimer(0.0))
    assert not is_cheap(FunctionOfRow(lambda row: 1 // 0), sample, 8, TickingTimer(0.0))


def test_a_model_that_fails_is_told_with_its_traceback_once_and_then_by_the_minute(caplog):
    now_s, outcomes = 0.0, []

    class Fails:
        def predict_batch(self, inputs):
            raise KeyError("new") if outcomes else ValueError("no")

    failures = FailureLog("raises:1", lambda: now_s)
    for second in (0, 1, 59, 61, 62, 63):
        now_s = float(second)
        if second == 62:
            outcomes.append(None)
        failures.note(predict_rows(Fails(), [1, 2]))
    failures.note(predict_rows(SimpleNamespace(predict_batch=list), [1, 2]))
    failures.note(predict_rows(SimpleNamespace(predict_batch=lambda rows: rows[:1]), [1, 2]))
    wrong_number = "the model gave 1 outputs for 2 rows: give one output a row"
    assert [(record.getMessage(), record.exc_info is not None) for record in caplog.records] == [
        ("model fails model=raises:1 rows=2 reason=ValueError: no", True),
        ("model fails model=raises:1 rows=6 reason=ValueError: no", False),
        ("model fails model=raises:1 rows=2 reason=KeyError: 'new'", True),
        (f"model fails model=raises:1 rows=2 reason=ModelFailed: {wrong_number}", True),
    ]
    assert "predict_batch" in caplog.text
