import asyncio
import threading

import pytest
from builders.host import CountingModel, FunctionOfRow, asked, rows_of
from builders.kafka import settle
from unit.router.rig import FakeTimeLoop

from clipper_agents.host.batching import HostBatcher
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_agents.observability.metrics import BatchMetrics, ProcessMetrics
from clipper_stream.batching.limits import Fixed
from clipper_stream.batching.window import Window

DOUBLE = FunctionOfRow(lambda row: 2 * row)


class Gate:
    """A model that waits in its thread until it is let through."""

    def __init__(self):
        self.entered, self.open, self.sizes = asyncio.Event(), threading.Event(), []
        self._loop = asyncio.get_running_loop()

    def predict_batch(self, inputs):
        self.sizes.append(len(inputs))
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self.open.wait(timeout=20)
        return inputs


class Running:
    """An engine that runs; its sends are held, where that is asked for, until the test lets them go."""

    def __init__(self, model=DOUBLE, *, rows=4, max_delay_s=0.0, max_open_rows=1000, inline=True, held=False, **how):
        self.sent, self.waiting, self.finished = [], [], []
        self._held, self._news, self._metrics = held, asyncio.Condition(), ProcessMetrics("host")
        batcher, metrics = (
            HostBatcher(Window(max_delay_s), Fixed(rows), max_open_rows),
            BatchMetrics(self._metrics, "m", "1"),
        )
        self.engine = HostEngine(batcher, Predictor(model, inline=inline), self, metrics, **how)
        self.finish = self.finished.extend

    async def send(self, partition, pieces):
        async with self._news:
            self.sent += [frame for _, frame in pieces]
            self._news.notify_all()
        if self._held:
            self.waiting.append(acknowledged := asyncio.get_running_loop().create_future())
            await acknowledged

    async def __aenter__(self):
        self.task = asyncio.create_task(self.engine.run())
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def submit(self, *frames, **how):
        await self.engine.submit(
            [asked(rows, frame=number, origin=number, **how) for number, rows in enumerate(frames, 1)]
        )

    async def until_sent(self, pieces):
        async with self._news:
            await self._news.wait_for(lambda: len(self.sent) >= pieces)

    async def ended(self):
        self.engine.drain()
        await self.task

    def value(self, name, **labels):
        return self._metrics.registry.get_sample_value(f"clipper_{name}", {"model": "m", "version": "1", **labels})


async def test_a_frame_is_finished_after_all_its_sends_were_acknowledged_and_the_next_is_predicted_meanwhile():
    async with Running(rows=2, held=True) as host:
        await host.submit([1, 2, 3], [4, 5])
        await host.until_sent(4)
        await settle()
        assert host.finished == []
        first, second, third = host.waiting
        third.set_result(None)
        second.set_result(None)
        await settle()
        assert host.finished == [2]
        first.set_result(None)
        await settle()
        assert host.finished == [2, 1]


async def test_while_a_batch_is_predicted_the_next_one_gathers():
    gate = Gate()
    async with Running(gate, rows=10, inline=False) as host:
        await host.submit([1])
        await gate.entered.wait()
        for _ in range(3):
            await host.submit([2])
        gate.open.set()
        await host.ended()
        assert gate.sizes == [1, 3]


async def test_submit_waits_while_the_process_is_full():
    async with Running(held=True, max_open_rows=3) as host:
        submitting = asyncio.create_task(host.submit(*[[1, 2]] * 3))
        await host.until_sent(2)
        await settle()
        assert not submitting.done()
        assert sorted(rows_of(host.sent)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
        host.waiting[0].set_result(None)
        await submitting
        await host.until_sent(3)
        assert (3, 1) in rows_of(host.sent)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": FakeTimeLoop})])
async def test_the_windows_alarm_sends_a_batch_that_did_not_fill():
    time = asyncio.get_running_loop().time
    async with Running(rows=10, max_delay_s=60.0, clock=time) as host:
        await host.submit([1])
        await settle()
        assert (host.sent, time()) == ([], 0.0)
        await host.until_sent(1)
        assert time() == pytest.approx(60.0, abs=0.1)


async def test_an_idle_engine_does_nothing_until_it_is_asked_or_drains():
    readings = []
    async with Running(clock=lambda: readings.append(1) or 1000.0) as host:
        await settle()
        before = len(readings)
        host.engine.take(asked([1]))
        await host.until_sent(1)
        await settle()
        assert len(readings) > before
        before = len(readings)
        await settle()
        assert len(readings) == before
        await host.ended()


async def test_rows_submitted_together_are_one_batch_and_what_becomes_of_them_is_counted():
    model = CountingModel(FunctionOfRow(lambda row: 2 // row))
    async with Running(model, rows=10, clock=lambda: 1000.0) as host:
        await host.submit([1, 2, 3], [0, 1], deadline_s=1001.0)
        await host.submit([1], deadline_s=999.0)
        await host.ended()
        assert model.sizes[0] == 5
        assert sorted(host.finished) == [1, 1, 2]
        assert rows_of(host.sent)[1, 0] == ["late", 2]
        assert [host.value("rows_total", outcome=outcome) for outcome in ("ok", "error", "late")] == [4, 1, 1]
        assert (host.value("batch_rows_sum"), host.value("batch_limit_rows"), host.value("queued_rows")) == (5, 10, 0)
        assert host.value("batch_latency_seconds_sum") > 0


async def test_a_drained_engine_has_answered_everything_and_takes_nothing_more():
    async with Running(held=True, rows=1) as host:
        await host.submit([1, 2])
        host.engine.drain()
        await host.until_sent(2)
        await settle()
        assert not host.task.done()
        late = asyncio.create_task(host.submit([3]))
        for sent in host.waiting:
            sent.set_result(None)
        await host.task
        await settle()
        assert (host.finished, late.done()) == ([1], False)
        late.cancel()


@pytest.mark.parametrize("draining", [False, True])
async def test_a_failed_send_ends_the_engine_what_waits_for_room_and_what_comes_and_finishes_nothing(draining):
    async with Running(held=True, max_open_rows=1) as host:
        submitting = asyncio.create_task(host.submit([1], [2]))
        await host.until_sent(1)
        await settle()
        if draining:
            host.engine.drain()
        host.waiting[0].set_exception(ConnectionError("gone"))
        for ending in (submitting, host.task, host.submit([3])):
            with pytest.raises(ConnectionError):
                await ending
        assert host.finished == []
