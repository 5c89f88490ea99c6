"""Asks a gateway for predictions and gives feedback, from asyncio and from threads.

Rules of this file:
- Every query has an id before it is sent, so that sending it again asks nothing twice; of feedback the first counts.
- The key is in one header of requests to the gateway, and in no error, log or `repr`; redirects are not followed.
"""

import asyncio
import random
import re
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from clipper_stream.errors import InvalidSetting, shown
from clipper_stream.http import messages
from clipper_stream.http.errors import RETRIED, AnswerTimeout, GatewayUnavailable, HttpProblem
from clipper_stream.http.messages import HttpAnswer, HttpOptions, HttpTruth, QueryReport
from clipper_stream.models.allowlist import plain_url

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT_S, RETRIES = 10.0, 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts: doubled each time, less a random part of up to a half, so that clients do not come together."""
CONNECT_SHARE = 1 / 3
"""Of a call's time for one connection: a host that drops packets leaves time for another attempt."""
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)
_HEADER_TEXT = re.compile(r"[!-~]+( [!-~]+)*")
_JSON = {"content-type": "application/json"}


class HttpClient:
    """A client of one gateway, for any number of concurrent calls on one event loop.

        async with HttpClient("http://localhost:8080") as client:
            answer = await client.predict("digits", [0.0, 0.5, 1.0])
            await client.feedback(answer, label=3)

    Calls raise the errors of `clipper_stream.http`; a wrong argument of the client itself is an `InvalidSetting`.

    Args:
        url: Of the gateway, `http://HOST:PORT` or `https://HOST`.
        api_key: The key, where the gateway asks for one.
        timeout_s: How long a call waits with all its attempts, in seconds, unless it says otherwise.
        retries: Further attempts after no connection, 429, 502 or 503, each after as long as the gateway asks for.
        transport: Of httpx, for example with certificates of one's own.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if plain_url(url) is None:
            where = shown(url.rpartition("@")[2])
            raise InvalidSetting(f"gateway {where}: give http://HOST:PORT or https://HOST, without user or query")
        if api_key is not None and not _HEADER_TEXT.fullmatch(api_key):
            raise InvalidSetting("api_key is empty, or has a character that no header takes: give printable ASCII")
        if not timeout_s > 0 or retries < 0:
            raise InvalidSetting(f"timeout_s is {timeout_s}, retries is {retries}: give above 0, and 0 or more")
        self._url, self._timeout_s, self._retries, self._sleep = url, timeout_s, retries, sleep
        self._headers, self._transport = {} if api_key is None else {"x-api-key": api_key}, transport
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        given: dict[str, Any] = {"headers": self._headers, "transport": self._transport}
        self._http = httpx.AsyncClient(base_url=self._url, limits=_LIMITS, **given)
        return self

    async def __aexit__(self, *_: object) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def predict(
        self,
        application: str,
        input: Any,  # noqa: A002 - the record's word, and the builtin is not wanted here
        *,
        query_id: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> HttpAnswer:
        """The answer to a query of one row.

        Args:
            application: Name of the application.
            input: One row: numbers, nested numbers, an array, text or bytes, as the application takes it.
            query_id: An id of the caller's own; an id that was asked before has the same answer again.
            options: Any of `timeout_s`, how long this call waits, and the `context`, `deadline_ms`, `models` and
                `features` of `clipper_stream.client.Client.predict`.
        """
        return await self._ask(application, {"input": input}, query_id, options)

    async def predict_many(
        self, application: str, inputs: Iterable[Any], **options: Unpack[HttpOptions]
    ) -> list[HttpAnswer]:
        """Ask one query an input, decided one by one; return the answers in order. The first error ends all calls."""
        asked = [asyncio.ensure_future(self.predict(application, row, **options)) for row in inputs]
        try:
            return await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()

    async def predict_packed(
        self, application: str, inputs: Iterable[Any], *, query_id: str | None = None, **options: Unpack[HttpOptions]
    ) -> HttpAnswer:
        """Ask one query of several rows, decided together; further arguments are those of `predict`."""
        return await self._ask(application, {"inputs": [*inputs]}, query_id, options)

    async def feedback(
        self, query: HttpAnswer | str, *, context: str | None = None, **truth: Unpack[HttpTruth]
    ) -> None:
        """Say what was true about a query.

        Args:
            query: The answer, or the query's id.
            context: The query's context, where it is named by its id.
            truth: Exactly one of `label` (the true output; a list, one a row, for several rows), `loss` and `reward`
                (of the answer that was given, in [0, 1]).
        """
        about = {"query_id": query, "context": context}
        if isinstance(query, HttpAnswer):
            about = {name: getattr(query, name) for name in ("query_id", "application", "context")}
        await self._exchange("POST", "/v1/feedback", content=messages.body_of(about | truth), headers=_JSON)

    async def query(
        self, query_id: str, *, application: str | None = None, context: str | None = None, wait_s: float = 0.0
    ) -> QueryReport:
        """What the gateway knows of a query; `RequestRefused` with status 404 when it knows none.

        Args:
            query_id: Its id.
            application: Its application.
            context: Its context.
            wait_s: How long the gateway may wait for the answer, in seconds.
        """
        asked = {"application": application, "context": context, "wait_s": wait_s or None}
        params = {name: value for name, value in asked.items() if value is not None}
        path, limit_s = f"/v1/queries/{quote(query_id, safe='')}", self._timeout_s + wait_s
        found = await self._exchange("GET", path, query_id, limit_s, params=params)
        is_decided = found.status_code != httpx.codes.ACCEPTED
        return messages.read(messages.read_report, found.content) if is_decided else QueryReport()

    async def _ask(
        self, application: str, rows: dict[str, Any], query_id: str | None, options: HttpOptions
    ) -> HttpAnswer:
        started_s, query_id = time.perf_counter(), uuid.uuid4().hex if query_id is None else query_id
        limit_s = options.pop("timeout_s", None)
        given = {name: value for name, value in options.items() if value is not None}
        body = messages.body_of({"query_id": query_id, **rows, **given})
        # an id that no header can hold is in the body only
        headers = _JSON | ({"idempotency-key": query_id} if _HEADER_TEXT.fullmatch(query_id) else {})
        path = f"/v1/applications/{quote(application, safe='')}/predict"
        found = await self._exchange("POST", path, query_id, limit_s, content=body, headers=headers)
        return messages.read_answer(found.content, time.perf_counter() - started_s)

    async def _exchange(
        self, method: str, path: str, query_id: str | None = None, limit_s: float | None = None, **request: Any
    ) -> httpx.Response:
        """Send a request, again where that may help, and return an answer of 2xx."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        request["timeout"] = httpx.Timeout(None, connect=limit_s * CONNECT_SHARE)
        clock, attempt = asyncio.get_running_loop().time, 0
        problem: HttpProblem | None = None
        scope = asyncio.timeout_at(ends_s := clock() + limit_s)
        try:
            async with scope:
                while True:
                    if (http := self._http) is None:
                        raise GatewayUnavailable("the client is not open: use `async with HttpClient(...) as client`")
                    try:
                        return await self._attempt(http, method, path, query_id, request)
                    except HttpProblem as error:
                        problem, pause_s = error, _pause_s(attempt, error.retry_s)
                        if error.status not in RETRIED or attempt >= self._retries or clock() + pause_s >= ends_s:
                            raise
                    await self._sleep(pause_s)
                    attempt += 1
        except TimeoutError as error:
            if not scope.expired():
                raise
            late = AnswerTimeout(f"no answer of the gateway at {self._url} within {limit_s:g} s", query_id=query_id)
            raise problem or late from error

    async def _attempt(
        self, http: httpx.AsyncClient, method: str, path: str, query_id: str | None, request: dict[str, Any]
    ) -> httpx.Response:
        try:
            found = await http.request(method, path, **request)
        except httpx.RequestError as error:
            what = f"the gateway at {self._url} does not answer ({error!r}): does it run there?"
            raise GatewayUnavailable(what, query_id=query_id) from error
        if found.is_success:
            return found
        raise messages.problem_of(found.status_code, found.content, query_id, found.headers.get("retry-after", ""))


def _pause_s(attempt: int, retry_s: float | None) -> float:
    longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
    return (retry_s or 0.0) + random.uniform(longest_s / 2, longest_s)  # noqa: S311 - not for secrets


def _blocking(
    method: Callable[Concatenate[HttpClient, P], Awaitable[T]],
) -> Callable[Concatenate["SyncHttpClient", P], T]:
    """A method of `SyncHttpClient` that waits for one of `HttpClient`."""

    def call(self: "SyncHttpClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call(partial(method, self._client, *args, **kwargs))

    return wraps(method)(call)


class SyncHttpClient:
    """A client of one gateway whose calls block, for any number of threads.

        with SyncHttpClient("http://localhost:8080") as client:
            answer = client.predict("digits", [0.0, 0.5, 1.0])
            client.feedback(answer, label=3)

    It runs an `HttpClient` on an event loop in a thread of its own, and has its arguments, calls and errors.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = TIMEOUT_S, retries: int = RETRIES
    ) -> None:
        self._client = HttpClient(url, api_key=api_key, timeout_s=timeout_s, retries=retries)
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        with self._lock, ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal(name="clipper http client"))
            stack.enter_context(self._portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._portal = None
            self._stack.close()

    predict = _blocking(HttpClient.predict)
    predict_many = _blocking(HttpClient.predict_many)
    predict_packed = _blocking(HttpClient.predict_packed)
    feedback = _blocking(HttpClient.feedback)
    query = _blocking(HttpClient.query)

    def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        with self._lock:
            if self._portal is None:
                raise GatewayUnavailable("the client is not open: use `with SyncHttpClient(...) as client`")
            future = self._portal.start_task_soon(work)
        return future.result()
