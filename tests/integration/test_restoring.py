"""A selection state is set back through the feedback log: exactly, under traffic and kills, and never forged."""

import asyncio
import json
import re
import shutil
import signal
import urllib.request

import pytest
from builders.live_traffic import Traffic, learned, rows_of, served, settled
from builders.router_deployment import WITHIN_S
from e2e.any_client import AnyClient
from typer.testing import CliRunner

from clipper_agents.cli.main import app as program
from clipper_agents.control.change_records import Signature
from clipper_agents.control.restore import (
    carry_out,
    plan_restore,
    plan_resumed,
    restore_state,
)
from clipper_agents.control.selection_states import state_of_rows
from clipper_agents.control.state import read_control
from clipper_stream.errors import ClipperError
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import change_key, restore_key
from clipper_topics.dead_letter import read_dead_letter
from clipper_topics.restore import RESTORE, Restore, digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
async def at(at):
    async with served(at):
        yield at


FORGED = [SavedRow(partition=0, totals={"m:1": (900.0, 900.0, 900.0, 900.0), "n:1": (900.0, 0.0, 900.0, 0.0)})]


async def declared_restores(at):
    return [*(await read_control(at.kafka, at.catalogue)).restores.values()]


async def mark(at, restore_id, *values, partition=0):
    headers = [*codec.MSGPACK_HEADERS, (RESTORE, restore_id.encode())]
    return await at.send(at.catalogue.feedback, *values, partition=partition, headers=headers)


async def declare(at, restore_id, restore):
    await at.send(at.catalogue.control, codec.restores.encode(restore), key=restore_key(restore_id))


def weights_shown(router):
    """The weights that the router's metrics show."""
    port = router.line.split("metrics=")[1].split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    lines = re.findall(r"^clipper_selection_weight{(.*)} (\S+)$", text, flags=re.MULTILINE)
    labels = [(dict(re.findall(r'(\w+)="([^"]*)"', names)), float(value)) for names, value in lines]
    return {one["model"]: value for one, value in labels if one["application"] == "app"}


async def shows(router, weights):
    """The router decides by these weights, to the last digit that its metrics print."""
    async with asyncio.timeout(WITHIN_S):
        while (await asyncio.to_thread(weights_shown, router)) != pytest.approx(weights, rel=1e-12):
            await asyncio.sleep(0.1)


async def test_a_restore_under_traffic_is_the_saved_state_plus_what_came_after(at):
    traffic = Traffic(at)
    async with at.router() as router:
        asking = asyncio.create_task(traffic.ask())
        await learned(at, 100)
        saved = await rows_of(at)
        await traffic.reaches(150)
        first = await restore_state(at.kafka, at.catalogue, "app", saved, Signature(by="ada", why="wrong labels"))
        await traffic.reaches(150)
        traffic.stop()
        await asking
        table = await settled(at)
        assert sum(row.applied for key, row in table.items() if key[0]) == traffic.asked
        assert {row.context for row in saved} > {None, "c1"}
        before, other = await rows_of(at), await rows_of(at, "other")
        assert before != saved

        second = await restore_state(
            at.kafka, at.catalogue, "app", saved, Signature(by="ada", why="again, and nobody asks")
        )
        await settled(at)
        assert await rows_of(at) == saved
        assert await rows_of(at, "other") == other
        policy = make_policy("exp4")
        await shows(router, policy.prepare(state_of_rows(saved, None), ["m:1", "n:1"]).weights)
        declared = await declared_restores(at)
        assert [(one.restore_id, one.restore.by) for one in declared] == [(first, "ada"), (second, "ada")]
        assert declared[1].restore.before == before

        await at.ask({"query_id": "last", "input": [4, 1]})
        await at.send(at.catalogue.feedback, {"query_id": "last", "label": 5}, {"query_id": "q0", "label": 0})
        await settled(at)
        ((old, new),) = [
            pair
            for pair in zip(saved, await rows_of(at), strict=True)
            if pair[0] != pair[1]
        ]  # fmt: skip
        assert (new.totals["m:1"][0], new.totals["n:1"][0]) == (old.totals["m:1"][0] + 1, old.totals["n:1"][0] + 1)
        assert await router.ended(signal.SIGTERM) == 0, router.log


async def test_an_undeclared_marker_changes_nothing_and_is_a_dead_letter(at):
    async with at.router() as router:
        ids = [f"q{number}" for number in range(10)]
        await at.ask(*({"query_id": one, "input": [place, 1]} for place, one in enumerate(ids)))
        await at.send(at.catalogue.feedback, *({"query_id": one, "label": 1} for one in ids))
        before = (await settled(at))["app", None, 0]

        forged, empty = markers_of("app", FORGED, 2)
        other = markers_of("other", FORGED, 2)
        await mark(at, "r-00000000", forged)
        await declare(at, "r-11111111", Restore(application="app", at_ms=0, by="a", digests=digests_of([empty] * 2)))
        await mark(at, "r-11111111", forged)
        await declare(at, "r-22222222", Restore(application="app", at_ms=0, by="a", digests=digests_of(other)))
        await mark(at, "r-22222222", other[0])
        await declare(at, "r-33333333", Restore(application="app", at_ms=0, by="a", digests=digests_of([forged] * 2)))
        await mark(at, "r-33333333", forged, partition=1)
        await at.send(at.catalogue.control, b"{", key=restore_key("r-44444444"))
        await mark(at, "r-44444444", forged, b"")
        letters = await at.read(at.catalogue.dead_letters, lambda found: len(found) >= 6)
        said = sorted(read_dead_letter(one.headers.items()).message for one in letters)
        assert len(said) == 6
        assert [message.split(":")[0][:60] for message in said] == [
            "no restore 'r-00000000' is declared on the control topic",
            "no restore 'r-44444444' is declared on the control topic",
            "no restore 'r-44444444' is declared on the control topic",
            "restore r-11111111 declares sha256 "[:60] + digests_of([empty])["0"][: 60 - 35],
            "restore r-22222222 is about app, the marker about other",
            "the marker of partition 1 has rows of partitions [0]",
        ]
        table = await settled(at)
        assert table["app", None, 0].bits == before.bits
        assert {key for key in table if key[0]} == {("app", None, 0)}

        real = await restore_state(at.kafka, at.catalogue, "app", [], Signature(by="ada", why=""))
        assert (await settled(at))["app", None, 0].totals == {}
        later = await restore_state(at.kafka, at.catalogue, "app", [], Signature(by="ada", why=""))
        plan = await plan_restore(at.kafka, at.catalogue, "app", FORGED, Signature(by="ada", why=""))
        await carry_out(at.kafka, at.catalogue, plan)
        await settled(at)
        assert await rows_of(at) == FORGED
        await mark(at, later, empty)  # of restores that were counted before: a copy that anybody can write
        await mark(at, real, empty)
        await mark(at, plan.restore_id, plan.markers[0])
        letters = await at.read(at.catalogue.dead_letters, lambda found: len(found) >= 8)
        assert {read_dead_letter(one.headers.items()).message for one in letters[6:]} == {
            "a later restore of app was counted before this one: repeat it if it is still wanted"
        }
        await settled(at)
        assert await rows_of(at) == FORGED
        assert await router.ended(signal.SIGTERM) == 0, router.log


async def test_the_command_line_shows_keeps_restores_and_undoes(at):
    kept = [SavedRow(partition=1, context="c1", totals={"m:1": (4.0, 1.0, 4.0, 1.0)})]
    change = Change(application="app", revision=7, command="update", at_ms=0, by="ada", rows=kept)
    async with at.router() as router:
        await at.ask({"query_id": "q", "input": [1, 1]})
        await at.send(at.catalogue.feedback, {"query_id": "q", "label": 2})
        await settled(at)
        before = await rows_of(at)
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-writer") as producer, producer.transaction():
            await producer.send(at.catalogue.control, codec.changes.encode(change), key=change_key("app", 7))
        log = await asyncio.to_thread(AnyClient(at.kafka.bootstrap).read, at.catalogue.control)
        assert log[-1].key == change_key("app", 7)  # read to the end, which holds no record
        shown = json.loads(await command(at, "show", "app", "--json"))
        assert {one["model"]: (one["count"], one["loss"]) for one in shown["models"]} == {
            "m:1": (1.0, 0.0),
            "n:1": (1.0, 1.0),
        }
        assert sum(one["weight"] for one in shown["models"]) == pytest.approx(1.0)
        file = at.folder / "app.json"
        file.write_text(await command(at, "export", "app"))

        await mark(at, "r-00000000", b"")  # the control topic ends with a transaction, which holds no record
        first = (await command(at, "restore", "app", "--revision", "7", "--why", "a drill", "--by", "ada")).strip()
        assert len(await at.read(at.catalogue.dead_letters, lambda found: len(found) > 0)) == 1
        await settled(at)
        assert await rows_of(at) == kept
        assert "c1; 1 contexts" in await command(at, "show", "app", "--context", "c1")
        assert (await command(at, "restore", "app", "--revision", "7", "--resume", first)).strip() == first
        second = (await command(at, "restore", "app", "--from", str(file))).strip()
        await settled(at)
        assert await rows_of(at) == before
        for undone, left in ((second, kept), (first, before)):
            await command(at, "restore", "app", "--undo")
            await settled(at)
            assert await rows_of(at) == left
            newest = (await declared_restores(at))[-1].restore
            assert newest.undoes == undone
        for arguments, said in {
            ("--undo",): "no restore of app to undo",
            ("--revision", "8"): "no change of app to revision 8",
            ("--from", str(file), "--resume", first): f"restore {first} of app is older than",
            ("--from", str(at.folder / "none.json")): "give a file that `selection export` wrote",
        }.items():
            with pytest.raises(ClipperError, match=said):
                await command(at, "restore", "app", *arguments)
        assert await router.ended(signal.SIGTERM) == 0, router.log


async def command(at, *arguments):
    """What a command of the selection prints."""
    words = ["selection", *arguments, "--bootstrap", at.kafka.bootstrap, "--set", f"kafka.prefix={at.catalogue.prefix}"]
    words += ["--set", f"kafka.partitions={at.catalogue.partitions}", *(["--yes"] if arguments[0] == "restore" else [])]
    done = await asyncio.to_thread(CliRunner().invoke, program, words)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.mark.long
async def test_restores_are_exact_through_kills_with_and_without_local_data(at):
    traffic = Traffic(at)
    asking, saved = None, []
    for number, wiped in enumerate((False, True, True, False)):
        async with at.router() as router:
            asking = asking or asyncio.create_task(traffic.ask())
            await traffic.reaches(100)
            if number == 0:
                await learned(at, 50)
                saved = await rows_of(at)
            restoring = asyncio.create_task(
                restore_state(at.kafka, at.catalogue, "app", saved, Signature(by="ada", why=""))
            )
            if number == 1:
                await restoring
            elif number == 2:
                await at.read(at.catalogue.control, lambda found, seen=number: restores_in(found) > seen)
            await router.ended(signal.SIGKILL)
            await restoring
        if wiped:
            shutil.rmtree(at.folder / "data", ignore_errors=True)
    plan = await plan_restore(
        at.kafka, at.catalogue, "app", saved, Signature(by="ada", why="broken off behind the declaration")
    )
    await declare(at, plan.restore_id, plan.restore)
    async with at.router() as router:
        await traffic.reaches(50)
        resumed = await plan_resumed(at.kafka, at.catalogue, "app", plan.restore_id, saved)
        await mark(at, plan.restore_id, plan.markers[1], partition=1)
        await carry_out(at.kafka, at.catalogue, resumed)
        await traffic.reaches(50)
        traffic.stop()
        await asking
        table = await settled(at)
        assert sum(row.applied for key, row in table.items() if key[0]) == traffic.asked
        (declared,) = [one for one in await declared_restores(at) if one.restore_id == plan.restore_id]
        assert declared.restore == plan.restore
        assert len({row.applied for key, row in table.items() if key[:2] == ("", "app")}) == 1
        assert await router.ended(signal.SIGTERM) == 0, router.log


def restores_in(records):
    return sum((one.key or b"").startswith(b"restore/") for one in records)
