"""A pipeline under a real Prometheus, things that go wrong in it, and when which alert said so."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from confluent_kafka import Producer
from e2e.any_client import AnyClient
from e2e.programs import Program, RunningProcess, environment, run, until
from stub_server import Answer, StubServer, serving

from clipper_topics.catalogue import Catalogue
from deploy.observe.servers import BOARD, prometheus

CONFIGURATION = Path(__file__).with_name("observed.toml")
FACTOR = 60
"""How many times shorter the windows of the rules are: five minutes are five seconds."""
MOODS = """
import os
import time
from pathlib import Path


def mood(name):
    return Path(__file__).with_name(name).exists()


def steady(rows):
    return rows.sum(axis=1)


def late(rows):
    time.sleep(6.0 if mood("is late") else 0.0)
    return rows.sum(axis=1)


def crowded(rows):
    time.sleep(6.0)
    return rows.sum(axis=1)


def raising(rows):
    if mood("raises"):
        raise ValueError("a bad mood")
    return rows.sum(axis=1)


def drifting(rows):
    return rows.sum(axis=1) + mood("drifts")


def wrong(rows):
    return rows.sum(axis=1) + 1


def narrow(rows):
    time.sleep(0.05 * mood("is narrow"))
    return rows.sum(axis=1)


class Mortal:
    def __init__(self):
        if mood("is dead"):
            os._exit(7)

    def predict_batch(self, rows):
        return rows.sum(axis=1)
"""
QUERIES = ("steady", "late", "raising", "drifting", "drifting", "tried", "tried", "mortal")
"""Applications, asked in turn."""
TURN_S = 0.15
"""For one query to each of them."""
VARIABLES = {"$application": ".*", "$model": ".*", "$__rate_interval": "10s", "$__range": "5m"}
"""What Grafana puts in."""


def found_by(url: str, expression: str) -> list[Mapping[str, Any]]:
    """What the Prometheus at this URL finds now: series with `metric` and `value`."""
    for written, meant in VARIABLES.items():
        expression = expression.replace(written, meant)
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, trust_env=False, timeout=30).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[Mapping[str, Any]] = answer["data"]["result"]
    return found


def empty_panels(url: str) -> list[str]:
    """Queries of the board that return nothing, or nothing that its legend can name."""
    empty = []
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            names = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            found = found_by(url, target["expr"])
            if not found or any(names - series["metric"].keys() for series in found):
                empty.append(f"{panel['title']}: {target['expr']}")
    return empty


def shows_data(url: str, within_s: float) -> None:
    """Wait until every panel of the board shows data."""
    try:
        until("data in every panel", lambda: not empty_panels(url), within_s)
    except AssertionError as error:
        raise AssertionError(empty_panels(url)) from error


class Observed:
    """A pipeline with traffic, watched by the Prometheus at `url`; a file in its folder sets the mood of a model."""

    def __init__(self, up: Program, folder: Path, url: str, gateway: str, client: AnyClient) -> None:
        self.up, self.folder, self.url, self.gateway, self.client = up, folder, url, gateway, client
        self.catalogue = Catalogue()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._ask, self._tell, self._call)]

    # --- Prometheus ---------------------------------------------------------------------------------------------------
    def query(self, expression: str) -> list[Mapping[str, Any]]:
        """What Prometheus finds now: series with `metric` and `value`."""
        return found_by(self.url, expression)

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire now."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", trust_env=False, timeout=30).json()
        return [one["labels"] for one in answer["data"]["alerts"] if one["state"] == "firing"]

    # --- traffic ------------------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _producer(self) -> Producer:
        return Producer({"bootstrap.servers": self.client.bootstrap, "linger.ms": 0})

    def _ask(self) -> None:
        producer, number = self._producer(), 0
        while not self._ending.wait(TURN_S):
            for application in QUERIES:
                number += 1
                content = {"application": application, "query_id": f"q{number}", "input": [number % 5, 1]}
                producer.produce(self.catalogue.queries, json.dumps(content).encode())
            producer.poll(0)
        producer.flush(10)

    def _tell(self) -> None:
        producer = self._producer()
        with self.client.reading(self.catalogue.predictions) as reading:
            while not self._ending.is_set():
                for answer in reading.more():
                    query_id = str(answer.content["query_id"])
                    if query_id[1:].isdecimal():
                        told = {"query_id": query_id, "label": int(query_id[1:]) % 5 + 1}
                        producer.produce(self.catalogue.feedback, json.dumps(told).encode(), partition=answer.partition)
                producer.poll(0)
        producer.flush(10)

    def _call(self) -> None:
        while not self._ending.wait(0.3):
            self.call("raising")  # nobody gives feedback about these, which a trial would wait for

    def call(self, application: str) -> int:
        """Ask over HTTP; the status."""
        url = f"{self.gateway}/v1/applications/{application}/predict"
        try:
            return httpx.post(url, json={"input": [1, 2]}, trust_env=False, timeout=20).status_code
        except httpx.HTTPError:
            return 0

    # --- causes -------------------------------------------------------------------------------------------------------
    @contextmanager
    def mood(self, name: str) -> Iterator[None]:
        """The models of this mood have it."""
        path = self.folder / name
        path.touch()
        try:
            yield
        finally:
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
            producer = self._producer()
            for number in range(4_000):
                content = {"application": "narrow", "input": [number, 1]}
                producer.produce(self.catalogue.queries, json.dumps(content).encode())
            assert producer.flush(60) == 0
            yield

    @contextmanager
    def bad_trial(self) -> Iterator[None]:
        """A version that is always wrong answers half of the queries, until the rule aborts it."""
        environ = environment(KAFKA_BOOTSTRAP_SERVERS=self.client.bootstrap)
        trial = "model canary wrong:1 --application tried --share 0.5 --automatic --why test"
        done = run(*trial.split(), folder=self.folder, environ=environ)
        assert done.code == 0, done
        yield

    @contextmanager
    def unreadable_records(self) -> Iterator[None]:
        """Three records on the queries topic that are no queries."""
        for _ in range(3):
            self.client.send(self.catalogue.queries, b"no query")
        yield

    @contextmanager
    def crowd(self) -> Iterator[None]:
        """More callers at the gateway than may wait, for a model that takes 6 s."""
        with ExitStack() as stack:
            over = threading.Event()

            def work() -> None:
                while not over.wait(0.05):
                    self.call("crowded")

            callers = [threading.Thread(target=work) for _ in range(6)]
            for caller in callers:
                caller.start()
                stack.callback(caller.join)
            stack.callback(over.set)
            yield

    @contextmanager
    def told_by_nobody(self, metrics: str) -> Iterator[None]:
        """A process of ours that is none: it serves these metrics, and nothing else."""

        answer = Answer(metrics.encode(), headers={"content-type": "text/plain; version=0.0.4"})
        with serving(StubServer(metadata=answer)) as server:
            target = {"targets": [f"127.0.0.1:{server.port}"], "labels": {"instance": "nobody"}}
            path = self.folder / "data" / "metrics-targets-nobody.json"
            path.write_text(json.dumps([target]))
            try:
                yield
            finally:
                path.write_text("[]")


@contextmanager
def observed(folder: Path) -> Iterator[Observed]:
    """Start all of it; it has been watched for some seconds when the block begins."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "moods.py").write_text(MOODS)
    environ = environment(CLIPPER_GATEWAY_ENABLED="true")
    with Program("up", "--config", str(CONFIGURATION), folder=folder, environ=environ) as up:
        fields = up.ready()
        targets = folder / "data" / "metrics-targets*.json"
        with (
            AnyClient(fields["bootstrap"]) as client,
            prometheus(folder / "prometheus", targets, FACTOR) as url,
            Observed(up, folder, url, fields["gateway"], client) as pipeline,
        ):
            asked = 'sum by (application) (rate(clipper_predictions_total{outcome="model"}[5s])) > 0'
            until("answers in Prometheus", lambda: len(pipeline.query(asked)) >= len(set(QUERIES)))
            yield pipeline
