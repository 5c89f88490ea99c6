"""Whatever a model does, it costs the rows that asked for it an answer, and nobody else."""

import os
import pickle
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from e2e.any_client import AnyClient
from e2e.programs import Program, RunningProcess, environment_of, until
from faults import models_that_misbehave as misdeeds
from faults.report import FaultReport

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

MODELS = Path(misdeeds.__file__)
ROW = 'input = { dtype = "float32", shape = [2] }\n'
STEADY_P95_S = 0.5
"""Measured: 0.02 to 0.04; a host that ends beside it is started again, which takes one of two cores for a second."""
DEATHS = {"exits": misdeeds.EXITS, "crashes": misdeeds.CRASHES, "hangs": misdeeds.HANGS, "locks": misdeeds.LOCKS}


def model(name: str, attribute: str, more: str = "") -> str:
    return f'[[model]]\nname = "{name}"\nuri = "models_that_misbehave:{attribute}"\n{ROW}{more}\n'


def application(name: str, *models: str, objective: str = '"none"') -> str:
    refs = ", ".join(f'"{each}:1"' for each in models)
    return (
        f'[[application]]\nname = "{name}"\nmodels = [{refs}]\npolicy = {{ name = "single" }}\ndefault_output = -1\n'
        f"objective_ms = {objective}\n{ROW}\n"
    )


class Deployment:
    """`up` with one router, and an application of the same name for each model."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue, folder: Path, content: str) -> None:
        self.client, self.catalogue, self.folder = AnyClient(kafka.bootstrap), catalogue, folder
        self.mood = folder / "bad mood"
        (folder / MODELS.name).write_text(MODELS.read_text())
        (folder / "clipper.toml").write_text(content)
        environ = environment_of(
            kafka,
            catalogue,
            CLIPPER_ROUTER_DATA_DIR=str(folder / "data"),
            CLIPPER_HOST_DATA_DIR=str(folder / "data"),
            MOODY_FILE=str(self.mood),
        )
        self.program = Program("up", "--config", str(folder / "clipper.toml"), folder=folder, environ=environ)
        self._asked = 0

    def ask(self, application: str, *rows: tuple[float, float]) -> str:
        """Ask; the query's id."""
        self._asked += 1
        query_id = f"q{self._asked}"
        content = {"application": application, "inputs": rows, "query_id": query_id}
        self.client.send_json(self.catalogue.queries, content)
        return query_id

    def host(self, name: str) -> RunningProcess:
        """The host of a model, once there is one."""
        return until(
            f"a host of {name}",
            lambda: next(
                (one for one in self.program.children() if f"host {name}:1 " in one.command and one.runs), None
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.__exit__()


def answers(deployment: Deployment, *query_ids: str, within_s: float = 90.0) -> dict[str, Mapping[str, Any]]:
    """The answers to these queries, once all are there."""

    def found(records: Any) -> dict[str, Mapping[str, Any]]:
        return {one.content["query_id"]: one.content for one in records}

    with deployment.client.reading(deployment.catalogue.predictions) as reading:
        records = reading.until(
            f"answers to {query_ids}", lambda records: set(query_ids) <= found(records).keys(), within_s
        )
    by_query = found(records)
    return {query_id: by_query[query_id] for query_id in query_ids}


def answer(deployment: Deployment, application: str, *rows: tuple[float, float]) -> Mapping[str, Any]:
    query_id = deployment.ask(application, *rows)
    return answers(deployment, query_id)[query_id]


@pytest.mark.short
def test_misdeeds(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, short: bool, fault_report: FaultReport):
    """A model that raises, gives nonsense, hangs, crashes, leaks: its rows fail, and other queries keep their time."""
    deadly = [*DEATHS] if not short else ["exits", "locks"]
    content = "".join(
        [
            model("wild", "wild"),
            application("wild", "wild"),
            model("steady", "steady", "deterministic = false\n"),
            application("steady", "steady", objective="30000"),
            *(model(name, "deadly", "batch = { hang_s = 1.0 }\n") + application(name, name) for name in deadly),
        ]
    )
    with Deployment(kafka, catalogue, tmp_path, content) as running:
        running.program.ready()
        quiet_s = steady_times_s(running, 40)
        dying = {name: running.ask(name, (DEATHS[name], 1)) for name in deadly}
        for name in deadly:
            running.ask(name, (0, 5))
        rows_fail_alone(running)
        plant_pickles(running, tmp_path / "canary")
        busy_s = steady_times_s(running, 40)
        dead = answers(running, *dying.values())
        for name, query_id in dying.items():
            assert dead[query_id].get("default"), dead[query_id]
            assert "not asked again" in str(dead[query_id]), dead[query_id]
            assert answer(running, name, (0, 7))["outputs"] == [7], name
        assert answer(running, "wild", (0, 3))["outputs"] == [3]
        if not short:
            slow = running.ask("wild", (misdeeds.SLOW, 1))
            behind = running.ask("wild", (0, 11))
            late = answers(running, slow, behind)
            assert [late[one]["outputs"] for one in (slow, behind)] == [[misdeeds.SLOW + 1], [11]]
        assert not (tmp_path / "canary").exists()
        log = running.program.log
        if "hangs" in deadly:
            assert 'msg="model hangs, the process ends' in log
        assert "Timeout (0:00:03" in log, "the alarm in C"
        assert log.count('msg="child ended, restarting"') >= 2 * len(deadly)
        note = f"p95 of others {p95(quiet_s) * 1000:.0f} ms before, {p95(busy_s) * 1000:.0f} ms meanwhile"
        fault_report.add("models that misbehave", kills=2 * len(deadly), note=note)
        assert p95(busy_s) < STEADY_P95_S


def p95(times_s: list[float]) -> float:
    return sorted(times_s)[int(0.95 * len(times_s))]


def steady_times_s(running: Deployment, count: int) -> list[float]:
    """How long each of so many queries to a healthy model took, by the router's own clock; all are answered by it."""
    asked = []
    for number in range(count):
        asked.append(running.ask("steady", (number, 0.5)))
        time.sleep(0.02)  # the rate at which is asked
    found = answers(running, *asked)
    for number, query_id in enumerate(asked):
        assert found[query_id]["outputs"] == [number + 0.5]
        assert not found[query_id].get("default")
    return [one["latency_ms"] / 1000 for one in found.values()]


def rows_fail_alone(running: Deployment) -> None:
    """Each misdeed in the middle of good rows, which are answered all the same."""
    kinds = {
        misdeeds.RAISES: "cannot stand", misdeeds.NAN: "nan", misdeeds.INFINITE: "inf", misdeeds.A_SET: "set",
        misdeeds.TOO_FEW: "0 outputs for 1 rows", misdeeds.LEAVES: "SystemExit", misdeeds.ESCAPES: "Escape",
        misdeeds.WRITES: "after writing", misdeeds.NESTED: "nested deeper",
    }  # fmt: skip
    asked = {kind: running.ask("wild", (0, kind), (kind, 0), (0, -kind), (0, 0.25)) for kind in kinds}
    loud = running.ask("wild", (misdeeds.SHOUTS, 2))
    found = answers(running, *asked.values(), loud)
    for kind, query_id in asked.items():
        assert found[query_id]["outputs"] == [kind, -1, -kind, 0.25], (kinds[kind], found[query_id])
        assert kinds[kind] in str(found[query_id]), found[query_id]
    assert found[loud]["outputs"] == [misdeeds.SHOUTS + 2]


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def plant_pickles(running: Deployment, path: Path) -> None:
    """A pickle wherever bytes are taken: none of it is ever run."""
    payload, catalogue = pickle.dumps(Canary(path)), running.catalogue
    topics = [catalogue.queries, catalogue.feedback, catalogue.outputs, catalogue.control, catalogue.selection]
    topics += [catalogue.requests("wild", "1")]
    kinds: tuple[dict[str, bytes], ...] = ({}, {"content-type": b"application/x-python-pickle"})
    for topic in topics:
        for headers in kinds:
            running.client.send(topic, payload, key=payload, headers=headers, partition=0)
    for key in (b"model/wild:1", b"application/wild", b"model/steady:1"):
        running.client.send(catalogue.control, payload, key=key)
    evil = {"name": "wild", "uri": "pickle:loads", "parameters": {"data": payload.decode("latin1")}}
    running.client.send_json(catalogue.control, evil, key=b"model/wild:1")
    running.client.send_json(catalogue.control, {**evil, "uri": "os:mkdir", "name": "new"}, key=b"model/new:1")
    until(
        "the manifests to be refused", lambda: running.program.log.count('msg="manifest refused" key=model/new:1') >= 1
    )


def test_memory_and_moods(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, fault_report: FaultReport):
    """A model that leaks is drained and started again; one that starts no more is tried again, ever more seldom."""
    hoarder = model("hoarder", "hoarder", "memory_mib = 300\ndeterministic = false\n") + application(
        "hoarder", "hoarder"
    )
    moody = model("moody", "Moody") + application("moody", "moody", objective="2000")
    steady = model("steady", "steady", "deterministic = false\n") + application("steady", "steady", objective="30000")
    with Deployment(kafka, catalogue, tmp_path, hoarder + moody + steady) as running:
        running.program.ready()
        first = running.host("hoarder")
        asked = []
        while first.runs:
            asked.append(running.ask("hoarder", (0, len(asked))))
            time.sleep(0.1)  # the rate at which is asked
            assert len(asked) < 200
        found = answers(running, *asked)
        assert [found[query_id]["outputs"] for query_id in asked] == [[number] for number in range(len(asked))]
        assert "process has more memory than its model may" in running.program.log
        greedy = answer(running, "hoarder", (misdeeds.RAISES, 1))
        assert "MemoryError" in str(greedy), greedy
        assert answer(running, "hoarder", (0, 9))["outputs"] == [9]

        running.mood.touch()
        os.kill(running.host("moody").pid, signal.SIGKILL)
        until("backoff", lambda: running.program.log.count("child=host.moody.1.0 end=") >= 4)
        late = answer(running, "moody", (0, 1))
        assert late["default"]
        assert p95(steady_times_s(running, 40)) < STEADY_P95_S
        running.mood.unlink()
        until("an answer", lambda: not answer(running, "moody", (0, 1)).get("default"))

        frozen = running.host("moody")
        os.kill(frozen.pid, signal.SIGSTOP)
        assert answer(running, "moody", (0, 2))["default"]
        assert p95(steady_times_s(running, 40)) < STEADY_P95_S
        os.kill(frozen.pid, signal.SIGCONT)
        until("an answer", lambda: not answer(running, "moody", (0, 3)).get("default"))
        fault_report.add("models that leak, start no more, freeze", kills=2)
