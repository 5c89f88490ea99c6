import asyncio
import json
import shutil
import signal

import msgspec
import pytest
from builders.learner_logs import flipped
from builders.router_deployment import WITHIN_S
from e2e.any_client import AnyClient
from integration.live_traffic import Traffic, counted, learned, rows_of, served, settled

from clipper_agents import exits
from clipper_agents.control.change_records import Signature
from clipper_agents.control.restore import carry_out, plan_restore
from clipper_agents.control.selection_states import state_of_rows
from clipper_agents.control.state import read_control
from clipper_agents.observability.exposition import scrape
from clipper_agents.replay.verdicts import Verification
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import change_key, restore_key
from clipper_topics.dead_letter import read_dead_letter
from clipper_topics.restore import RESTORE, markers_of
from clipper_topics.selection_rows import RowKey, SavedRow, decode_key, decode_row

ADA = Signature(by="ada", why="wrong labels")
FORGED = [SavedRow(partition=0, totals={"m:1": (900.0, 900.0, 900.0, 900.0), "n:1": (900.0, 0.0, 900.0, 0.0)})]


@pytest.fixture
async def at(at):
    async with served(at):
        yield at


@pytest.fixture
def verified(command):
    async def verify(equal=True):
        (printed,) = await command("replay", "verify", "--json", code=exits.OK if equal else exits.FAILURE)
        found = msgspec.json.decode(printed, type=Verification)
        assert found.equal is equal
        return found

    return verify


async def restored(at, rows):
    """Restore the rows of the application; the id of the restore."""
    plan = await plan_restore(at.kafka, at.catalogue, "app", rows, ADA)
    await carry_out(at.kafka, at.catalogue, plan)
    return plan.restore_id


async def declared_restores(at):
    return [*(await read_control(at.kafka, at.catalogue)).restores.values()]


async def mark(at, restore_id, *values, partition=0):
    headers = [*codec.MSGPACK_HEADERS, (RESTORE, restore_id.encode())]
    return await at.tell(*values, partition=partition, headers=headers)


async def test_a_restore_under_traffic_is_the_saved_state_plus_what_came_after_and_a_false_row_is_named(
    at, command, verified
):
    async with at.router() as router:
        async with Traffic(at).going_on() as traffic:
            await learned(at, 100)
            await verified()
            saved = await rows_of(at)
            await traffic.reaches(100)
            first = await restored(at, saved)
            await traffic.reaches(100)
        table = await settled(at)
        assert counted(table) == traffic.asked
        found = await verified()
        assert (found.rows, found.feedbacks) == (len(table), traffic.asked + 2), "and a marker in each partition"
        assert {row.context for row in saved} > {None, "c1"}
        before, other = await rows_of(at), await rows_of(at, "other")
        assert before != saved

        second = await restored(at, saved)
        await settled(at)
        assert (await rows_of(at), await rows_of(at, "other")) == (saved, other)
        weights = make_policy("exp4").prepare(state_of_rows(saved, None), ["m:1", "n:1"]).weights
        port = int((await router.ready())["metrics"])
        async with asyncio.timeout(WITHIN_S):
            while (await asyncio.to_thread(scrape, port)).by(
                "model", "clipper_selection_weight", application="app"
            ) != pytest.approx(weights, rel=1e-12):
                await asyncio.sleep(0.1)
        declared = await declared_restores(at)
        assert [(one.restore_id, one.restore.by) for one in declared] == [(first, "ada"), (second, "ada")]
        assert declared[1].restore.before == before

        await at.ask({"query_id": "last", "input": [4, 1]})
        await at.tell({"query_id": "last", "label": 5}, {"query_id": "q0", "label": 0})
        await settled(at)
        pairs = zip(saved, await rows_of(at), strict=True)
        ((old, new),) = [(one, later) for one, later in pairs if one != later]
        assert [new.totals[ref][0] - old.totals[ref][0] for ref in ("m:1", "n:1")] == [1, 1]
        found = await verified()
    printed = "\n".join(await command("replay", "verify"))
    assert f"equal: {found.rows} rows of {found.feedbacks:,} feedbacks in 2 partitions" in printed
    await falsify(at, verified, command)


async def falsify(at, verified, command):
    """Write a row with another last bit behind a feedback that no router has seen."""
    rows = [(decode_key(one.key), decode_row(one.value)) for one in await at.read(at.catalogue.selection_changelog)]
    of_app = [one for one in rows if (one[0].application, one[0].context) == ("app", None)]
    key, row = max(of_app, key=lambda one: one[1].offset)
    await at.ask({"query_id": "next", "input": [4, 1]}, partition=key.partition)
    (offset,) = await at.tell({"query_id": "next", "label": 5}, partition=key.partition)
    false = flipped(msgspec.structs.replace(row, offset=offset))
    place = {"partition": key.partition, "key": msgspec.msgpack.encode(key)}
    await at.send(at.catalogue.selection_changelog, msgspec.msgpack.encode(false), **place)
    (parting,) = (await verified(equal=False)).partings
    assert RowKey(parting.application, parting.context, parting.partition) == key
    assert (parting.table.offset, parting.logs.offset) == (offset, row.offset)
    told = "\n".join(await command("replay", "verify", code=exits.FAILURE))
    assert f"row of app in partition {key.partition} differs" in told
    assert f"  table: offset {offset}" in told


async def test_a_marker_counts_for_nothing_undeclared_or_behind_a_later_one_and_is_a_dead_letter(at):
    """test_restore_markers of tests/unit/feedback has the others that are refused."""

    async def refusals(first, count):
        letters = await at.read(at.catalogue.dead_letters, lambda found: len(found) >= first + count)
        return sorted(read_dead_letter(one.headers.items()).message for one in letters[first:])

    async with at.router():
        await at.ask({"query_id": "q", "input": [1, 1]})
        await at.tell({"query_id": "q", "label": 1})
        before = await settled(at)

        forged, empty = markers_of("app", FORGED, 2)
        await mark(at, "r-0", forged)
        await at.send(at.catalogue.control, b"{", key=restore_key("r-4"))
        await mark(at, "r-4", forged, b"")
        undeclared = [said.partition(" is declared")[0] for said in await refusals(0, 3)]
        assert undeclared == ["no restore 'r-0'", "no restore 'r-4'", "no restore 'r-4'"]
        table = await settled(at)
        assert table["app", None, 0].bits == before["app", None, 0].bits
        assert {key for key in table if key[0]} == {("app", None, 0)}

        first = await restored(at, [])
        assert (await settled(at))["app", None, 0].totals == {}
        plan = await plan_restore(at.kafka, at.catalogue, "app", FORGED, ADA)
        await carry_out(at.kafka, at.catalogue, plan)
        await settled(at)
        await mark(at, first, empty)  # of a restore that was counted before: a copy that anybody can write
        await mark(at, plan.restore_id, plan.markers[0])
        (said,) = await refusals(3, 1)
        assert said.startswith("a later restore of app was counted before this one")
        await settled(at)
        assert await rows_of(at) == FORGED


async def test_the_command_line_shows_keeps_restores_and_undoes(at, command):
    kept = [SavedRow(partition=1, context="c1", totals={"m:1": (4.0, 1.0, 4.0, 1.0)})]
    change = Change(application="app", revision=7, command="update", at_ms=0, by="ada", rows=kept)
    restore = ("selection", "restore", "app", "--yes")
    async with at.router():
        await at.ask({"query_id": "q", "input": [1, 1]})
        await at.tell({"query_id": "q", "label": 2})
        await settled(at)
        before = await rows_of(at)
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-writer") as producer, producer.transaction():
            await producer.send(at.catalogue.control, codec.changes.encode(change), key=change_key("app", 7))
        log = await asyncio.to_thread(AnyClient(at.kafka.bootstrap).read, at.catalogue.control)
        assert log[-1].key == change_key("app", 7)  # read to the end, which holds no record
        (line,) = await command("selection", "show", "app", "--json")
        shown = json.loads(line)["models"]
        assert [(one["model"], one["count"], one["loss"]) for one in shown] == [("m:1", 1.0, 0.0), ("n:1", 1.0, 1.0)]
        assert sum(one["weight"] for one in shown) == pytest.approx(1.0)
        file = at.folder / "app.json"
        file.write_text("\n".join(await command("selection", "export", "app")))

        await mark(at, "r-00000000", b"")  # the control topic ends with a transaction, which holds no record
        first = await restored(at, kept)
        assert len(await at.read(at.catalogue.dead_letters, lambda found: len(found) > 0)) == 1
        await settled(at)
        assert await rows_of(at) == kept
        assert "c1; 1 contexts" in "\n".join(await command("selection", "show", "app", "--context", "c1"))
        (second,) = await command(*restore, "--from", file)
        await settled(at)
        assert await rows_of(at) == before
        for undone, left in ((second, kept), (first, before)):
            await command(*restore, "--undo")
            await settled(at)
            assert await rows_of(at) == left
            assert (await declared_restores(at))[-1].restore.undoes == undone
        for code, arguments, said in (
            (exits.FAILURE, ("--undo",), "no restore of app to undo"),
            (exits.SETUP, ("--from", at.folder / "none.json"), "give a file that `selection export` wrote"),
        ):
            await command(*restore, *arguments, code=code, said=said)


@pytest.mark.long
async def test_restores_are_exact_through_kills_with_and_without_local_data(at):
    saved = []
    async with Traffic(at).going_on() as traffic:
        for number, wiped in enumerate((False, True, True, False)):
            async with at.router() as router:
                await traffic.reaches(100)
                if number == 0:
                    await learned(at, 50)
                    saved = await rows_of(at)
                restoring = asyncio.create_task(restored(at, saved))
                if number == 1:
                    await restoring
                elif number == 2:
                    await at.read(at.catalogue.control, lambda found, seen=number: restores_in(found) > seen)
                await router.ended(signal.SIGKILL)
                await restoring
            if wiped:
                shutil.rmtree(at.folder / "data", ignore_errors=True)
        plan = await plan_restore(at.kafka, at.catalogue, "app", saved, ADA)
        declaration = codec.restores.encode(plan.restore)
        await at.send(at.catalogue.control, declaration, key=restore_key(plan.restore_id))  # and broken off behind it
        async with at.router():
            await traffic.reaches(50)
            await mark(at, plan.restore_id, plan.markers[1], partition=1)
            await restored(at, saved)
            await traffic.reaches(50)
            await traffic.stop()
            table = await settled(at)
    assert counted(table) == traffic.asked
    assert len({row.applied for key, row in table.items() if key[:2] == ("", "app")}) == 1


def restores_in(records):
    return sum((one.key or b"").startswith(b"restore/") for one in records)
