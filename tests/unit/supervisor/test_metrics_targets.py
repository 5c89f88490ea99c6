import asyncio
import json
import logging
from pathlib import Path

import pytest
from unit.router.rig import FakeTimeLoop, settle

from clipper_agents.supervisor.metrics_targets import LOOK_S, MetricsTargets

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
        "gateway": ("gateway", "localhost:9002"),
        "host": ("host", "localhost:9001"),
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


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": FakeTimeLoop})])
async def test_the_file_is_kept_while_the_deployment_runs_and_removed_at_its_end(tmp_path: Path):
    path, processes = tmp_path / "targets.json", {"router-0": ready("router", 1)}
    following = asyncio.create_task(MetricsTargets(path, LISTENS.__getitem__, lambda: processes).follow())
    for port in (1, 2):
        processes["router-0"] = ready("router", port)
        await settle(2 * LOOK_S)
        assert told(path) == {"router-0": ("router", f"127.0.0.1:{port}")}
    following.cancel()
    await asyncio.wait({following})
    assert not path.exists()


def test_where_the_file_cannot_be_written_the_log_says_so_and_nothing_else_happens(tmp_path: Path, caplog):
    (tmp_path / "data").write_text("a file is in the folder's place")
    targets = MetricsTargets(tmp_path / "data" / "targets.json", LISTENS.__getitem__, lambda: {"a": ready("router", 1)})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            targets.write()
    assert len(caplog.records) == 1
