"""A real Prometheus evaluates deploy/observe/alerts.yml with windows that are 60 times shorter, on a real pipeline.

A clock that is wrong and a disk that is full cannot be had in seconds: a target of the test's own tells of them.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import count, cycle, takewhile
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from confluent_kafka import Producer
from e2e.any_client import AnyClient
from e2e.programs import Program, Shell, descendants, environment, repeatedly, until
from e2e.test_alert_rules import ALERTS
from faults.deployment import child
from stub_server import Answer, StubServer, serving

from clipper_topics.catalogue import Catalogue
from deploy.observe.servers import BOARD, RULES, prometheus

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt install prometheus")

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "benchmarks/results/alerts.md"
FACTOR = 60
"""How many times shorter the windows of the rules are: five minutes are five seconds."""
PATIENCE_S, TURN_S = 900.0, 0.15
QUERIES = ("steady", "late", "raising", "drifting", "drifting", "tried", "tried", "mortal")
"""Applications, asked once each in a turn."""
MOODS = """
import os
import time
from pathlib import Path

class Moody:
    def __init__(self, mood="", sleeps_s=0.0, adds=0, fails=False, dies=False):
        self.mood = Path(__file__).with_name(mood or "moods.py")
        self.sleeps_s, self.adds, self.fails = sleeps_s, adds, fails
        if dies and self.mood.exists():
            os._exit(7)

    def predict_batch(self, rows):
        is_so = self.mood.exists()
        time.sleep(self.sleeps_s * is_so)
        if self.fails and is_so:
            raise ValueError("a bad mood")
        return rows.sum(axis=1) + self.adds * is_so
"""
"""A model that sleeps, adds, fails or dies while there is a file of the name of its mood, or always without one."""
SICK = """
clipper_clock_skew_seconds 0.5
clipper_disk_used_bytes{folder="/data"} 5e9
clipper_disk_free_bytes{folder="/data"} 4e9
"""
VARIABLES = {"$application": ".*", "$model": ".*", "$__rate_interval": "10s", "$__range": "5m"}
"""What Grafana puts in."""


def asked(url: str, path: str, **params: str) -> Any:
    answer = httpx.get(f"{url}/api/v1/{path}", params=params, trust_env=False, timeout=30).json()
    assert answer["status"] == "success", (params, answer)
    return answer["data"]


def empty_panels(url: str) -> list[str]:
    """Queries of the board that return nothing, or nothing that its legend can name."""
    empty = []
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression, names = target["expr"], set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for written, meant in VARIABLES.items():
                expression = expression.replace(written, meant)
            found = asked(url, "query", query=expression)["result"]
            if not found or any(names - series["metric"].keys() for series in found):
                empty.append(f"{panel['title']}: {expression}")
    return empty


def shows_data(url: str, within_s: float) -> None:
    """Wait until every panel of the board shows data."""
    end_s = time.monotonic() + within_s
    while empty := empty_panels(url):
        assert time.monotonic() < end_s, empty
        time.sleep(1.0)


class Observed:
    """A pipeline with traffic, watched by the Prometheus at `url`; a file in its folder sets the mood of a model."""

    def __init__(self, up: Program, folder: Path, url: str, gateway: str, client: AnyClient) -> None:
        self.up, self.folder, self.url, self.gateway, self.client = up, folder, url, gateway, client
        self.topics, self._producer = Catalogue(), Producer({"bootstrap.servers": client.bootstrap, "linger.ms": 0})

    def firing(self) -> list[dict[str, str]]:
        return [one["labels"] for one in asked(self.url, "alerts")["alerts"] if one["state"] == "firing"]

    # --- traffic ------------------------------------------------------------------------------------------------------
    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Ask each application in its turn, tell the truth about the answers, and call one over HTTP."""
        asked = zip(count(), cycle(QUERIES), strict=False)

        def ask() -> None:
            number, application = next(asked)
            query = {"application": application, "query_id": f"q{number}", "input": [number % 5, 1]}
            self._send(self.topics.queries, query)

        def tell() -> None:
            for answer in answers.more():
                query_id = str(answer.content["query_id"])
                if query_id[1:].isdecimal():
                    told = {"query_id": query_id, "label": int(query_id[1:]) % 5 + 1}
                    self._send(self.topics.feedback, told, answer.partition)

        def call() -> None:
            self.call("raising")  # nobody gives feedback about these, which a trial would wait for

        with (
            self.client.reading(self.topics.predictions) as answers,
            repeatedly(ask, pause_s=TURN_S / len(QUERIES)), repeatedly(tell), repeatedly(call, pause_s=0.3),
        ):  # fmt: skip
            yield

    def _send(self, topic: str, content: Any, partition: int = -1) -> None:
        self._producer.produce(topic, json.dumps(content).encode(), partition=partition)
        self._producer.poll(0)

    def call(self, application: str) -> None:
        """Ask over HTTP, whatever comes."""
        url = f"{self.gateway}/v1/applications/{application}/predict"
        with suppress(httpx.HTTPError):
            httpx.post(url, json={"input": [1, 2]}, trust_env=False, timeout=20)

    # --- causes -------------------------------------------------------------------------------------------------------
    @contextmanager
    def mood(self, name: str) -> Iterator[None]:
        path = self.folder / name
        path.touch()
        yield
        path.unlink()

    @contextmanager
    def dead_host(self) -> Iterator[None]:
        with self.mood("is dead"):
            os.kill(child(self.up, "worker host mortal:1").pid, signal.SIGKILL)
            yield

    @contextmanager
    def frozen_broker(self) -> Iterator[None]:
        pid = child(self.up, "kafka.Kafka").pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def backlog(self) -> Iterator[None]:
        with self.mood("is narrow"):
            for number in range(4_000):
                self._send(self.topics.queries, {"application": "narrow", "input": [number, 1]})
            assert self._producer.flush(60) == 0
            yield

    @contextmanager
    def bad_trial(self) -> Iterator[None]:
        shell = Shell(self.folder, environment(KAFKA_BOOTSTRAP_SERVERS=self.client.bootstrap))
        shell("model canary wrong:1 --application tried --share 0.5 --automatic --why test")
        yield

    @contextmanager
    def unreadable_records(self) -> Iterator[None]:
        for _ in range(3):
            self.client.send(self.topics.queries, b"no query")
        yield

    def crowd(self) -> AbstractContextManager[None]:
        return repeatedly(lambda: self.call("crowded"), 6)

    @contextmanager
    def told_by_nobody(self) -> Iterator[None]:
        """A process of ours that is none: it serves the metrics of a sick machine, and nothing else."""
        answer = Answer(SICK.encode(), headers={"content-type": "text/plain; version=0.0.4"})
        with serving(StubServer(metadata=answer)) as server:
            target = {"targets": [f"127.0.0.1:{server.port}"], "labels": {"instance": "nobody"}}
            path = self.folder / "data" / "metrics-targets-nobody.json"
            path.write_text(json.dumps([target]))
            yield
            path.write_text("[]")


@contextmanager
def observed(folder: Path) -> Iterator[Observed]:
    """Start all of it; it has been watched for some seconds when the block begins."""
    (folder / "moods.py").write_text(MOODS)
    environ = environment(CLIPPER_GATEWAY_ENABLED="true")
    with Program("up", "--config", str(HERE / "observed.toml"), folder=folder, environ=environ) as up:
        fields = up.ready()
        targets = folder / "data" / "metrics-targets*.json"
        with (
            AnyClient(fields["bootstrap"]) as client,
            prometheus(folder / "prometheus", targets, FACTOR) as url,
            (pipeline := Observed(up, folder, url, fields["gateway"], client)).traffic(),
        ):
            rates = 'sum by (application) (rate(clipper_predictions_total{outcome="model"}[5s])) > 0'
            until("answers", lambda: len(asked(url, "query", query=rates)["result"]) >= len(set(QUERIES)))
            yield pipeline


class Cause(NamedTuple):
    """What goes wrong, and the alerts that say so, each with labels that it has."""

    title: str
    happens: Callable[[Observed], AbstractContextManager[None]]
    alerts: Mapping[str, Mapping[str, str]]


def each(*alerts: str, **labels: str) -> dict[str, dict[str, str]]:
    return dict.fromkeys(alerts, labels)


LATE = "LatencyObjectiveBurnsFast"
mood = partial(methodcaller, "mood")
AT_ONCE = (
    Cause(
        "a canary that is always wrong, aborted by its rule",
        Observed.bad_trial, each("TrialAborted", application="tried"),
    ),
    Cause("a model's outputs are off by one from now on", mood("drifts"), each("Drift", model="drifting:1")),
    Cause(
        "three records on the queries topic that are no queries",
        Observed.unreadable_records, each("DeadLetters", topic="clipper.queries", reason="undecodable"),
    ),
    Cause("a model that takes 6 s a batch, with an objective of 5 s", mood("is late"), each(LATE, application="late")),
    Cause(
        "the only host of a model is killed, and ends at each start",
        Observed.dead_host,
        each("ProcessDown", instance="host.mortal.1.0") | each("NoReadyHosts", model="mortal:1")
        | each("Restarts", "ProcessesMissing", instance="supervisor", role="host"),
    ),
    Cause(
        "metrics of a process that there is not: its clock is 0.5 s ahead, its disk has 4 GB left for 5 GB of data",
        Observed.told_by_nobody, each("ClockSkew", "DiskAlmostFull", instance="nobody"),
    ),
)  # fmt: skip
REST = (
    Cause(
        "Kafka stands still",
        Observed.frozen_broker, each("BrokerUnreachable", instance="router-0") | each("GatewayErrors"),
    ),
    Cause("4,000 queries at once to a model that answers 20 a second", Observed.backlog, each("ConsumerLag")),
    Cause(
        "a model that fails on every batch",
        mood("raises"), each("DefaultsBurnFast", "DefaultsBurnSlowly", application="raising"),
    ),
    Cause(
        "six callers at a gateway that lets two wait, for a model that is always late",
        Observed.crowd, each("GatewayOverload", "LatencyObjectiveBurnsSlowly", application="crowded"),
    ),
)  # fmt: skip
"""The two that burn slowly come last: a further miss would begin their six hours, six minutes here, anew."""


def when(pipeline: Observed, alerts: Mapping[str, Mapping[str, str]], *, fire: bool) -> dict[str, float]:
    at_s, end_s = dict[str, float](), time.monotonic() + PATIENCE_S
    while at_s.keys() < alerts.keys():
        firing, now_s = pipeline.firing(), time.monotonic()
        for name, labels in alerts.items():
            wanted = {"alertname": f"Clipper{name}", **labels}.items()
            if any(wanted <= one.items() for one in firing) is fire:
                at_s.setdefault(name, now_s)
        assert now_s < end_s, (alerts.keys() - at_s.keys(), fire, firing)
        time.sleep(0.1)
    return at_s


def times_of(pipeline: Observed, causes: Iterable[Cause], later: Collection[str]) -> dict[str, list[float]]:
    """Have these happen together: when each alert is caused, fires, is mended and, unless it does so `later`, ends."""
    alerts = {name: labels for cause in causes for name, labels in cause.alerts.items()}
    when(pipeline, alerts, fire=False)
    caused_s = time.monotonic()
    with ExitStack() as stack:
        for cause in causes:
            stack.enter_context(cause.happens(pipeline))
        fired_s = when(pipeline, alerts, fire=True)
    mended_s = time.monotonic()
    ended_s = when(pipeline, {name: alerts[name] for name in alerts.keys() - later}, fire=False)
    return {name: [caused_s, at_s, mended_s, ended_s.get(name, 0.0)] for name, at_s in fired_s.items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alerts_fire_and_end_and_every_panel_of_the_board_shows_data(tmp_path: Path):
    with observed(tmp_path) as pipeline:
        until("no alert, for nothing is wrong yet", lambda: not pipeline.firing())
        times_of(pipeline, AT_ONCE, later={"TrialAborted", "Drift", LATE})  # which count for half a minute and longer
        shows_data(pipeline.url, 30)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_every_alert_fires_and_ends_and_the_table_says_after_how_long(tmp_path: Path):
    times_s, rows = dict[str, list[float]](), list[str]()
    slow = {name: labels for one in REST for name, labels in one.alerts.items() if name.endswith("Slowly")}
    with observed(tmp_path) as pipeline:
        for cause in (*AT_ONCE, *REST):
            times_s |= times_of(pipeline, [cause], later=slow)
        for name, ended_s in when(pipeline, slow, fire=False).items():
            times_s[name][-1] = ended_s
    assert times_s.keys() == ALERTS.keys()
    for title, name in ((one.title, name) for one in (*AT_ONCE, *REST) for name in one.alerts):
        caused_s, fired_s, mended_s, ended_s = times_s[name]
        rows.append(f"| {title} | `Clipper{name}` | {fired_s - caused_s:.1f} | {ended_s - mended_s:.1f} |\n")
    head, rule, _ = PAGE.read_text().partition("|---|---|---|---|\n")
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    PAGE.write_text("".join((re.sub(r"\d+ cores, \w+", machine, head), rule, *rows)))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_make_observe_shows_data_in_every_panel_and_ends_with_ctrl_c(tmp_path: Path):
    command = [sys.executable, RULES.with_name("run.py"), "--faster", "60"]
    environ = environment(CLIPPER_GATEWAY_ENABLED="true", TMPDIR=str(tmp_path))
    with (
        (tmp_path / "err").open("wb") as err,
        subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        assert process.stdout is not None
        said = "".join(takewhile(lambda line: line != "Ctrl-C ends it\n", process.stdout))
        found = re.search(r"^prometheus  (\S+)/alerts$", said, re.MULTILINE)
        assert found, (tmp_path / "err").read_text()
        shows_data(found[1], 240)
        started = descendants(process.pid)
        assert len(started) >= 8
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        until("the end of all that it started", lambda: not any(one.runs for one in started), 30)
    assert [path.name for path in tmp_path.iterdir()] == ["err"]
    assert "Traceback" not in (tmp_path / "err").read_text()
