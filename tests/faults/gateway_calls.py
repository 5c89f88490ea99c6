"""Gateways that are killed, and callers who ask them the sums of rows whatever happens."""

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from e2e.gateways import serves
from e2e.programs import Program, until
from faults.deployment import OwnDeployment

CONFIGURATION = Path(__file__).with_name("gateway.toml")
PREDICT, FEEDBACK = "/v1/applications/sums/predict", "/v1/feedback"
WAIT_S = 3.0
"""A gateway waits so long for an answer."""
SETTINGS = ("--set", "gateway.grpc_port=0", "--set", f"gateway.timeout_s={WAIT_S}")
HANG_S = 15.0
"""No call takes longer, on a busy machine either: beyond its wait it reads no log for longer than a few seconds."""
THREADS = 8
PAUSE_S = 0.1
"""Of a thread between two of its questions."""
LONG_S, MORE = 120.0, 100
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
    """One row, asked under an id of its own, or under one that the gateway gives; every third one has a context."""

    number: int
    given_id: str | None = None

    @property
    def query_id(self) -> str:
        return self.given_id or f"order-{self.number}"

    @property
    def key(self) -> dict[str, str]:
        return {"Idempotency-Key": self.query_id}

    @property
    def total(self) -> int:
        return self.number + 3

    @property
    def context(self) -> dict[str, str]:
        return {} if self.number % 3 else {"context": f"user {self.number % 5}"}

    @property
    def is_told(self) -> bool:
        return self.number % 5 == 0


def ask(url: str, question: Question, **headers: str) -> HttpAnswer | None:
    body = {"input": [question.number, 1, 2], **question.context}
    return call(url, PREDICT, body, **headers)


def tell(url: str, question: Question) -> HttpAnswer | None:
    about = {"query_id": question.query_id, "application": "sums", "label": question.total, "ack": True}
    return call(url, FEEDBACK, about | question.context)


def get(url: str, path: str) -> HttpAnswer:
    found = call(url, path)
    assert found is not None
    return found


def status_of(url: str, question: Question, wait_s: float = 0.0) -> dict[str, Any]:
    """What the logs have about a query; empty when they could not be read in time."""
    said = {"application": "sums", "wait_s": wait_s, **question.context}
    found = get(url, f"/v1/queries/{question.query_id}?{urlencode(said)}")
    assert found.status in {200, 202, 503}, found
    return {} if found.status == 503 else found.content


def readiness(url: str) -> tuple[int, list[str]]:
    found = get(url, "/readyz")
    return found.status, found.content["reasons"]


class Gateways:
    """Gateways of one deployment that serve.

    Attributes:
        programs: All of them, by number.
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

    def wait_ready(self, number: int) -> None:
        serves(self.urls[number], LONG_S)

    def restart(self, number: int) -> None:
        """kill -9, and start another one, at another address; returns when that one serves."""
        os.kill(self.programs[number].pid, signal.SIGKILL)
        self.programs[number].ended()
        del self.urls[number]
        self.programs[number] = self._program(number)
        self.urls[number] = self.programs[number].ready()["http"]
        self.wait_ready(number)

    def _program(self, number: int) -> Program:
        name = f"gateway-{number}"
        program = self._deployment.start("gateway", "--instance", name, "--set", "gateway.port=0", *SETTINGS)
        return self._stack.enter_context(program)


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
        refused: How many had another status than 200 or 202, by status.
    """

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self.bodies: defaultdict[int, set[bytes]] = defaultdict(set)
        self.told: list[Question] = []
        self.broken, self.refused = 0, Counter[int]()

    def ask(self, number: int) -> None:
        """Ask under a new key until there is an answer, once more, and tell about every fifth one, twice."""
        question, rng = Question(number), random.Random(number)
        for _ in range(2):
            until("an answer", lambda: self.ask_at(self._gateways.any_url(rng), question), LONG_S)
        if question.is_told:
            for _ in range(2):
                until("a place", lambda: self._done(tell(self._gateways.any_url(rng), question), 202), LONG_S)
            self.told.append(question)

    def ask_at(self, url: str, question: Question) -> bool:
        """Ask at one gateway; whether it answered."""
        found = self._done(ask(url, question, **question.key), 200)
        if found is None:
            return False
        content = found.content
        assert (content["query_id"], content["output"]) == (question.query_id, question.total), content
        self.bodies[question.number].add(found.body)
        return True

    def ask_everywhere(self) -> None:
        """Ask every key once more, at each gateway."""
        asked = [(url, Question(number)) for number in [*self.bodies] for url in self._gateways.urls.values()]
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda one: until("an answer", lambda: self.ask_at(*one), LONG_S), asked):
                pass

    def _done(self, found: HttpAnswer | None, status: int) -> HttpAnswer | None:
        if found is not None and found.status == status:
            return found
        if found is None:
            self.broken += 1
        else:
            assert found.status in RETRIED, found
            self.refused[found.status] += 1
        return None


class SingleCalls:
    """Asks each question once, every second one as `respond-async`, and tells about some of those that are answered.

    Attributes:
        accepted: Questions that were answered by 200 or 202.
        told: Questions about which feedback was accepted.
        late: Questions that were answered by 504.
        refusals: How many calls were answered by 503.
        slowest_s: Of all calls.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.accepted: list[Question] = []
        self.told: list[Question] = []
        self.late: list[Question] = []
        self.refusals, self.slowest_s = 0, 0.0

    def __str__(self) -> str:
        counts = f"{len(self.accepted)} accepted, 503: {self.refusals}, 504: {len(self.late)}"
        return f"{counts}, the slowest call {self.slowest_s:.1f} s"

    def ask(self, number: int) -> None:
        """Ask a new question, every fourth one without a key, and tell about every fifth one."""
        question = Question(number)
        later = {"Prefer": "respond-async"} if number % 2 else {}
        found = ask(self._url, question, **({} if number % 4 == 0 else question.key), **later)
        if found is not None and found.status != 503:
            question = question._replace(given_id=found.content["query_id"])
            assert number % 4 == 0 or question.query_id == Question(number).query_id
        if self._is_taken(question, found):
            self.accepted.append(question)
            if question.is_told and self._is_taken(question, tell(self._url, question)):
                self.told.append(question)

    def wait_for_more(self) -> None:
        """Wait until questions are accepted that were asked after this call."""
        goal = len(self.accepted) + MORE
        until("accepted questions", lambda: len(self.accepted) >= goal, LONG_S)

    def wait_for_answers(self) -> None:
        """Wait until everything that was accepted, and everything that was late, has its answer."""
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(self._wait_for_answer, [*self.accepted, *self.late]):
                pass

    def _wait_for_answer(self, question: Question) -> None:
        found = until("an answer", lambda: status_of(self._url, question, wait_s=1).get("prediction"), LONG_S)
        assert found["output"] == question.total, found

    def _is_taken(self, question: Question, found: HttpAnswer | None) -> bool:
        assert found is not None
        self.slowest_s = max(self.slowest_s, found.took_s)
        if found.status == 503:
            assert int(found.headers["retry-after"]) > 0, found
            self.refusals += 1
        elif found.status == 504:
            self.late.append(question)
        else:
            assert found.status in {200, 202}, found
        return found.status in {200, 202}


def outcomes(url: str, question: Question) -> Counter[str] | None:
    """What became of the feedback about a query; None until all of it is known."""
    each = [one.get("outcome") for one in status_of(url, question).get("feedback", [])]
    return None if None in each or not each else Counter(each)
