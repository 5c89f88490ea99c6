"""Prometheus finds each process where it is now, and one that has died where it was."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from clipper_agents.supervisor import metrics_targets
from clipper_agents.supervisor.metrics_targets import MetricsTargets

LISTENS = {"router": "127.0.0.1", "host": "0.0.0.0", "gateway": "::", "steward": "10.1.2.3"}


def ready(role: str, port: int) -> dict[str, str]:
    return {"role": role, "metrics": str(port)}


def told(path: Path) -> dict[str, tuple[str, str]]:
    """Component and target by instance."""
    targets = json.loads(path.read_text())
    return {one["labels"]["instance"]: (one["labels"]["component"], *one["targets"]) for one in targets}


def test_every_process_that_serves_is_listed_where_this_machine_reaches_it(tmp_path: Path):
    path = tmp_path / "data" / "metrics-targets.json"
    processes = {name: ready(name, 9000 + number) for number, name in enumerate(LISTENS)} | {"router-1": {}}
    MetricsTargets(path, LISTENS.__getitem__, lambda: processes).write()
    assert told(path) == {
        "gateway": ("gateway", "[::1]:9002"),
        "host": ("host", "127.0.0.1:9001"),
        "router": ("router", "127.0.0.1:9000"),
        "steward": ("steward", "10.1.2.3:9003"),
    }
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_process_that_died_stays_listed_until_it_has_another_port_or_is_not_wanted(tmp_path: Path):
    path = tmp_path / "targets.json"
    processes = {"router-0": ready("router", 1), "host.svm.1.0": ready("host", 2)}
    targets = MetricsTargets(path, LISTENS.__getitem__, lambda: processes)
    targets.write()
    written = path.stat().st_ino
    targets.write()
    assert path.stat().st_ino == written, "nothing has changed"
    processes["router-0"] = {}
    targets.write()
    assert told(path)["router-0"] == ("router", "127.0.0.1:1")
    processes["router-0"] = ready("router", 3)
    del processes["host.svm.1.0"]
    targets.write()
    assert told(path) == {"router-0": ("router", "127.0.0.1:3")}


def test_the_file_is_kept_while_the_deployment_runs_and_removed_at_its_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(metrics_targets, "LOOK_S", 0.001)
    path, processes = tmp_path / "targets.json", {"router-0": ready("router", 1)}

    async def scenario() -> None:
        following = asyncio.create_task(MetricsTargets(path, LISTENS.__getitem__, lambda: processes).follow())
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0)
            processes["router-0"] = ready("router", 2)
            while told(path)["router-0"][1] != "127.0.0.1:2":
                await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait({following})

    asyncio.run(scenario())
    assert not path.exists()


def test_where_the_file_cannot_be_written_the_log_says_so_and_nothing_else_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "data").write_text("a file is in the folder's place")
    targets = MetricsTargets(tmp_path / "data" / "targets.json", LISTENS.__getitem__, lambda: {"a": ready("router", 1)})
    with caplog.at_level(logging.WARNING):
        targets.write()
        targets.write()
    assert len(caplog.records) == 1
