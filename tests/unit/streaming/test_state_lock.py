"""Steps of two partitions run beside each other, and none beside a recovery."""

import asyncio

from builders.kafka import settle

from clipper_agents.streaming.app import StateLock


async def entered(context, drop_tracebacks, log, name):
    async with context:
        log.append(name)
        await drop_tracebacks.wait()


async def test_no_partition_waits_for_another_and_each_has_one_step_at_a_time():
    lock, drop_tracebacks, log = StateLock(), asyncio.Event(), []
    tasks = [asyncio.create_task(entered(lock.of(one), drop_tracebacks, log, one)) for one in (0, 1, 0)]
    await settle()
    assert log == [0, 1]
    drop_tracebacks.set()
    await asyncio.gather(*tasks)
    assert log == [0, 1, 0]


async def test_a_recovery_waits_for_all_steps_and_steps_wait_for_it():
    lock, step, recovery, log = StateLock(), asyncio.Event(), asyncio.Event(), []
    tasks = [asyncio.create_task(entered(lock.of(0), step, log, "step"))]
    await settle()
    tasks.append(asyncio.create_task(entered(lock.of_all(), recovery, log, "recovery")))
    await settle()
    tasks += [asyncio.create_task(entered(lock.of(one), step, log, one)) for one in (0, 1)]
    await settle()
    assert log == ["step"], "nor does a step of a partition begin that had none before"
    step.set()
    await settle()
    assert log == ["step", "recovery"]
    recovery.set()
    await asyncio.gather(*tasks)
    assert sorted(map(str, log)) == ["0", "1", "recovery", "step"]
