"""The table of running routers is verified on a real Kafka; what is false is named, and a state of then comes back."""

import asyncio
import signal
import time

import msgspec
import pytest
from builders.learner_logs import flipped
from builders.live_traffic import Traffic, learned, rows_of, served, settled
from builders.router_deployment import WITHIN_S
from typer.testing import CliRunner

from clipper_agents.cli.main import app as program
from clipper_agents.control.errors import UnusableState
from clipper_agents.replay.verdicts import Verification
from clipper_topics.selection_rows import RowKey, decode_key, decode_row

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
async def at(at):
    async with served(at):
        yield at


async def command(at, *arguments):
    """Exit code, and what a command of the replay prints."""
    words = ["replay", *arguments, "--bootstrap", at.kafka.bootstrap, "--set", f"kafka.prefix={at.catalogue.prefix}"]
    words += ["--set", f"kafka.partitions={at.catalogue.partitions}"]
    done = await asyncio.to_thread(CliRunner().invoke, program, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


async def verified(at, *arguments):
    code, printed = await command(at, "verify", "--json", *arguments)
    found = msgspec.json.decode(printed, type=Verification)
    assert code == (0 if found.equal else 1)
    return found


async def newest(at, application):
    """The newest row of an application without a context, with its key."""
    table = {}
    for one in await at.read(at.catalogue.selection_changelog):
        key, row = decode_key(one.key), decode_row(one.value)
        if (key.application, key.context) == (application, None):
            table[key] = row
    return max(table.items(), key=lambda item: item[1].offset)


async def test_a_table_is_verified_under_traffic_and_a_falsified_row_is_named(at):
    traffic = Traffic(at)
    async with at.router() as router:
        asking = asyncio.create_task(traffic.ask())
        await learned(at, 100)
        assert (await verified(at)).equal
        traffic.stop()
        await asking
        table = await settled(at)
        found = await verified(at)
        assert found.equal
        assert found.rows == len(table)
        assert found.feedbacks == traffic.asked
        code, printed = await command(at, "verify")
        assert code == 0
        assert f"equal: {found.rows} rows of {traffic.asked:,} feedbacks in 2 partitions" in printed
        assert await router.ended(signal.SIGTERM) == 0, router.log
    key, row = await newest(at, "app")
    await at.ask({"query_id": "next", "input": [4, 1]}, partition=key.partition)
    (offset,) = await at.send(at.catalogue.feedback, {"query_id": "next", "label": 5}, partition=key.partition)
    false = flipped(msgspec.structs.replace(row, offset=offset))
    values = {"partition": key.partition, "key": msgspec.msgpack.encode(key)}
    await at.send(at.catalogue.selection_changelog, msgspec.msgpack.encode(false), **values)
    found = await verified(at)
    (parting,) = found.partings
    assert RowKey(parting.application, parting.context, parting.partition) == key
    assert (parting.last_equal, parting.first_different) == (row.offset, offset)
    assert (await verified(at, "other")).equal
    code, printed = await command(at, "verify", "app")
    assert code == 1
    assert f"row of app in partition {key.partition} differs" in printed
    assert f"equal up to feedback offset {row.offset}, different at {offset}" in printed


async def test_a_state_of_then_is_restored_and_verified_and_taken_back(at):
    traffic = Traffic(at)
    async with at.router() as router:
        asking = asyncio.create_task(traffic.ask())
        await traffic.reaches(120)
        traffic.stop()
        await asking
        await settled(at)
        then = await rows_of(at)
        ends = {one.partition: one.offset + 1 for one in await at.read(at.catalogue.feedback)}
        at_ms = round(time.time() * 1000) + 1
        async with asyncio.timeout(WITHIN_S):
            while time.time() * 1000 <= at_ms:
                await asyncio.sleep(0.01)
        later = Traffic(at)
        later.asked = 10_000
        asking = asyncio.create_task(later.ask())
        await later.reaches(60)
        later.stop()
        await asking
        await settled(at)
        now, other = await rows_of(at), await rows_of(at, "other")
        assert now != then

        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at_ms / 1000))}.{at_ms % 1000:03}+00:00"
        code, printed = await command(at, "restore", "app", "--at", stamp, "--dry-run")
        assert (code, printed) == (0, "")
        assert await rows_of(at) == now
        code, first = await command(at, "restore", "app", "--at", stamp, "--yes")
        assert code == 0
        await settled(at)
        assert await rows_of(at) == then
        assert await rows_of(at, "other") == other
        assert (await verified(at)).equal

        words = ["selection", "restore", "app", "--undo", "--yes", "--bootstrap", at.kafka.bootstrap]
        words += ["--set", f"kafka.prefix={at.catalogue.prefix}", "--set", "kafka.partitions=2"]
        assert (await asyncio.to_thread(CliRunner().invoke, program, words)).exit_code == 0
        await settled(at)
        assert await rows_of(at) == now
        assert (await verified(at)).equal

        offsets = ",".join(f"{number}:{end}" for number, end in ends.items())
        code, second = await command(at, "restore", "app", "--offsets", offsets, "--yes")
        assert code == 0
        assert second != first
        await settled(at)
        assert await rows_of(at) == then
        assert (await verified(at)).equal
        with pytest.raises(UnusableState, match="goes from 0 to"):
            await command(at, "restore", "app", "--offsets", "0:1000000", "--dry-run")
        assert await router.ended(signal.SIGTERM) == 0, router.log
