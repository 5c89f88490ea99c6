import threading
from types import SimpleNamespace

import numpy as np
import pytest
from builders.host import CountingModel, FunctionOfRow, TickingTimer

from clipper_agents.host.predictor import FailureLog, Predictor, is_cheap
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import predict_rows

NOW_OR_THREAD = FunctionOfRow(lambda row: threading.current_thread() is threading.main_thread())


async def where(predictor):
    return (await predictor.predict([0])).outcome.outputs[0]


@pytest.mark.parametrize("inline", [True, False])
async def test_a_batch_runs_where_it_was_decided_and_its_latency_is_that_of_the_model(inline):
    predictor = Predictor(NOW_OR_THREAD, inline=inline, timer=TickingTimer(0.001))
    assert (await predictor.predict([0])).latency_s == 0.001
    assert await where(predictor) == inline
    predictor.close()


@pytest.mark.parametrize(
    ("latencies_s", "inline"),
    [
        ([0.002] * 5 + [0.0] * 20, [True] * 4 + [False] * 21),
        ([0.05, 0.0, 0.0, 0.0, 0.0] * 20, [True] * 100),
        ([0.1, 0.1], [True, False]),
    ],
    ids=["slow for a while: for good", "a slow batch now and then", "one that stalls the loop is enough"],
)
async def test_a_model_that_turns_out_slow_moves_to_a_thread(latencies_s, inline):
    timer, found = TickingTimer(0.0), []
    predictor = Predictor(NOW_OR_THREAD, inline=True, timer=timer)
    for timer.step_s in latencies_s:
        found.append(await where(predictor))
    assert found == inline
    predictor.close()


def sample(rows):
    return RowSpec("float32", [4]).sample(rows)


@pytest.mark.parametrize(
    ("latency_s", "limit_rows", "cheap", "sizes"),
    [
        (0.0001, 100, True, [1, 2, 4, 8, 16, 32, 64, 100]),
        (0.0, 1, True, [1, 1]),
        (0.0003, 100, False, [1] * 10),
        (1.0, 100, False, [1]),
    ],
)
def test_a_model_is_cheap_that_is_fast_at_every_size_and_no_more_is_tried_than_needed(
    latency_s, limit_rows, cheap, sizes
):
    model = CountingModel(FunctionOfRow(np.sum))
    assert is_cheap(model, sample, limit_rows, TickingTimer(latency_s)) == cheap
    assert model.sizes == sizes


def test_a_large_batch_that_takes_too_long_ends_the_measuring():
    timer = TickingTimer(0.0)

    def busy(row):
        timer.step_s += 0.0001
        return 0

    assert not is_cheap(FunctionOfRow(busy), sample, 4096, timer)


def test_without_a_sample_or_with_one_that_is_refused_nothing_is_cheap():
    assert not is_cheap(FunctionOfRow(np.sum), lambda rows: None, 8, TickingTimer(0.0))
    assert not is_cheap(FunctionOfRow(lambda row: 1 // 0), sample, 8, TickingTimer(0.0))


def test_a_model_that_fails_is_told_with_its_traceback_once_and_then_by_the_minute(caplog):
    now_s = 0.0
    failures = FailureLog("raises:1")
    for now_s in (0.0, 1.0, 59.0, 61.0, 62.0, 63.0):
        failures.note(predict_rows(FunctionOfRow(int if now_s < 62.0 else {}.__getitem__), ["no", "no"]), now_s)
    failures.note(predict_rows(SimpleNamespace(predict_batch=list), [1, 2]), now_s)
    failures.note(predict_rows(SimpleNamespace(predict_batch=lambda rows: rows[:1]), [1, 2]), now_s)
    wrong_number = "the model gave 1 outputs for 2 rows: give one output a row"
    assert [(record.getMessage(), record.exc_info is not None) for record in caplog.records] == [
        ("model fails model=raises:1 rows=2 reason=ValueError: invalid literal for int() with base 10: 'no'", True),
        ("model fails model=raises:1 rows=6 reason=ValueError: invalid literal for int() with base 10: 'no'", False),
        ("model fails model=raises:1 rows=2 reason=KeyError: 'no'", True),
        (f"model fails model=raises:1 rows=2 reason=ModelFailed: {wrong_number}", True),
    ]
    assert "predict_batch" in caplog.text
