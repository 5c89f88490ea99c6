"""A deployment starts what its configuration says, and leaves nothing behind. The workers are stand-ins."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import msgspec
import pytest
from builders.router_deployment import publish_manifests, withdraw_manifests
from e2e.programs import environment_of

from clipper_agents.control.apply import KEPT, apply_manifests
from clipper_agents.control.change_records import Signature
from clipper_agents.control.state import read_manifests
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.observability.exposition import scrape
from clipper_agents.settings import GatewaySection, load_settings
from clipper_agents.supervisor.deployment import OVERWRITTEN, Deployment
from clipper_agents.supervisor.process import ChildNotReady
from clipper_agents.supervisor.supervised_process import Backoff, ProcessEnvironment
from clipper_topics.control_keys import model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest

pytestmark = pytest.mark.integration

CONFIGURATION = """
[gateway]
enabled = false

[router]
processes = 2

[[model]]
name = "fast"
uri = "m:f"
colocated = true

[[model]]
name = "slow"
uri = "m:f"
replicas = 2

[[application]]
name = "a"
models = ["fast:1", "slow:1"]
"""
WORKER = """
import signal, sys
from pathlib import Path
from clipper_agents.supervisor.process import end_with_stdin
if "broken:1" in sys.argv:
    print("error: no such model file", file=sys.stderr)
    sys.exit(3)
role = sys.argv[1] if sys.argv[1] == "gateway" else sys.argv[2]
def drain(*_):
    with Path(__file__).with_name("drained").open("a") as drained:
        drained.write(role + "\\n")
    print("drained", flush=True)
    sys.exit(0)
if sys.argv[1] == "gateway" and Path(__file__).with_name("taken").exists():
    print("error: port 8080 is taken", file=sys.stderr)
    sys.exit(3)
signal.signal(signal.SIGTERM, drain)
end_with_stdin()
print(f"ready role={role} metrics=9 http=http://127.0.0.1:8080 console=http://127.0.0.1:8080/console", flush=True)
while True:
    signal.pause()
"""
UP = """
import asyncio, sys
from pathlib import Path
from clipper_agents.cli.up import serve
from clipper_agents.settings import load_settings
from clipper_agents.supervisor.deployment import Deployment
settings = load_settings(Path(sys.argv[1]), {})
asyncio.run(serve(Deployment(settings, program=(sys.executable, sys.argv[2]))))
"""
NAMES = ["router-0", "router-1", "steward", "host.slow.1.0", "host.slow.1.1"]


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "clipper.toml"
    path.write_text(CONFIGURATION)
    return path


@pytest.fixture
def worker(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made during the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def is_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def deployment_of(settings, worker, lines, **how):
    around = ProcessEnvironment(backoff=Backoff(first_s=0.0), echo=lines.append)
    return Deployment(
        settings,
        {"PATH": os.environ["PATH"]},
        process_environment=around,
        program=(sys.executable, str(worker)),
        **how,
    )


async def reasons(deployment):
    """Why the deployment does not serve, as its probe says."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{deployment.metrics_port}/readyz", timeout=30)
    found = answer.json()["reasons"]
    assert answer.status_code == (503 if found else 200)
    return found


async def test_a_deployment_has_topics_manifests_and_workers_and_leaves_nothing_behind(
    configuration, worker, temporary
):
    settings = load_settings(configuration, {})
    async with deployment_of(settings, worker, []) as deployment:
        children = deployment.supervisor.children
        pids = {name: child.pid for name, child in children.items()}
        assert list(children) == NAMES
        assert all(child.metrics_port == 9 for child in children.values())
        topics = await existing_topics(deployment.connection, "clipper")
        assert (topics["clipper.queries"], topics["clipper.requests.slow.1"]) == (4, 2)
        assert "clipper.requests.fast.1" not in topics
        published = await read_manifests(deployment.connection, deployment.catalogue)
        assert list(published.models.values()) == settings.models
        assert list(published.applications.values()) == settings.applications

        assert await reasons(deployment) == []
        deployment.supervisor.kill("router-1")
        (reason,) = await reasons(deployment)
        assert reason.startswith("router-1 does not serve")
        await deployment.supervisor.child("router-1").wait_ready()
        assert await reasons(deployment) == []
        found = await asyncio.to_thread(scrape, deployment.metrics_port)
        roles = {"router": 2, "host": 2, "steward": 1, "gateway": 0}
        assert found.by("role", "clipper_children_wanted") == found.by("role", "clipper_children_ready") == roles
        assert found.by("role", "clipper_restarts_total") == dict.fromkeys(roles, 0) | {"router": 1}
        assert {name for name, child in children.items() if child.pid != pids[name]} == {"router-1"}
        running = [deployment.broker.pid, *(child.pid for child in children.values())]
    with pytest.raises(httpx.ConnectError):
        await reasons(deployment)
    assert not any(map(is_alive, running))
    assert list(temporary.iterdir()) == []
    roles = worker.with_name("drained").read_text().split()
    assert roles[:2] == ["router", "router"], "what they have open is answered only while the hosts are there"
    assert sorted(roles[2:]) == ["host", "host", "steward"]


@pytest.fixture
def settings(kafka, catalogue, configuration, tmp_path):
    """Of a deployment on the Kafka of the tests."""
    data = {f"CLIPPER_{role}_DATA_DIR": str(tmp_path / "data") for role in ("ROUTER", "HOST")}
    return load_settings(configuration, environment_of(kafka, catalogue, **data))


async def test_a_gateway_is_one_of_the_deployment_and_drains_first(settings, worker, temporary):
    with_gateway = msgspec.structs.replace(settings, gateway=GatewaySection())
    async with deployment_of(with_gateway, worker, []) as deployment:
        assert set(deployment.supervisor.children) == {*NAMES, "gateway"}
        assert deployment.gateway == "http://127.0.0.1:8080"
        assert deployment.console == "http://127.0.0.1:8080/console"
    assert deployment.gateway is deployment.console is None
    assert worker.with_name("drained").read_text().split()[:3] == ["gateway", "router", "router"]


async def test_a_deployment_whose_gateway_cannot_start_goes_on(settings, worker, temporary, caplog):
    worker.with_name("taken").touch()
    with_gateway = msgspec.structs.replace(settings, gateway=GatewaySection())
    async with deployment_of(with_gateway, worker, []) as deployment:
        assert deployment.gateway is None
        assert all(deployment.supervisor.child(name).pid for name in NAMES)
    (said,) = [record for record in caplog.records if record.getMessage().startswith("no gateway")]
    assert said.levelno == logging.ERROR
    assert "port 8080 is taken" in str(said.fields["reason"])


async def test_models_get_and_lose_their_hosts_while_the_deployment_runs(kafka, catalogue, settings, worker, temporary):
    async with deployment_of(settings, worker, []) as deployment:
        first = deployment.supervisor.children["host.slow.1.0"].pid
        new = [ModelManifest(name="new", uri="m:f"), ModelManifest(name="broken", uri="m:f")]
        await publish_manifests(kafka, catalogue, [*new, ModelManifest(name="slow", uri="m:g")])
        await until(
            lambda: (
                set(deployment.supervisor.children)
                == {"router-0", "router-1", "steward", "host.slow.1.0", "host.new.1.0"}
            )
        )
        await deployment.supervisor.child("host.slow.1.0").wait_ready()
        assert deployment.supervisor.children["host.slow.1.0"].pid != first, "changed, so started anew"
        await withdraw_manifests(kafka, catalogue, [model_key("slow:1"), model_key("new:1")])
        await until(lambda: set(deployment.supervisor.children) == {"router-0", "router-1", "steward"})


async def test_a_manifest_that_this_deployment_may_not_load_leaves_the_hosts_as_they_are(
    kafka, catalogue, settings, worker, temporary
):
    async with deployment_of(settings, worker, []) as deployment:
        before = {name: child.pid for name, child in deployment.supervisor.children.items()}
        slow = ModelManifest(name="slow", uri="os:system", replicas=2)
        evil = [
            slow,
            ModelManifest(name="evil", uri="subprocess:run"),
            ModelManifest(name="file", uri="/x", runtime="sklearn"),
        ]
        await publish_manifests(kafka, catalogue, [*evil, ModelManifest(name="good", uri="m:g")])
        await until(lambda: "host.good.1.0" in deployment.supervisor.children)
        await deployment.supervisor.child("host.good.1.0").wait_ready()
        after = {name: child.pid for name, child in deployment.supervisor.children.items() if name != "host.good.1.0"}
        assert after == before
        applied = await apply_manifests(kafka, catalogue, [], deployment.settings.models)
        assert [model.ref for model in applied.written.plan.models] == ["slow:1"], "an apply puts right what was there"


async def test_a_restart_keeps_what_was_changed_live_and_says_who_changed_it(
    kafka, catalogue, settings, worker, temporary, caplog
):
    async with deployment_of(settings, worker, []):
        pass
    better = ModelManifest(name="slow", version="2", uri="m:f")
    retired = msgspec.structs.replace(settings.models[1], retired=True)
    live = msgspec.structs.replace(settings.applications[0], models=["fast:1", "slow:2"])
    await apply_manifests(kafka, catalogue, [live], [better, retired], Signature(by="ada", why="better"))
    settings.models.append(ModelManifest(name="new", uri="m:f"))
    settings.applications.append(ApplicationManifest(name="b", models=["new:1"]))
    caplog.set_level(logging.INFO)
    async with deployment_of(settings, worker, []) as deployment:
        assert set(deployment.supervisor.children) == {
            "router-0", "router-1", "steward", "host.new.1.0", "host.slow.2.0"
        }, "as it is live, when it is ready"  # fmt: skip
        published = await read_manifests(kafka, catalogue)
    assert published.models == {
        "fast:1": settings.models[0], "slow:1": retired, "slow:2": better, "new:1": settings.models[2]
    }  # fmt: skip
    assert published.applications["a"].models == ["fast:1", "slow:2"]
    assert published.applications["b"].models == ["new:1"], "the configuration adds it"
    said = [record.getMessage() for record in caplog.records if record.name.endswith("deployment")]
    assert said[0] == "connecting to kafka"
    assert said[1:-2] == [
        KEPT,
        "~ model slow:1",
        "    retired true -> false",
        "~ application a",
        '    models ["fast:1","slow:2"] -> ["fast:1","slow:1"]',
        "    # a revision 2, update by ada (better)",
    ]
    assert said[-2:] == ["starting workers, hosts load their models", "ready"]
    (ready,) = [record for record in caplog.records if record.getMessage() == "ready"]
    assert float(ready.fields["seconds"]) > 0
    assert ready.fields["metrics"] == deployment.metrics_port > 0


async def test_with_apply_a_start_publishes_the_configuration_and_says_what_it_changed(
    kafka, catalogue, settings, worker, temporary, caplog
):
    live = msgspec.structs.replace(settings.applications[0], models=["slow:1"])
    await apply_manifests(kafka, catalogue, [live], settings.models, Signature(by="ada"))
    async with deployment_of(settings, worker, [], overwrite=True):
        published = await read_manifests(kafka, catalogue)
    assert published.applications["a"].models == ["fast:1", "slow:1"]
    said = [record.getMessage() for record in caplog.records if record.name.endswith("deployment")]
    assert said == [
        OVERWRITTEN,
        "~ application a",
        '    models ["slow:1"] -> ["fast:1","slow:1"]',
        "    # a revision 1, create by ada",
    ]


async def test_a_version_deployed_live_that_cannot_start_does_not_end_a_start(
    kafka, catalogue, settings, worker, temporary
):
    await apply_manifests(kafka, catalogue, [], [ModelManifest(name="broken", uri="m:f")])
    async with deployment_of(settings, worker, []) as deployment:
        assert list(deployment.supervisor.children) == NAMES


async def until(holds):
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_worker_that_cannot_start_ends_the_deployment_with_its_last_words(settings, worker, temporary):
    settings.models.append(ModelManifest(name="broken", uri="m:f"))
    with pytest.raises(ChildNotReady, match=r"host\.broken\.1\.0 ended with exit code 3.*error: no such model file"):
        await deployment_of(settings, worker, []).start()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_up_prints_one_line_and_a_signal_drains_and_ends_everything(configuration, worker, temporary, number):
    command = [sys.executable, "-c", UP, str(configuration), str(worker)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert ready.startswith("ready bootstrap=127.0.0.1:")
    assert (process.returncode, rest) == (0, ""), errors
    assert errors.count(" drained") == len(NAMES)
    assert len(children) > len(NAMES), "the broker as well"
    assert not any(map(is_alive, children))
    assert list(temporary.iterdir()) == []


def test_a_signal_during_the_start_ends_it(configuration, worker, temporary):
    worker.write_text("import signal\nsignal.pause()\n")
    command = [sys.executable, "-c", UP, str(configuration), str(worker)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not any(temporary.glob("clipper-*/router.json")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, ""), errors
    assert list(temporary.iterdir()) == []
