"""A disk that is full, gone, read-only, somebody else's or corrupt: a clear end, and the next start goes on exactly."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import pytest
from e2e.programs import Program, until
from faults.deployment import Deployment, child
from faults.disks import limited_files, respecting_modes, small_disk
from faults.restored import judge_twice, tell_again
from faults.under_traffic import UnderTraffic
from faults.verdict import MAY_BE_DEFAULT

from clipper_agents import exits

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

QUERIES_BETWEEN = 80
LEAST_APPLIED = 3
"""Feedbacks of each of four applications: some cases ask two hundred queries in all."""
ALL_DAMAGE = {**damage.ON_TABLES, **damage.HARMLESS, **damage.ON_LOGS}
SHORT = ("bytes flipped in a table file", "a manifest that has lost its end")
CORRUPT = "corrupt, set aside to be built anew from the logs"


class BadDisk(UnderTraffic):
    def ended(self, case: str, router: Program, **line: Any) -> None:
        """Everything is answered, then told once more; nothing is lost, nothing counted twice."""
        self.finish()
        tell_again(self.client, self.catalogue.feedback)
        verdict = judge_twice(self.deployment, router)
        self.conclude(case, verdict, LEAST_APPLIED, **line)
        assert verdict.defaults.keys() <= MAY_BE_DEFAULT


# --- full ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [pytest.param(small_disk, marks=pytest.mark.short), limited_files])
def test_a_full_disk_ends_the_router_loudly_and_it_recovers_with_space(kafka, catalogue, tmp_path, fault_report, make):
    applied = Deployment.on(kafka, catalogue, tmp_path)
    with make(tmp_path / "disk") as disk, BadDisk(applied._replace(data=disk.folder / "data"), fault_report) as bad:
        up = bad.serve(bad.deployment.start("up"))
        bad.asks(QUERIES_BETWEEN)
        first = child(up, " worker router ")
        bad.fault()
        disk.fill(first.pid)
        until("the router has ended", lambda: not first.runs)
        bad.asks(QUERIES_BETWEEN)
        disk.free()
        bad.flows()
        bad.ended("the disk is full", up, note=disk.kind)
        log = up.log.splitlines()
    told = next(line for line in log if "worker cannot go on" in line)
    assert str(disk.folder) in told
    assert "no space is left" in told
    assert "free some" in told
    assert "Traceback" not in told
    assert any(f"exit code {exits.CRASHED}" in line for line in log if "child ended, restarting" in line)


# --- refused at the start -----------------------------------------------------------------------------------------
@pytest.mark.short
def test_a_directory_that_cannot_be_written_is_told_at_the_start(deployment):
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


def test_a_file_in_place_of_the_directory_is_told_at_the_start(deployment):
    deployment.data.write_text("not a directory")
    with deployment.worker("router") as router, deployment.start("up") as up:
        assert router.ended() == up.ended() == exits.SETUP
    (line,) = router.log.splitlines()
    said = "a file is where a directory has to be"
    assert line.startswith(f"error: {deployment.data}/router-0: {said} (Not a directory)")
    assert line.endswith("move the file away, or give another data_dir")
    assert said in up.log.splitlines()[-1]


def test_a_directory_that_another_router_uses_is_told_with_that_process(deployment):
    with deployment.worker("router") as first:
        first.ready()
        with deployment.worker("router") as second:
            assert second.ended() == exits.SETUP
        assert f"{deployment.data}/router-0: process {first.pid} on " in second.log
        assert "uses it: end that one, or give each process an --instance or a data_dir of its own" in second.log
        first.signal(signal.SIGTERM)
        assert first.ended() == 0, first.log[-4000:]


# --- gone while it runs ---------------------------------------------------------------------------------------------
def test_a_directory_that_vanishes_is_built_anew(deployment, short, fault_report):
    with BadDisk(deployment, fault_report) as bad:
        for number in range(1 if short else 4):
            with deployment.worker("router") as router:
                router.ready()
                bad.asks(QUERIES_BETWEEN)
                bad.fault()
                shutil.rmtree(deployment.data)
                bad.asks(QUERIES_BETWEEN)
                router.signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
                router.ended()
                models = [line for line in router.log.splitlines() if 'msg="model fails' in line]
                assert router.log.count("Traceback") == len(models), "only those of a model that fails"
        router, _ = bad.serve(deployment.worker("router")), bad.serve(deployment.worker("host", "slow-sum:1"))
        bad.ended("the data directory vanishes", router)


# --- corrupt --------------------------------------------------------------------------------------------------------
def harm_all(data: Path, harm: Callable[[Path], object]) -> int:
    """Do it to each database that has what it is about; to how many."""
    folders = [current.parent for current in data.rglob("CURRENT")]
    found = [folder for folder in folders if any(folder.glob("*.sst")) and any(folder.glob("*.log"))]
    for folder in found:
        harm(folder)
    return len(found)


def serving(bad: BadDisk, harmed: int, log: list[str]) -> Program:
    """A router that serves, after as many starts as it takes: each finds one more database that cannot be read."""
    for _ in range(harmed + 1):
        router = bad.enter_context(bad.deployment.worker("router"))
        until("it serves or has ended", lambda router=router: router.lines or router.poll() is not None)
        if router.lines:
            return router
        assert router.ended() == exits.CRASHED, router.log[-4000:]
        assert "worker cannot go on: " in router.log
        log += router.log.splitlines()
    raise AssertionError(f"it does not serve after {harmed} databases")


@pytest.mark.short
def test_corrupt_databases_are_built_anew_from_the_logs(deployment, short, fault_report):
    log, each = list[str](), list[int]()
    with BadDisk(deployment, fault_report) as bad:
        bad.serve(deployment.worker("host", "slow-sum:1"))
        for name in SHORT if short else ALL_DAMAGE:
            router = serving(bad, each[-1] if each else 0, log)
            bad.asks(QUERIES_BETWEEN)
            # the rows of what was learned come last: then every kind of database has something in it
            until("something was learned", lambda: bool(bad.client.read(bad.catalogue.selection_changelog)))
            router.signal(signal.SIGTERM)
            router.ended()
            log += router.log.splitlines()
            each.append(harm_all(deployment.data, ALL_DAMAGE[name]))
            assert each[-1], name
        router = serving(bad, each[-1], log)
        bad.ended("corrupt databases", router, kills=len(each), note=f"{sum(each)} databases damaged")
        log += router.log.splitlines()
    told = [line for line in log if CORRUPT in line]
    assert all(" level=warning " in line and "reason=" in line for line in told)
    for kind in ("selection", "decisions", "cache"):
        assert any(kind in line for line in told), (kind, told)


def test_a_database_that_is_damaged_while_it_is_used_is_built_anew(deployment, short, fault_report):
    """By a router that `up` starts again as often as it takes."""
    rng = random.Random(20181)
    with BadDisk(deployment, fault_report) as bad:
        up = bad.serve(deployment.start("up"))
        for _ in range(2 if short else 3):
            bad.asks(QUERIES_BETWEEN)
            bad.fault()
            for file in damage.all_files(deployment.data, ".sst"):
                damage.flip(file, rng.random())
            bad.asks(QUERIES_BETWEEN)
            router = child(up, " worker router ")
            os.kill(router.pid, signal.SIGTERM)
            until("it has ended", lambda router=router: not router.runs)
        bad.ended("databases damaged while they are used", up)
    assert CORRUPT in up.log
