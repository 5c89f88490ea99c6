"""Whatever happens to a gateway, or behind it: a key has one answer, a call ends in time, what was taken is answered."""

import itertools
import json
import os
import random
import signal
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from e2e.programs import Program, RunningProcess, run, until
from faults.deployment import OwnDeployment
from faults.report import FaultReport
from faults.verdict import judge
from faults.watching import Watch

from clipper_agents import exits
from clipper_agents.broker import EmbeddedBroker
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

CONFIGURATION = Path(__file__).with_name("gateway.toml")
APPLICATIONS = {one["name"]: one for one in tomllib.loads(CONFIGURATION.read_text())["application"]}
PREDICT, FEEDBACK = "/v1/applications/sums/predict", "/v1/feedback"
WAIT_S = 3.0
"""A gateway waits so long for an answer."""
HANG_S = WAIT_S + 7.0
"""No call takes longer: beyond its wait one that Kafka does not acknowledge fails after five seconds."""
THREADS = 8
PAUSE_S = 0.1
"""Of a thread between two of its keys."""
RETRIED = {429, 503, 504}


class HttpAnswer(NamedTuple):
    """What a gateway answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def call(url: str, path: str, content: Any = None, **headers: str) -> HttpAnswer | None:
    """POST a content, or GET without one; None when nobody is there, or ends before it answers. A hang is an error."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=HANG_S)
    body, since_s = None if content is None else json.dumps(content), time.monotonic()
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        found = connection.getresponse()
        named = {name.lower(): value for name, value in found.getheaders()}
        return HttpAnswer(found.status, named, found.read(), time.monotonic() - since_s)
    except (ConnectionError, HTTPException):
        return None
    finally:
        connection.close()


class Question(NamedTuple):
    """One key, and the row that is asked under it."""

    number: int

    @property
    def key(self) -> str:
        return f"order-{self.number}"

    @property
    def total(self) -> int:
        return self.number + 3

    @property
    def context(self) -> dict[str, str]:
        return {} if self.number % 3 else {"context": f"user {self.number % 5}"}

    @property
    def body(self) -> dict[str, Any]:
        return {"input": [self.number, 1, 2], **self.context}

    @property
    def status_path(self) -> str:
        return f"/v1/queries/{self.key}?{urlencode({'application': 'sums', **self.context})}"


class Gateways:
    """Gateways of one deployment, each of which can be killed and started again.

    Attributes:
        urls: Of those that run.
    """

    def __init__(self, stack: ExitStack, deployment: OwnDeployment, count: int) -> None:
        self._stack, self._deployment = stack, deployment
        self.programs = {number: self._program(number) for number in range(count)}
        self.urls = {number: program.ready()["http"] for number, program in self.programs.items()}
        for number in self.urls:
            self.wait_ready(number)

    def any_url(self, rng: random.Random) -> str:
        return rng.choice([*self.urls.values()])

    def wait_ready(self, number: int = 0) -> None:
        until("readiness", lambda: (found := call(self.urls[number], "/readyz")) and found.status == 200)

    def kill(self, number: int) -> None:
        os.kill(self.programs[number].pid, signal.SIGKILL)
        self.programs[number].ended()
        del self.urls[number]

    def start(self, number: int) -> None:
        self.programs[number] = self._program(number)
        self.urls[number] = self.programs[number].ready()["http"]

    def _program(self, number: int) -> Program:
        settings = ("gateway.port=0", "gateway.grpc_port=0", f"gateway.timeout_s={WAIT_S}")
        words = (word for setting in settings for word in ("--set", setting))
        return self._stack.enter_context(self._deployment.start("gateway", "--instance", f"gateway-{number}", *words))


@contextmanager
def callers(work: Callable[[int], object]) -> Iterator[None]:
    """Threads that call a function with one new number after the other; its errors are raised at the end."""
    numbers, enough = itertools.count(), threading.Event()

    def run_on() -> None:
        while not enough.wait(PAUSE_S):
            work(next(numbers))

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(run_on) for _ in range(THREADS)]
        try:
            yield
        finally:
            enough.set()
    for one in running:
        one.result()


class KeyedCalls:
    """Asks keys again and again until each is answered, and tells about some of them, at whichever gateway.

    Attributes:
        bodies: All bodies of answers, by number of the question.
        told: Questions about which there is feedback.
        broken: How many calls ended without an answer.
        refused: How many had another status than 200 or 202, by it.
    """

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self.bodies: defaultdict[int, set[bytes]] = defaultdict(set)
        self.told: list[Question] = []
        self.broken, self.refused = 0, Counter[int]()

    def ask(self, number: int) -> None:
        """Ask a new key until it is answered, once more, and tell about every fifth one, twice."""
        question, rng = Question(number), random.Random(number)
        for _ in range(2):
            self._until_done(lambda: self.ask_at(self._gateways.any_url(rng), question))
        if number % 5 == 0:
            for _ in range(2):
                self._until_done(lambda: self._tell_at(self._gateways.any_url(rng), question))
            self.told.append(question)

    def ask_at(self, url: str, question: Question) -> bool:
        """Ask at one gateway; whether it answered."""
        found = self._done(call(url, PREDICT, question.body, **{"Idempotency-Key": question.key}), 200)
        if found is None:
            return False
        content = found.content
        assert (content["query_id"], content["output"]) == (question.key, question.total), content
        assert not content.get("default"), content
        self.bodies[question.number].add(found.body)
        return True

    def _tell_at(self, url: str, question: Question) -> bool:
        about = {"query_id": question.key, "application": "sums", "label": question.total, "ack": True}
        return self._done(call(url, FEEDBACK, about | question.context), 202) is not None

    def _done(self, found: HttpAnswer | None, status: int) -> HttpAnswer | None:
        if found is None:
            self.broken += 1
        elif found.status != status:
            assert found.status in RETRIED, found
            self.refused[found.status] += 1
        return found if found is not None and found.status == status else None

    def _until_done(self, holds: Callable[[], bool]) -> None:
        until("an answer", holds, 120.0)


def outcomes(url: str, question: Question) -> Counter[str] | None:
    """What became of the feedback about a query; None until all of it is known."""
    found = call(url, question.status_path)
    assert found is not None
    assert found.status == 200, found
    each = [one.get("outcome") for one in found.content["feedback"]]
    return None if None in each or not each else Counter(each)


@pytest.mark.short
def test_a_key_has_one_answer_at_every_gateway_that_is_killed(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, short: bool, fault_report: FaultReport
):
    """kill -9 of one of two gateways, in the middle of calls; each key is asked until it is answered, and again."""
    rng, times = random.Random(20191), 3 if short else 20
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path, configuration=CONFIGURATION)
    with (
        ExitStack() as stack,
        deployment.worker("router") as router,
        Watch(deployment.client, catalogue.predictions) as watch,
    ):
        router.ready()
        gateways, killed_s = Gateways(stack, deployment, 2), list[float]()
        calls = KeyedCalls(gateways)
        with callers(calls.ask):
            for _ in range(times):
                goal = len(calls.bodies) + rng.randrange(20, 60)
                until("answers", lambda goal=goal: len(calls.bodies) >= goal)
                number = rng.randrange(2)
                killed_s.append(time.monotonic())
                gateways.kill(number)
                gateways.start(number)
        stalls_s = watch.stalls_s(killed_s)
        for number in gateways.urls:
            gateways.wait_ready(number)
        with ThreadPoolExecutor(THREADS) as pool:
            asked = [(url, Question(number)) for number in [*calls.bodies] for url in gateways.urls.values()]
            assert all(pool.map(calls.ask_at, *zip(*asked, strict=True)))
        differing = {number: bodies for number, bodies in calls.bodies.items() if len(bodies) > 1}
        url = gateways.urls[0]
        counted = [until("outcomes", lambda one=one: outcomes(url, one)) for one in calls.told]
        verdict = judge(deployment.client, catalogue.prefix, APPLICATIONS)
    note = f"{len(calls.bodies)} keys, {calls.broken} calls broken off, refused {dict(calls.refused)}"
    print(note, stalls_s, len(calls.told))
    fault_report.add("kill -9 of one of two gateways", verdict, kills=times, stalls_s=stalls_s, note=note)
    assert not differing
    assert calls.broken
    assert all(one["applied"] == 1 and one.keys() <= {"applied", "duplicate"} for one in counted), counted
    verdict.check()


class SingleCalls:
    """Asks each question once, at the first gateway, every second one as `respond-async`.

    Attributes:
        accepted: Questions that were answered by 200 or 202.
        late: Questions that were answered by 504.
        refusals: Answers of 503.
        slowest_s: The longest call.
    """

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self.accepted: list[Question] = []
        self.late: list[Question] = []
        self.refusals: list[HttpAnswer] = []
        self.slowest_s = 0.0

    def ask(self, number: int) -> None:
        question = Question(number)
        headers = {"Idempotency-Key": question.key} | ({"Prefer": "respond-async"} if number % 2 else {})
        found = call(self._gateways.urls[0], PREDICT, question.body, **headers)
        assert found is not None
        self.slowest_s = max(self.slowest_s, found.took_s)
        match found.status:
            case 200 | 202:
                assert found.content["query_id"] == question.key
                self.accepted.append(question)
            case 503:
                assert int(found.headers["retry-after"]) > 0, found
                self.refusals.append(found)
            case 504:
                assert found.content["query_id"] == question.key
                self.late.append(question)
            case _:
                raise AssertionError(found)

    def unanswered(self) -> list[Question]:
        """Accepted and late questions that have not their own answer."""
        url = self._gateways.urls[0]

        def answered(question: Question) -> bool:
            found = call(url, f"{question.status_path}&wait_s=1")
            assert found is not None
            return found.status == 200 and found.content["prediction"]["output"] == question.total

        asked = [*self.accepted, *self.late]
        with ThreadPoolExecutor(THREADS) as pool:
            return [one for one, is_done in zip(asked, pool.map(answered, asked), strict=True) if not is_done]


def readiness(url: str) -> tuple[int, list[str]]:
    found = call(url, "/readyz")
    assert found is not None
    return found.status, found.content["reasons"]


@pytest.mark.short
def test_a_gateway_says_so_while_no_broker_answers_and_comes_back(
    tmp_path: Path, short: bool, fault_report: FaultReport
):
    """A broker stopped, or killed, and started again: 503 in a bounded time meanwhile, and nothing accepted is lost."""
    kills = [False] if short else [False, True, True]
    catalogue = Catalogue(partitions=2)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(tmp_path / "kafka", heap_mib=256))
        deployment = OwnDeployment.on(broker.connection, catalogue, tmp_path, configuration=CONFIGURATION)
        router = stack.enter_context(deployment.worker("router"))
        router.ready()
        gateways = Gateways(stack, deployment, 1)
        calls, outages_s, url = SingleCalls(gateways), list[float](), gateways.urls[0]
        with callers(calls.ask):
            for kill in kills:
                goal = len(calls.accepted) + 100
                until("answers", lambda goal=goal: len(calls.accepted) >= goal)
                broker.stop(kill=kill)
                since_s, seen = time.monotonic(), len(calls.refusals)
                until("a reason", lambda: readiness(url) == (503, ["no broker answers"]), 60.0)
                until("refusals", lambda seen=seen: len(calls.refusals) >= seen + 3 * THREADS, 60.0)
                live = call(url, "/livez")
                assert live is not None
                assert live.status == 200
                broker.start()
                gateways.wait_ready()
                goal = len(calls.accepted) + 100
                until("answers", lambda goal=goal: len(calls.accepted) >= goal)
                outages_s.append(time.monotonic() - since_s)
        lost = until("all answers", lambda: None if calls.unanswered() else [True], 120.0)
        assert gateways.programs[0].code is None
        verdict = judge(deployment.client, catalogue.prefix, APPLICATIONS)
    note = f"{len(calls.accepted)} accepted, {len(calls.refusals)} times 503, {len(calls.late)} times 504; at most {calls.slowest_s:.1f} s"
    print(
        note,
        outages_s,
        Counter(round(x.took_s) for x in calls.refusals),
        Counter(x.content["error"] for x in calls.refusals),
    )
    print(gateways.programs[0].log)
    fault_report.add("a broker restarted behind a gateway", verdict, kills=len(kills), stalls_s=outages_s, note=note)
    assert not verdict.lost


@pytest.mark.short
def test_a_call_that_no_router_answers_in_time_has_its_answer_later(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, short: bool, fault_report: FaultReport
):
    """kill -9 of the only router under load: an answer, or 504 with the query's id, under which the answer will be."""
    times = 1 if short else 5
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path, configuration=CONFIGURATION)
    with ExitStack() as stack, Watch(deployment.client, catalogue.predictions) as watch:
        router = stack.enter_context(deployment.worker("router"))
        router.ready()
        gateways = Gateways(stack, deployment, 1)
        calls, killed_s = SingleCalls(gateways), list[float]()
        with callers(calls.ask):
            for _ in range(times):
                goal = len(calls.accepted) + 100
                until("answers", lambda goal=goal: len(calls.accepted) >= goal)
                killed_s.append(time.monotonic())
                router.signal(signal.SIGKILL)
                router.ended()
                seen = len(calls.late)
                until("calls in vain", lambda seen=seen: len(calls.late) > seen)
                router = stack.enter_context(deployment.worker("router"))
                router.ready()
        until("all answers", lambda: not calls.unanswered(), 120.0)
        stalls_s = watch.stalls_s(killed_s)
        verdict = judge(deployment.client, catalogue.prefix, APPLICATIONS)
    note = f"{len(calls.accepted)} accepted, {len(calls.refusals)} times 503, {len(calls.late)} times 504; at most {calls.slowest_s:.1f} s"
    print(note)
    fault_report.add("kill -9 of the router behind a gateway", verdict, kills=times, stalls_s=stalls_s, note=note)
    assert not verdict.lost
    assert not calls.refusals
