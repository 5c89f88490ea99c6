"""Each alert fires when what it is about happens, and ends when that is mended; each panel of the board shows data.

promtool plays minutes of fixed series against deploy/observe/alerts.yml. A real Prometheus evaluates it with windows
that are 60 times shorter, on a real pipeline. Two causes cannot be had in seconds, a clock that is wrong and a disk
that is full: a target of the test's own tells of them.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count, cycle, takewhile
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pytest
import yaml
from confluent_kafka import Producer
from e2e.any_client import AnyClient
from e2e.programs import Program, RunningProcess, Shell, descendants, environment, until
from stub_server import Answer, StubServer, serving

from clipper_topics.catalogue import Catalogue
from deploy.observe.servers import BOARD, RULES, prometheus

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt install prometheus"),
]

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "benchmarks/results/alerts.md"
ALERTS = {
    rule["alert"].removeprefix("Clipper"): rule["labels"]["severity"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}

# --- fixed series -----------------------------------------------------------------------------------------------------
OF_A, CHILD, UP = 'application="a"', 'instance="i",role="host"', 'up{instance="i",job="clipper"}'
BRIEFLY = "0+0x60 0+60x30 1800x600"
ASKED, MISSED = {"clipper_predictions_total": "0+60x600"}, {"clipper_objective_missed_total": BRIEFLY}
FAILED = {'clipper_predictions_total{application="a",reason="errors"}': BRIEFLY}
ABORT = 'clipper_decisions_total{application="a",command="abort",outcome="made"}'
DRIFT = 'clipper_drifts_total{application="a",direction="up",model="m:1"}'
SERVED = {"clipper_children_ready": "2x9 1x19 2x9", "clipper_children_wanted": "2x40"}
DISK = {"clipper_disk_free_bytes": "60x9 59x9 60x9", "clipper_disk_used_bytes": "-999999940x30"}


def replies(route: str, status: int) -> str:
    return f'clipper_gateway_requests_total{{application="a",route="{route}",status="{status}"}}'


FAILING = {replies("/sums", 200): "0+94x40", replies("/sums", 503): "0x9 0+6x9 54x20"}
FAILING[replies("/v2/health/live", 503)] = "0+99x40"  # a probe, which does not count
CROWDED = {replies("/sums", 200): "0+90x40", replies("/sums", 429): "0x9 0+10x19 190x20"}
PLAYED: list[tuple[str, str, dict[str, str], tuple[float, float, float]]] = [
    # alert, its labels, series from minute to minute, and minutes in which it does not fire yet, fires, fires no more
    ("LatencyObjectiveBurnsFast", OF_A, ASKED | MISSED, (63, 110, 125)),
    ("LatencyObjectiveBurnsSlowly", OF_A, ASKED | MISSED, (61, 440, 460)),
    ("DefaultsBurnFast", OF_A, ASKED | FAILED, (63, 110, 125)),
    ("DefaultsBurnSlowly", OF_A, ASKED | FAILED, (61, 430, 460)),
    ("NoReadyHosts", 'model="m:1"', {"clipper_ready_hosts": "1x9 0x9 1x9"}, (11, 13, 20)),
    ("TrialAborted", OF_A, {ABORT: "0x9 1x90"}, (9, 38, 42)),
    ("TrialAborted", OF_A, {ABORT: "_x9 1x90"}, (8, 38, 42)),
    ("Drift", 'application="a",model="m:1"', {DRIFT: "0x9 1x90"}, (9, 68, 72)),
    ("Drift", 'application="a",model="m:1"', {DRIFT: "_x9 1x90"}, (8, 68, 72)),
    ("ProcessDown", 'instance="i",job="clipper"', {UP: "1x9 0x9 1x9"}, (10, 12, 20)),
    ("ProcessDown", 'job="clipper"', {UP: "1x9 _x19 1x9"}, (13, 17, 30)),
    ("ProcessesMissing", CHILD, SERVED, (19, 21, 30)),
    ("Restarts", CHILD, {"clipper_restarts_total": "0x9 1 2 3 4x40"}, (11, 13, 40)),
    ("BrokerUnreachable", 'instance="i"', {"clipper_broker_reachable": "1x9 0x9 1x9"}, (10.25, 10.75, 20)),
    ("ConsumerLag", 'topic="t"', {"clipper_consumer_lag": "1000x9 1001x9 1000x9"}, (15, 17, 20)),
    ("ConsumerLag", 'topic="deferred queries"', {"clipper_deferred_queries": "1000x9 1001x9 1000x9"}, (15, 17, 20)),
    ("DeadLetters", 'reason="r",topic="t"', {"clipper_dead_letters_total": "_x9 1x90"}, (8, 18, 22)),
    ("ClockSkew", 'instance="i"', {"clipper_clock_skew_seconds": "0.1x9 -0.11x9 0.1x9"}, (14, 16, 20)),
    ("DiskAlmostFull", "", DISK, (14, 16, 20)),
    ("GatewayErrors", "", FAILING, (16, 18, 26)),
    ("GatewayOverload", OF_A, CROWDED, (17, 19, 36)),
]  # fmt: skip


def played(name: str, labels: str, told: Mapping[str, str], minutes: Iterable[float]) -> dict[str, Any]:
    """A test as promtool reads it: the alert fires in the second of these minutes, and not in the others."""
    firing = f'ALERTS{{alertname="Clipper{name}",alertstate="firing"'
    sample = {"labels": f'{firing},severity="{ALERTS[name]}"{"," * bool(labels)}{labels}}}', "value": 1}
    series = {of if "{" in of else f"{of}{{{labels}}}": values for of, values in told.items()}
    asked = [
        {"expr": firing + "}", "eval_time": f"{60 * minute:.0f}s", "exp_samples": [sample] * fires}
        for minute, fires in zip(minutes, (0, 1, 0), strict=True)
    ]
    inputs = [{"series": of, "values": values} for of, values in series.items()]
    return {"name": f"{name} {told}", "interval": "1m", "input_series": inputs, "promql_expr_test": asked}


@pytest.mark.slow  # half a minute of promtool
def test_each_alert_fires_and_ends_with_the_series_it_is_about(tmp_path: Path):
    assert {name for name, *_ in PLAYED} == ALERTS.keys()
    tests = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [played(*one) for one in PLAYED]}
    (tmp_path / "played.yml").write_text(json.dumps(tests))
    command = ["promtool", "test", "rules", "played.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- a real pipeline --------------------------------------------------------------------------------------------------
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
    """What the Prometheus at this URL answers."""
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
        self.topics, self._ending = Catalogue(), threading.Event()
        self._producer = Producer({"bootstrap.servers": client.bootstrap, "linger.ms": 0})
        self._threads = [threading.Thread(target=work) for work in (self._ask, self._tell, self._call)]

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire now."""
        return [one["labels"] for one in asked(self.url, "alerts")["alerts"] if one["state"] == "firing"]

    # --- traffic ------------------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._producer.flush(10)

    def _send(self, topic: str, content: Any, partition: int = -1) -> None:
        self._producer.produce(topic, json.dumps(content).encode(), partition=partition)
        self._producer.poll(0)

    def _ask(self) -> None:
        applications = cycle(QUERIES)
        for number in takewhile(lambda _: not self._ending.wait(TURN_S / len(QUERIES)), count()):
            query = {"application": next(applications), "query_id": f"q{number}", "input": [number % 5, 1]}
            self._send(self.topics.queries, query)

    def _tell(self) -> None:
        with self.client.reading(self.topics.predictions) as reading:
            while not self._ending.is_set():
                for answer in reading.more():
                    query_id = str(answer.content["query_id"])
                    if query_id[1:].isdecimal():
                        told = {"query_id": query_id, "label": int(query_id[1:]) % 5 + 1}
                        self._send(self.topics.feedback, told, answer.partition)

    def _call(self) -> None:
        while not self._ending.wait(0.3):
            self.call("raising")  # nobody gives feedback about these, which a trial would wait for

    def call(self, application: str) -> None:
        """Ask over HTTP, whatever comes."""
        url = f"{self.gateway}/v1/applications/{application}/predict"
        with suppress(httpx.HTTPError):
            httpx.post(url, json={"input": [1, 2]}, trust_env=False, timeout=20)

    # --- causes -------------------------------------------------------------------------------------------------------
    @contextmanager
    def mood(self, name: str) -> Iterator[None]:
        """The models of this mood have it."""
        path = self.folder / name
        path.touch()
        yield
        path.unlink()

    def child(self, words: str) -> RunningProcess:
        """The process that has these words in its command line."""
        return until(
            words, lambda: next((one for one in self.up.children() if words in one.command and one.runs), None)
        )

    @contextmanager
    def dead_host(self) -> Iterator[None]:
        """The only host of `mortal` is killed, and ends again at each start."""
        with self.mood("is dead"):
            os.kill(self.child("worker host mortal:1").pid, signal.SIGKILL)
            yield

    @contextmanager
    def frozen_broker(self) -> Iterator[None]:
        """Kafka is stopped, as a machine that hangs."""
        pid = self.child("kafka.Kafka").pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def backlog(self) -> Iterator[None]:
        """So many queries at once that it takes minutes to answer them one by one."""
        with self.mood("is narrow"):
            for number in range(4_000):
                self._send(self.topics.queries, {"application": "narrow", "input": [number, 1]})
            assert self._producer.flush(60) == 0
            yield

    @contextmanager
    def bad_trial(self) -> Iterator[None]:
        """A version that is always wrong answers half of the queries, until the rule aborts it."""
        shell = Shell(self.folder, environment(KAFKA_BOOTSTRAP_SERVERS=self.client.bootstrap))
        shell("model canary wrong:1 --application tried --share 0.5 --automatic --why test")
        yield

    @contextmanager
    def unreadable_records(self) -> Iterator[None]:
        """Three records on the queries topic that are no queries."""
        for _ in range(3):
            self.client.send(self.topics.queries, b"no query")
        yield

    @contextmanager
    def crowd(self) -> Iterator[None]:
        """More callers at the gateway than may wait, for a model that takes 6 s."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.05):
                self.call("crowded")

        with ThreadPoolExecutor(6) as pool:
            for _ in range(6):
                pool.submit(work)
            try:
                yield
            finally:
                over.set()

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
            Observed(up, folder, url, fields["gateway"], client) as pipeline,
        ):
            rates = 'sum by (application) (rate(clipper_predictions_total{outcome="model"}[5s])) > 0'
            until("answers", lambda: len(asked(url, "query", query=rates)["result"]) >= len(set(QUERIES)))
            yield pipeline


class Cause(NamedTuple):
    """What goes wrong, and the alerts that say so, each with labels that it has."""

    title: str
    happens: Callable[[Observed], AbstractContextManager[None]]
    alerts: Mapping[str, Mapping[str, str]]


def sulks(name: str) -> Callable[[Observed], AbstractContextManager[None]]:
    """The models of a mood have it."""
    return lambda pipeline: pipeline.mood(name)


def each(*alerts: str, **labels: str) -> dict[str, dict[str, str]]:
    return dict.fromkeys(alerts, labels)


LATE = "LatencyObjectiveBurnsFast"
AT_ONCE = (
    Cause(
        "a canary that is always wrong, aborted by its rule",
        Observed.bad_trial, each("TrialAborted", application="tried"),
    ),
    Cause("a model's outputs are off by one from now on", sulks("drifts"), each("Drift", model="drifting:1")),
    Cause(
        "three records on the queries topic that are no queries",
        Observed.unreadable_records, each("DeadLetters", topic="clipper.queries", reason="undecodable"),
    ),
    Cause("a model that takes 6 s a batch, with an objective of 5 s", sulks("is late"), each(LATE, application="late")),
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
        sulks("raises"), each("DefaultsBurnFast", "DefaultsBurnSlowly", application="raising"),
    ),
    Cause(
        "six callers at a gateway that lets two wait, for a model that is always late",
        Observed.crowd, each("GatewayOverload", "LatencyObjectiveBurnsSlowly", application="crowded"),
    ),
)  # fmt: skip
"""The two that burn slowly come last: a further miss would begin their six hours, six minutes here, anew."""


def when(pipeline: Observed, alerts: Mapping[str, Mapping[str, str]], *, fire: bool) -> dict[str, float]:
    """The time at which each of these alerts fires, or fires no more."""
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alerts_fire_and_end_and_every_panel_of_the_board_shows_data(tmp_path: Path):
    alerts = {name: labels for cause in AT_ONCE for name, labels in cause.alerts.items()}
    with observed(tmp_path) as pipeline:
        until("no alert, for nothing is wrong yet", lambda: not pipeline.firing())
        with ExitStack() as stack:
            for cause in AT_ONCE:
                stack.enter_context(cause.happens(pipeline))
            when(pipeline, alerts, fire=True)
        soon = alerts.keys() - {"TrialAborted", "Drift", LATE}  # which count for half a minute and longer
        when(pipeline, {name: alerts[name] for name in soon}, fire=False)
        shows_data(pipeline.url, 30)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_every_alert_fires_and_ends_and_the_table_says_after_how_long(tmp_path: Path):
    began_s, fired_s, mended_s, ended_s = (dict[str, float]() for _ in range(4))
    causes = (*AT_ONCE, *REST)
    with observed(tmp_path) as pipeline:
        for cause in causes:
            when(pipeline, cause.alerts, fire=False)
            began_s |= dict.fromkeys(cause.alerts, time.monotonic())
            with cause.happens(pipeline):
                fired_s |= when(pipeline, cause.alerts, fire=True)
            mended_s |= dict.fromkeys(cause.alerts, time.monotonic())
            soon = {name: labels for name, labels in cause.alerts.items() if not name.endswith("Slowly")}
            ended_s |= when(pipeline, soon, fire=False)
        for cause in REST:
            ended_s = when(pipeline, cause.alerts, fire=False) | ended_s
    assert fired_s.keys() == ALERTS.keys()
    rows = [PAGE_HEAD.format(cores=len(os.sched_getaffinity(0)), machine=platform.machine(), factor=FACTOR)]
    for title, name in ((cause.title, name) for cause in causes for name in cause.alerts):
        times = f"{fired_s[name] - began_s[name]:.1f} | {ended_s[name] - mended_s[name]:.1f}"
        rows.append(f"| {title} | `Clipper{name}` | {times} |\n")
    PAGE.write_text("".join(rows))


PAGE_HEAD = """# Alerts: from cause to alert, and from mending to its end

<!-- Written by pytest -m long tests/e2e/test_alerts.py -->

A real Prometheus on a real pipeline; {cores} cores, {machine}. The rules are those of
[alerts.yml](../../deploy/observe/alerts.yml), their windows and waits {factor} times shorter: five minutes are five
seconds. Scrapes and evaluations are a second apart. The clock and the disk are told by a target of the test's own;
everything else happens.

| cause | alert | fires after, s | ends after, s |
|---|---|---|---|
"""


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
