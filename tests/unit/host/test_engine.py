"""The engine waits, batches, sends and reports as the core decides."""

import asyncio
import threading

import pytest
from builders.host import CountingModel, FakeClock, FunctionOfRow, Observed, Outputs, asked

from clipper_agents.host.batching import HostBatcher
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_stream.batching.registry import Fixed
from clipper_stream.batching.window import Window

DOUBLE = FunctionOfRow(lambda row: 2 * row)


class Gate:
    """A model that waits in its thread until it is let through."""

    def __init__(self):
        self.entered = asyncio.Event()
        self.open = threading.Event()
        self.sizes = []
        self._loop = asyncio.get_running_loop()

    def predict_batch(self, inputs):
        self.sizes.append(len(inputs))
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self.open.wait(timeout=20)
        return inputs


class Running:
    """An engine with doubles around it, running."""

    def __init__(self, model=DOUBLE, *, rows=4, max_delay_s=0.0, inline=True, held=False, **how):
        self.outputs = how.pop("send", None) or Outputs(held=held)
        self.finished = []
        self.observed = Observed()
        self.engine = HostEngine(
            HostBatcher(Window(max_delay_s), Fixed(rows)),
            Predictor(model, inline=inline),
            self.outputs,
            self.finished.extend,
            self.observed,
            **how,
        )

    async def __aenter__(self):
        self.task = asyncio.create_task(self.engine.run())
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def ended(self):
        self.engine.drain()
        await self.task


async def settle():
    """Let everything that can go on without an answer from outside go on."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_rows_submitted_together_are_one_batch(run):
    async def check():
        model = CountingModel(DOUBLE)
        async with Running(model, rows=10) as host:
            await host.engine.submit([(number, asked([number], frame=number)) for number in range(5)])
            await host.ended()
            assert model.sizes == [5]
            assert len(host.outputs.sent) == 1

    run(check())


def test_a_frame_is_finished_only_after_all_its_sends_were_acknowledged(run):
    async def check():
        async with Running(rows=2, held=True) as host:
            await host.engine.submit([("a", asked([1, 2, 3], frame=1)), ("b", asked([4, 5], frame=2))])
            await host.outputs.until(3)
            assert host.finished == []
            first, second, third = host.outputs.waiting
            third.set_result(None)
            second.set_result(None)
            await settle()
            assert host.finished == ["b"]
            first.set_result(None)
            await settle()
            assert host.finished == ["b", "a"]

    run(check())


def test_while_outputs_are_on_their_way_the_next_batch_is_predicted(run):
    async def check():
        async with Running(rows=1, held=True) as host:
            await host.engine.submit([("a", asked([1, 2, 3]))])
            await host.outputs.until(3)
            assert not any(sent.done() for sent in host.outputs.waiting)

    run(check())


def test_while_a_batch_is_predicted_the_next_one_gathers(run):
    async def check():
        gate = Gate()
        async with Running(gate, rows=10, inline=False) as host:
            await host.engine.submit([("a", asked([1], frame=1))])
            await gate.entered.wait()
            for number in (2, 3, 4):
                await host.engine.submit([(number, asked([number], frame=number))])
            gate.open.set()
            await host.ended()
            assert gate.sizes == [1, 3]

    run(check())


def test_submit_waits_while_the_process_is_full(run):
    async def check():
        async with Running(held=True, max_open_rows=3) as host:
            frames = [(number, asked([1, 2], frame=number)) for number in range(3)]
            submitting = asyncio.create_task(host.engine.submit(frames))
            await host.outputs.until(1)
            await settle()
            assert not submitting.done()
            assert sorted(host.outputs.rows()) == [(0, 0), (0, 1), (1, 0), (1, 1)]
            host.outputs.waiting[0].set_result(None)
            await submitting
            await host.outputs.until(2)
            assert (2, 1) in host.outputs.rows()

    run(check())


def test_the_windows_alarm_sends_a_batch_that_did_not_fill(run):
    async def check():
        async with Running(rows=10, max_delay_s=0.005) as host:
            await host.engine.submit([("a", asked([1]))])
            await settle()
            assert host.outputs.sent == []
            await host.outputs.until(1)

    run(check())


def test_an_idle_engine_does_nothing(run):
    async def check():
        readings = []
        clock = FakeClock()
        async with Running(clock=lambda: readings.append(1) or clock()) as host:
            await settle()
            before = len(readings)
            await settle()
            assert len(readings) == before
            await host.engine.submit([("a", asked([1]))])
            await host.outputs.until(1)

    run(check())


def test_late_rows_are_answered_and_counted(run):
    async def check():
        clock = FakeClock(1000.0)
        async with Running(clock=clock) as host:
            await host.engine.submit([("a", asked([1, 2], deadline_s=[999.0, 1001.0]))])
            await host.ended()
            assert host.outputs.rows() == {(1, 0): ["late"], (1, 1): [4]}
            assert host.finished == ["a"]
            assert host.observed.late_rows == 1

    run(check())


def test_batches_are_observed(run):
    async def check():
        async with Running(FunctionOfRow(lambda row: 1 // row), rows=3) as host:
            await host.engine.submit([("a", asked([1, 0, 1]))])
            await host.ended()
            (batch,) = host.observed.batches
            assert (batch["rows"], batch["failed"], batch["limit_rows"]) == (3, 1, 3)
            assert batch["latency_s"] > 0
            assert host.observed.queued_rows == 0

    run(check())


def test_a_drained_engine_has_answered_everything_and_takes_nothing_more(run):
    async def check():
        async with Running(held=True, rows=1) as host:
            await host.engine.submit([("a", asked([1, 2]))])
            host.engine.drain()
            await host.outputs.until(2)
            await settle()
            assert not host.task.done()
            late = asyncio.create_task(host.engine.submit([("b", asked([3], frame=2))]))
            for sent in host.outputs.waiting:
                sent.set_result(None)
            await host.task
            await settle()
            assert host.finished == ["a"]
            assert not late.done()
            late.cancel()

    run(check())


def test_an_idle_engine_drains_at_once(run):
    async def check():
        async with Running() as host:
            await settle()
            await host.ended()

    run(check())


async def refused(reply):
    raise ConnectionError("the broker said no")


def test_a_failed_send_ends_the_engine_and_finishes_nothing(run):
    async def check():
        async with Running(send=refused) as host:
            await host.engine.submit([("a", asked([1]))])
            with pytest.raises(ConnectionError):
                await host.task
            with pytest.raises(ConnectionError):
                await host.engine.submit([("b", asked([2]))])
            assert host.finished == []

    run(check())


def test_a_failed_send_ends_a_submit_that_waits_for_room(run):
    async def check():
        async with Running(held=True, max_open_rows=1) as host:
            submitting = asyncio.create_task(host.engine.submit([(0, asked([1])), (1, asked([2]))]))
            await host.outputs.until(1)
            host.outputs.waiting[0].set_exception(ConnectionError("gone"))
            with pytest.raises(ConnectionError):
                await submitting
            with pytest.raises(ConnectionError):
                await host.task

    run(check())


def test_a_send_that_fails_while_draining_is_not_forgotten(run):
    async def check():
        async with Running(held=True) as host:
            await host.engine.submit([("a", asked([1]))])
            host.engine.drain()
            await host.outputs.until(1)
            host.outputs.waiting[0].set_exception(ConnectionError("gone"))
            with pytest.raises(ConnectionError):
                await host.task

    run(check())
