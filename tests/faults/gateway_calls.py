"""Gateways that are killed, and callers who ask them the sums of rows whatever happens."""

import itertools
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
from e2e.gateways import client_of, serves
from e2e.programs import Program, repeatedly, until
from faults.under_traffic import Rig

PREDICT, FEEDBACK = "/v1/applications/sums/predict", "/v1/feedback"
WAIT_S = 3.0
"""A gateway waits so long for an answer."""
SETTINGS = {"gateway_grpc_port": 0, "gateway_timeout_s": WAIT_S}
HANG_S = 15.0
"""No call takes longer, on a busy machine either: beyond its wait it reads no log for longer than a few seconds."""
THREADS = 8
PAUSE_S = 0.1
LONG_S, MORE = 120.0, 100
RETRIED = {429, 503, 504}
T = TypeVar("T")


def call(url: str, path: str, content: Any = None, **headers: str) -> httpx.Response | None:
    """POST a content, or GET without one; None when nobody is there, or ends before it answers. A hang is an error."""
    with client_of(url, timeout_s=HANG_S, **headers) as client, suppress(httpx.NetworkError, httpx.RemoteProtocolError):
        return client.get(path) if content is None else client.post(path, json=content)
    return None


class Question:
    """One row, asked under an id of its own, or under one that the gateway gives; every third one has a context."""

    def __init__(self, number: int, given_id: str | None = None) -> None:
        self.number, self.query_id, self.total = number, given_id or f"order-{number}", number + 3
        self.key = {"Idempotency-Key": self.query_id}
        self.context = {} if number % 3 else {"context": f"user {number % 5}"}
        self.is_told = number % 5 == 0


def ask(url: str, question: Question, **headers: str) -> httpx.Response | None:
    body = {"input": [question.number, 1, 2], **question.context}
    return call(url, PREDICT, body, **headers)


def tell(url: str, question: Question) -> httpx.Response | None:
    about = {"query_id": question.query_id, "application": "sums", "label": question.total, "ack": True}
    return call(url, FEEDBACK, about | question.context)


def status_of(url: str, question: Question, wait_s: float = 0.0) -> dict[str, Any]:
    """What the logs have about a query; empty when they could not be read in time."""
    said = {"application": "sums", "wait_s": wait_s, **question.context}
    found = call(url, f"/v1/queries/{question.query_id}?{urlencode(said)}")
    assert found.status_code in {200, 202, 503}, found.text
    return {} if found.status_code == 503 else found.json()


class Gateways(Rig):
    """A router, and gateways in front of it by number, all of which serve at their URL."""

    def start(self, count: int) -> None:
        self.programs, self.urls = dict[int, Program](), dict[int, str]()
        self.start_router()
        for number in range(count):
            self._start(number)

    def start_router(self) -> None:
        self.router = self.serve(self.deployment.worker("router"))

    def kill(self, program: Program) -> None:
        self.fault()
        program.signal(signal.SIGKILL)
        program.ended()

    def any_url(self, rng: random.Random) -> str:
        return rng.choice([*self.urls.values()])

    def restart(self, number: int) -> None:
        """kill -9, and start another one, at another address; returns when that one serves."""
        self.kill(self.programs[number])
        del self.urls[number]
        self._start(number)

    def _start(self, number: int) -> None:
        program = self.deployment.start("gateway", "--instance", f"gateway-{number}", gateway_port=0, **SETTINGS)
        self.programs[number] = self.enter_context(program)
        self.urls[number] = program.ready()["http"]
        serves(self.urls[number], LONG_S)


def callers(work: Callable[[int], object]) -> AbstractContextManager[None]:
    """Threads that call a function with one new number after the other; its errors are raised at the end."""
    numbers = itertools.count()
    return repeatedly(lambda: work(next(numbers)), THREADS, PAUSE_S)


def in_parallel(work: Callable[[T], object], over: Sequence[T]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        assert len([*pool.map(work, over)]) == len(over)


class KeyedCalls:
    """Asks keys again and again until each is answered, and tells about some of them, at whichever gateway.

    It notes all bodies of answers by number of the question, how many calls were broken off, and why some were refused.
    """

    def __init__(self, gateways: Gateways) -> None:
        self._gateways, self.bodies = gateways, defaultdict[int, set[bytes]](set)
        self.told, self.broken, self.refused = list[Question](), 0, Counter[int]()

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
        found = self._done(ask(url, question, **question.key), 200)
        if found is None:
            return False
        content = found.json()
        assert (content["query_id"], content["output"]) == (question.query_id, question.total), content
        self.bodies[question.number].add(found.content)
        return True

    def ask_everywhere(self) -> None:
        asked = [(url, Question(number)) for number in [*self.bodies] for url in self._gateways.urls.values()]
        in_parallel(lambda one: until("an answer", lambda: self.ask_at(*one), LONG_S), asked)

    def _done(self, found: httpx.Response | None, status: int) -> httpx.Response | None:
        if found is not None and found.status_code == status:
            return found
        if found is None:
            self.broken += 1
        else:
            assert found.status_code in RETRIED, found.text
            self.refused[found.status_code] += 1
        return None


class SingleCalls:
    """Asks each question once, and tells about some of those that are answered.

    It notes which were accepted and late (504), which feedback was accepted, and how often nothing (503).
    """

    def __init__(self, url: str) -> None:
        self._url, self.refusals, self.slowest_s = url, 0, 0.0
        self.accepted, self.told, self.late = list[Question](), list[Question](), list[Question]()

    def __str__(self) -> str:
        counts = f"{len(self.accepted)} accepted, 503: {self.refusals}, 504: {len(self.late)}"
        return f"{counts}, the slowest call {self.slowest_s:.1f} s"

    def ask(self, number: int) -> None:
        """Ask a new question, every fourth one without a key, and tell about every fifth one."""
        question = Question(number)
        found = ask(self._url, question, **({} if number % 4 == 0 else question.key))
        if found is not None and found.status_code != 503:
            question = Question(number, found.json()["query_id"])
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
        in_parallel(self._wait_for_answer, [*self.accepted, *self.late])

    def _wait_for_answer(self, question: Question) -> None:
        found = until("an answer", lambda: status_of(self._url, question, wait_s=1).get("prediction"), LONG_S)
        assert found["output"] == question.total, found

    def _is_taken(self, question: Question, found: httpx.Response | None) -> bool:
        assert found is not None
        self.slowest_s = max(self.slowest_s, found.elapsed.total_seconds())
        if found.status_code == 503:
            assert int(found.headers["retry-after"]) > 0, found
            self.refusals += 1
        elif found.status_code == 504:
            self.late.append(question)
        else:
            assert found.status_code in {200, 202}, found.text
        return found.status_code in {200, 202}


def outcomes(url: str, question: Question) -> Counter[str] | None:
    """What became of the feedback about a query; None until all of it is known."""
    each = [one.get("outcome") for one in status_of(url, question).get("feedback", [])]
    return None if None in each or not each else Counter(each)
