"""A disk that is full, gone, read-only, somebody else's or corrupt: a clear end, and the next start goes on exactly."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import damage
import pytest
from confluent_kafka import Producer
from e2e.any_client import AnyClient
from e2e.programs import Program, RunningProcess, until
from e2e.traffic import Traffic
from faults.deployment import OwnDeployment
from faults.disks import Disk, limited_files, respecting_modes, small_disk
from faults.report import FaultReport
from faults.restored import judge_twice
from faults.watching import Watch

from clipper_agents import exits
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

REASONS = {"late", "arrived_late", "errors", "no_models"}
QUERIES_BETWEEN = 80
LEAST_APPLIED = 3
"""Feedbacks of each of four applications: some cases ask two hundred queries in all."""
FLUSHED = {**damage.ON_TABLES, **damage.HARMLESS}
ALL_DAMAGE = {**FLUSHED, **damage.ON_LOGS}
SHORT = ("bytes flipped in a table file", "a manifest that has lost its end")


@pytest.fixture
def deployment(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> OwnDeployment:
    return OwnDeployment.on(kafka, catalogue, tmp_path)


def more(traffic: Traffic, queries: int = QUERIES_BETWEEN) -> None:
    goal = traffic.asked + queries
    until("more queries", lambda: traffic.asked >= goal)


def learned(client: AnyClient, prefix: str) -> None:
    """Until every kind of database has something in it: the rows of what was learned come last."""
    until("something was learned", lambda: bool(client.read(f"{prefix}.router-selection-changelog")))


def tell_again(client: AnyClient, topic: str) -> None:
    """Every feedback once more, unchanged: none of it may count."""
    producer = Producer({"bootstrap.servers": client.bootstrap})
    for one in client.read(topic):
        producer.produce(topic, one.value, one.key, one.partition, headers=list(one.headers.items()))
    assert producer.flush(60) == 0


def conclude(
    deployment: OwnDeployment,
    running: Program,
    traffic: Traffic,
    report: FaultReport,
    case: str,
    stalls_s: Callable[[], Sequence[float]] = list,
    **line: Any,
) -> None:
    """Everything is answered, then told once more; nothing is lost, nothing counted twice."""
    traffic.finish()
    stalls = stalls_s()
    tell_again(deployment.client, traffic.feedback)
    verdict = judge_twice(deployment, running)
    report.add(case, verdict, stalls_s=stalls, **line)
    verdict.check(LEAST_APPLIED)
    assert verdict.defaults.keys() <= REASONS


def routers(up: Program) -> list[RunningProcess]:
    return [one for one in up.children() if " worker router " in one.command]


# --- full ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [pytest.param(small_disk, marks=pytest.mark.short), limited_files])
def test_a_full_disk_ends_the_router_loudly_and_it_recovers_with_space(
    kafka: KafkaConnection,
    catalogue: Catalogue,
    tmp_path: Path,
    short: bool,
    fault_report: FaultReport,
    make: Callable[[Path], AbstractContextManager[Disk]],
):
    with ExitStack() as stack:
        disk = stack.enter_context(make(tmp_path / "disk"))
        deployment = OwnDeployment.on(kafka, catalogue, tmp_path, disk.folder / "data")
        client = deployment.client
        up = stack.enter_context(deployment.start("up"))
        up.ready()
        watch = stack.enter_context(Watch(client, catalogue.predictions))
        traffic = stack.enter_context(Traffic(client, catalogue.prefix, catalogue.partitions))
        more(traffic)
        (first,) = routers(up)
        disk.fill(first.pid)
        at_s = time.monotonic()
        until("the router has ended", lambda: not first.runs)
        more(traffic)
        disk.free()
        conclude(
            deployment, up, traffic, fault_report, "the disk is full", kills=1, stalls_s=lambda: watch.stalls_s([at_s]),
            note=type(disk).__name__,
        )  # fmt: skip
        log = up.log.splitlines()
    told = [line for line in log if "worker cannot go on" in line]
    assert told, up.log[-4000:]
    assert str(disk.folder) in told[0]
    assert "no space is left" in told[0]
    assert "free some" in told[0]
    assert "Traceback" not in told[0]
    assert any(f"exit code {exits.CRASHED}" in line for line in log if "child ended, restarting" in line)


# --- refused at the start -----------------------------------------------------------------------------------------
@pytest.mark.short
def test_a_directory_that_cannot_be_written_is_told_at_the_start(deployment: OwnDeployment):
    deployment.data.mkdir()
    deployment.data.chmod(0o555)
    try:
        with deployment.worker("router", through=respecting_modes()) as router:
            assert router.ended() == exits.SETUP
    finally:
        deployment.data.chmod(0o755)
    (line,) = router.log.splitlines()
    assert line.startswith(f"error: {deployment.data}/router-0: this user may not write there (Permission denied)")
    with deployment.worker("router") as router:
        router.ready()


def test_a_file_in_place_of_the_directory_is_told_at_the_start(deployment: OwnDeployment):
    deployment.data.write_text("not a directory")
    with deployment.worker("router") as router, deployment.start("up") as up:
        assert router.ended() == up.ended() == exits.SETUP
    (line,) = router.log.splitlines()
    assert line.startswith(
        f"error: {deployment.data}/router-0: a file is where a directory has to be (Not a directory)"
    )
    assert line.endswith("move the file away, or give another data_dir")
    assert "a file is where a directory has to be" in up.log.splitlines()[-1]


def test_a_directory_that_another_router_uses_is_told_with_that_process(deployment: OwnDeployment):
    with deployment.worker("router") as first:
        first.ready()
        with deployment.worker("router") as second:
            assert second.ended() == exits.SETUP
        assert f"{deployment.data}/router-0: process {first.pid} on " in second.log
        assert "uses it: end that one, or give each process an --instance or a data_dir of its own" in second.log
        first.signal(signal.SIGTERM)
        assert first.ended() == 0, first.log[-4000:]


# --- gone while it runs ---------------------------------------------------------------------------------------------
def test_a_directory_that_vanishes_is_built_anew(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    client, catalogue = deployment.client, deployment.catalogue
    rounds = 1 if short else 4
    with Traffic(client, catalogue.prefix, catalogue.partitions) as traffic:
        for number in range(rounds):
            with deployment.worker("router") as router:
                router.ready()
                more(traffic)
                shutil.rmtree(deployment.data)
                more(traffic)
                router.signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
                router.ended()
                models = [line for line in router.log.splitlines() if 'msg="model fails' in line]
                assert router.log.count("Traceback") == len(models), "only those of a model that fails"
        with deployment.worker("router") as router, deployment.worker("host", "slow-sum:1") as host:
            router.ready()
            host.ready()
            conclude(deployment, router, traffic, fault_report, "the data directory vanishes", kills=rounds)


# --- corrupt --------------------------------------------------------------------------------------------------------
def databases(data: Path) -> dict[str, list[Path]]:
    """The folders of all databases, by what is in them."""
    found: dict[str, list[Path]] = {"selection": [], "decisions": [], "cache": []}
    for current in data.rglob("CURRENT"):
        kind = next((kind for kind in found if kind in current.parts), "selection")
        found[kind].append(current.parent)
    return found


def harm_all(data: Path, harm: Callable[[Path], object]) -> int:
    """Do it to each database that has what it is about; to how many."""
    done = 0
    for folder in (folder for folders in databases(data).values() for folder in folders):
        if any(folder.glob("*.sst")) and any(folder.glob("*.log")):
            harm(folder)
            done += 1
    return done


def serving(deployment: OwnDeployment, stack: ExitStack, log: list[str]) -> Program:
    """A router that serves, after as many starts as it takes: each may find one more block that cannot be read."""
    for _ in range(10):
        router = stack.enter_context(deployment.worker("router"))
        until("it serves or has ended", lambda router=router: router.lines or router.poll() is not None)
        if router.lines:
            return router
        assert router.ended() == exits.CRASHED, router.log[-4000:]
        assert "worker cannot go on: " in router.log
        log += router.log.splitlines()
    raise AssertionError("it does not serve after ten starts")


def kinds(short: bool) -> Iterator[tuple[str, Callable[[Path], object]]]:
    return ((name, ALL_DAMAGE[name]) for name in (SHORT if short else ALL_DAMAGE))


@pytest.mark.short
def test_corrupt_databases_are_built_anew_from_the_logs(
    deployment: OwnDeployment, short: bool, fault_report: FaultReport
):
    client, catalogue, log = deployment.client, deployment.catalogue, list[str]()
    starts = harmed = 0
    with ExitStack() as stack:
        traffic = stack.enter_context(Traffic(client, catalogue.prefix, catalogue.partitions))
        stack.enter_context(deployment.worker("host", "slow-sum:1")).ready()
        for _, harm in kinds(short):
            router = serving(deployment, stack, log)
            more(traffic)
            learned(client, catalogue.prefix)
            router.signal(signal.SIGTERM)
            router.ended()
            log += router.log.splitlines()
            harmed += harm_all(deployment.data, harm)
            starts += 1
        router = serving(deployment, stack, log)
        conclude(
            deployment,
            router,
            traffic,
            fault_report,
            "corrupt databases",
            kills=starts,
            note=f"{harmed} databases damaged",
        )
        log += router.log.splitlines()
    told = [line for line in log if "corrupt, set aside to be built anew from the logs" in line]
    assert all(" level=warning " in line and "reason=" in line for line in told)
    for kind in ("selection", "decisions", "cache"):
        assert any(kind in line for line in told), (kind, told)
    assert harmed >= starts


def test_a_database_that_is_damaged_while_it_is_used_is_built_anew(
    deployment: OwnDeployment, short: bool, fault_report: FaultReport
):
    """By a router that `up` starts again as often as it takes."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20181)
    rounds = 2 if short else 3
    with deployment.start("up") as up, Traffic(client, catalogue.prefix, catalogue.partitions) as traffic:
        up.ready()
        for _ in range(rounds):
            more(traffic)
            for file in damage.all_files(deployment.data, ".sst"):
                damage.flip(file, rng.random())
            more(traffic)
            (router,) = until("a router", lambda: routers(up))
            os.kill(router.pid, signal.SIGTERM)
            until("it has ended", lambda router=router: not router.runs)
        conclude(deployment, up, traffic, fault_report, "databases damaged while they are used", kills=rounds)
    assert "corrupt, set aside to be built anew from the logs" in up.log
