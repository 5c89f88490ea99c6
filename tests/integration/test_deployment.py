"""A deployment starts what its configuration says, and leaves nothing behind. The workers are stand-ins."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile

import httpx
import msgspec
import pytest
from builders.router_deployment import publish_manifests, withdraw_manifests
from e2e.programs import descendants, environment_of, is_gone
from integration.running_steward import until

from clipper_agents.control.apply import KEPT, apply_manifests
from clipper_agents.control.change_records import Signature
from clipper_agents.control.state import read_control
from clipper_agents.kafka.consumer_groups import remove_members
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.observability.exposition import scrape
from clipper_agents.settings import load_settings
from clipper_agents.settings.sections import GatewaySection
from clipper_agents.streaming.membership import follow_members
from clipper_agents.supervisor.deployment import OVERWRITTEN, Deployment
from clipper_agents.supervisor.process import ChildNotReady
from clipper_agents.supervisor.supervisor import Backoff, ProcessEnvironment
from clipper_topics.manifests import ApplicationManifest, ModelManifest

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
import asyncio, os, sys
from pathlib import Path
from clipper_agents.cli.up import serve
from clipper_agents.settings import load_settings
from clipper_agents.supervisor.deployment import Deployment
settings = load_settings(Path(sys.argv[1]), os.environ)
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


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made during the test: none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def settings(kafka, catalogue, configuration, tmp_path):
    data = {f"CLIPPER_{role}_DATA_DIR": str(tmp_path / "data") for role in ("ROUTER", "HOST")}
    return load_settings(configuration, environment_of(kafka, catalogue, **data))


@pytest.fixture
def deployed(settings, worker):
    """Makes deployments of these settings, or of changed ones."""

    def make(*, overwrite=False, **changed):
        around = ProcessEnvironment(backoff=Backoff(first_s=0.0), echo=lambda line: None)
        return Deployment(
            msgspec.structs.replace(settings, **changed), {"PATH": os.environ["PATH"]},
            process_environment=around, program=(sys.executable, str(worker)), overwrite=overwrite,
        )  # fmt: skip

    return make


def pids(deployment):
    return {name: child.pid for name, child in deployment.supervisor.children.items()}


NOBODY = "no router runs", "model slow:1 has 0 of 2 hosts"
"""What `status` says: the workers are doubles, and in no group."""


async def reasons(deployment):
    """Why the deployment does not serve, as its probe says."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{deployment.metrics_port}/readyz", timeout=30)
    found = answer.json()["reasons"]
    assert answer.status_code == (503 if found else 200)
    return [one for one in found if not one.startswith(NOBODY)]


async def test_a_deployment_has_topics_manifests_and_workers_and_leaves_nothing_behind(
    catalogue, settings, deployed, worker
):
    async with deployed(gateway=GatewaySection()) as deployment:
        children, before = deployment.supervisor.children, pids(deployment)
        assert {*children} == {*NAMES, "gateway"}
        assert all(child.fields["metrics"] == "9" for child in children.values())
        urls = deployment.url("http"), deployment.url("console")
        assert urls == ("http://127.0.0.1:8080", "http://127.0.0.1:8080/console")
        topics = await existing_topics(deployment.connection, catalogue.prefix)
        assert (topics[catalogue.queries], topics[catalogue.requests("slow", "1")]) == (2, 2)
        assert catalogue.requests("fast", "1") not in topics
        published = (await read_control(deployment.connection, deployment.catalogue)).manifests
        assert list(published.models.values()) == settings.models
        assert list(published.applications.values()) == settings.applications

        assert await reasons(deployment) == []
        deployment.supervisor.children["router-1"].kill()
        (reason,) = await reasons(deployment)
        assert reason.startswith("router-1 does not serve")
        await deployment.supervisor.children["router-1"].wait_ready()
        assert await reasons(deployment) == []
        found = await asyncio.to_thread(scrape, deployment.metrics_port)
        roles = {"router": 2, "host": 2, "steward": 1, "gateway": 1}
        assert found.by("role", "clipper_children_wanted") == found.by("role", "clipper_children_ready") == roles
        assert found.by("role", "clipper_restarts_total") == dict.fromkeys(roles, 0) | {"router": 1}
        running = pids(deployment)
        assert {name for name, pid in running.items() if before[name] != pid} == {"router-1"}
    with pytest.raises(httpx.ConnectError):
        await reasons(deployment)
    assert deployment.url("http") is deployment.url("console") is None
    assert all(map(is_gone, running.values()))
    roles = worker.with_name("drained").read_text().split()
    assert roles[:3] == ["gateway", "router", "router"], (
        "what they have open is answered only while the hosts are there"
    )
    assert sorted(roles[3:]) == ["host", "host", "steward"]


async def test_a_gateway_and_a_version_deployed_live_that_cannot_start_do_not_end_a_start(
    kafka, catalogue, deployed, worker, caplog
):
    worker.with_name("taken").touch()
    await apply_manifests(kafka, catalogue, [], [ModelManifest(name="broken", uri="m:f")])
    async with deployed(gateway=GatewaySection()) as deployment:
        assert deployment.url("http") is None
        assert [name for name, pid in pids(deployment).items() if pid] == NAMES
    (said,) = [record for record in caplog.records if record.getMessage().startswith("no gateway")]
    assert said.levelno == logging.ERROR
    assert "port 8080 is taken" in str(said.fields["reason"])


async def test_models_get_and_lose_their_hosts_while_the_deployment_runs_unless_it_may_not_load_them(
    kafka, catalogue, settings, deployed
):
    async with deployed() as deployment:

        async def are(*names):
            await until("these hosts", lambda: {*names} == {*deployment.supervisor.children} - {*NAMES[:3]})
            for name in names:
                await deployment.supervisor.children[name].wait_ready()

        before = pids(deployment)
        evil = [
            ModelManifest(name="slow", uri="os:system", replicas=2),
            ModelManifest(name="evil", uri="subprocess:run"),
            ModelManifest(name="file", uri="/x", runtime="sklearn"),
        ]
        await publish_manifests(kafka, catalogue, [*evil, ModelManifest(name="good", uri="m:g")])
        await are("host.slow.1.0", "host.slow.1.1", "host.good.1.0")
        assert before.items() <= pids(deployment).items()
        _, written, _ = await apply_manifests(kafka, catalogue, [], settings.models)
        assert [model.ref for model in written.models] == ["slow:1"], "an apply puts right what was there"

        new = [ModelManifest(name="slow", uri="m:g"), ModelManifest(name="broken", uri="m:f")]
        await publish_manifests(kafka, catalogue, new)
        await are("host.slow.1.0", "host.good.1.0")
        assert pids(deployment)["host.slow.1.0"] != before["host.slow.1.0"], "changed, so started anew"
        await withdraw_manifests(kafka, catalogue, models=["slow:1", "good:1"])
        await are()


async def test_a_restart_keeps_what_was_changed_live_and_says_who_changed_it_unless_it_is_to_apply(
    kafka, catalogue, settings, deployed, caplog
):
    """test_changes of tests/unit/control has what is said of a difference."""
    await apply_manifests(kafka, catalogue, settings.applications, settings.models)
    better = ModelManifest(name="slow", version="2", uri="m:f")
    retired = msgspec.structs.replace(settings.models[1], retired=True)
    live = msgspec.structs.replace(settings.applications[0], models=["fast:1", "slow:2"])
    await apply_manifests(kafka, catalogue, [live], [better, retired], Signature(by="ada", why="better"))
    settings.models.append(ModelManifest(name="new", uri="m:f"))
    settings.applications.append(ApplicationManifest(name="b", models=["new:1"]))
    caplog.set_level(logging.INFO)

    def said():
        return [record for record in caplog.records if record.name.endswith("deployment")]

    async with deployed() as deployment:
        assert {*deployment.supervisor.children} == {*NAMES[:3], "host.new.1.0", "host.slow.2.0"}, "as it is live"
        published = (await read_control(kafka, catalogue)).manifests
        records = said()
    assert float(records[-1].fields["seconds"]) > 0
    assert records[-1].fields["metrics"] > 0
    first, *kept, last, ready = [record.getMessage() for record in records]
    assert (first, last, ready) == ("connecting to kafka", "starting workers, hosts load their models", "ready")
    assert (kept[0], "~ application a" in kept) == (KEPT, True)
    assert published.models == {
        "fast:1": settings.models[0], "slow:1": retired, "slow:2": better, "new:1": settings.models[2]
    }  # fmt: skip
    models = {name: one.models for name, one in published.applications.items()}
    assert models == {"a": ["fast:1", "slow:2"], "b": ["new:1"]}, "the configuration adds the second"

    caplog.clear()
    caplog.set_level(logging.WARNING)
    async with deployed(overwrite=True):
        published = (await read_control(kafka, catalogue)).manifests
    assert published.applications["a"].models == ["fast:1", "slow:1"]
    assert [record.getMessage() for record in said()] == [OVERWRITTEN, *kept[1:]]


async def test_a_worker_that_cannot_start_ends_the_deployment_with_its_last_words(settings, deployed):
    settings.models.append(ModelManifest(name="broken", uri="m:f"))
    with pytest.raises(ChildNotReady, match=r"host\.broken\.1\.0 ended with exit code 3.*error: no such model file"):
        await deployed().start()


def up(configuration, worker, **environ):
    return subprocess.Popen(
        [sys.executable, "-c", UP, str(configuration), str(worker)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environ,
    )  # fmt: skip


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_up_prints_one_line_and_a_signal_drains_and_ends_everything(configuration, worker, number):
    with up(configuration, worker) as process:
        ready = process.stdout.readline()
        children = descendants(process.pid)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert ready.startswith("ready bootstrap=127.0.0.1:")
    assert (process.returncode, rest) == (0, ""), errors
    assert errors.count(" drained") == len(NAMES)
    assert len(children) > len(NAMES), "the broker as well"
    assert not any(child.runs for child in children)


def test_a_signal_during_the_start_ends_it(kafka, catalogue, configuration, worker, temporary):
    worker.write_text("import signal\nsignal.pause()\n")
    with up(configuration, worker, **environment_of(kafka, catalogue)) as process:
        while not any(temporary.glob("clipper-*/router.json")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, ""), errors


async def test_machines_that_run_hosts_hear_of_each_other_when_one_comes_or_goes(kafka, catalogue):
    heard, group = {}, catalogue.machines_group

    def follow(name):
        member = follow_members(kafka, group, name, catalogue.control, lambda names: heard.update({name: names}))
        return asyncio.create_task(member)

    following = {name: follow(name) for name in "ab"}
    await until("both know both", lambda: heard == {"a": ["a", "b"], "b": ["a", "b"]})
    following["b"].cancel()
    await asyncio.wait([following.pop("b")])
    await remove_members(kafka, group, ["b"])  # as the broker would do after a session
    await until("the other knows that it is gone", lambda: heard["a"] == ["a"])
    following["c"] = follow("c")
    await until("a third one is known", lambda: heard["a"] == heard.get("c") == ["a", "c"])
    for task in following.values():
        task.cancel()
    await asyncio.wait(following.values())
