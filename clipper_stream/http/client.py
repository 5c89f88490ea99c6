"""Asks a gateway for predictions and gives feedback, from asyncio and from threads.

Rules of this file:
- Every query has an id before it is sent, so that sending it again asks nothing twice; of feedback the first counts.
- The key is in one header of requests to the gateway, and in no error, log or `repr`; redirects are not followed.
"""

import asyncio
import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
import msgspec

from clipper_stream.answers import Answer, QueryOptions, Truth, all_answers, answer_of
from clipper_stream.blocking_client import BlockingClient, blocking, constructed_as
from clipper_stream.errors import InvalidSetting, shown
from clipper_stream.errors import plain as printable
from clipper_stream.http.errors import BY_STATUS, AnswerTimeout, GatewayUnavailable, HttpProblem, RequestRefused
from clipper_stream.http.query_status import QueryStatus
from clipper_stream.models.allowlist import plain_url
from clipper_topics import codec
from clipper_topics.plain_values import UNENCODABLE, plain

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts: doubled each time, less a random part of up to a half, so that clients do not come together."""
RETRIED = frozenset({None, 429, 502, 503})
"""Statuses of which a later attempt may have another: no connection, no room, a gateway that starts behind a proxy."""
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)
_HEADER_TEXT = re.compile(r"[!-~]+( [!-~]+)*")


class HttpOptions(QueryOptions, total=False):
    """What a call may say beside its application and its input; each may be left out."""

    timeout_s: float | None


class HttpClient:
    """A client of one gateway, for any number of concurrent calls on one event loop.

        async with HttpClient("http://localhost:8080") as client:
            answer = await client.predict("digits", [0.0, 0.5, 1.0])
            await client.feedback(answer, label=3)

    Calls raise the errors of `clipper_stream.http`; a URL or key that cannot be used is an `InvalidSetting`.

    Args:
        url: Of the gateway, `http://HOST:PORT` or `https://HOST`.
        api_key: The key, where the gateway asks for one.
        timeout_s: How long a call waits with all its attempts, in seconds, unless it says otherwise.
        raise_refusals: Whether a query at fault raises `RequestRefused`; else its answer is the default output.
        retries: Further attempts after no connection, 429, 502 or 503, each after as long as the gateway asks for.
        transport: Of httpx, for example with certificates of one's own.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 5,
        raise_refusals: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if plain_url(url) is None:
            where = shown(url.rpartition("@")[2])
            raise InvalidSetting(f"gateway {where}: give http://HOST:PORT or https://HOST, without user or query")
        if api_key is not None and not _HEADER_TEXT.fullmatch(api_key):
            raise InvalidSetting("api_key is empty, or has a character that no header takes: give printable ASCII")
        headers = {"content-type": "application/json"} | ({} if api_key is None else {"x-api-key": api_key})
        self._lenience: dict[str, Any] = {} if raise_refusals else {"strict": False}
        self._url, self._timeout_s, self._retries, self._sleep = url, timeout_s, retries, sleep
        self._http = httpx.AsyncClient(base_url=url, headers=headers, limits=_LIMITS, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def predict(
        self, application: str, input: Any, *, query_id: str | None = None, **options: Unpack[HttpOptions]  # noqa: A002
    ) -> Answer:  # fmt: skip
        """The answer to a query of one row.

        A `query_id` of the caller's own that was asked before has the same answer again. `timeout_s` is how long this
        call waits; all other arguments are those of `clipper_stream.client.Client.predict`.
        """
        return await self._ask(application, {"input": input}, query_id, options)

    async def predict_many(
        self, application: str, inputs: Iterable[Any], **options: Unpack[HttpOptions]
    ) -> list[Answer]:
        """Ask one query an input, decided one by one; return the answers in order. The first error ends all calls."""
        return await all_answers(self.predict(application, row, **options) for row in inputs)

    async def predict_packed(
        self, application: str, inputs: Iterable[Any], *, query_id: str | None = None, **options: Unpack[HttpOptions]
    ) -> Answer:
        """Ask one query of several rows, decided together; further arguments are those of `predict`."""
        return await self._ask(application, {"inputs": [*inputs]}, query_id, options)

    async def feedback(
        self, query: Answer | str, *, context: str | None = None, ack: bool = False, **truth: Unpack[Truth]
    ) -> None:
        """Say what was true about a query, or about the query with this id and context.

        Exactly one of `label` (the true output; a list, one a row, for several rows), and `loss` and `reward` (of the
        answer that was given, in [0, 1]) is given. With `ack`, what becomes of it is written, for `query` to tell.
        """
        about = {**_about(query, None, context), **({"ack": True} if ack else {}), **truth}
        await self._exchange("POST", "/v1/feedback", about["query_id"], content=_body_of(about))

    async def query(
        self,
        query: Answer | str,
        *,
        application: str | None = None,
        context: str | None = None,
        wait_s: float = 0.0,
    ) -> QueryStatus:
        """What became of a query, or of the query with this id, application and context, and of its feedback.

        The gateway waits for the answer at most `wait_s` seconds. Of a query that it does not know the error is a
        `RequestRefused` with status 404.
        """
        about = _about(query, application, context)
        query_id, params = about.pop("query_id"), about | {"wait_s": wait_s}
        path, limit_s = f"/v1/queries/{quote(query_id, safe='')}", self._timeout_s + wait_s
        found = await self._exchange("GET", path, query_id, limit_s, params=params)
        return _read(_queries.decode, found.content)

    async def _ask(self, application: str, rows: dict[str, Any], query_id: str | None, options: HttpOptions) -> Answer:
        started_s, query_id = time.perf_counter(), uuid.uuid4().hex if query_id is None else query_id
        limit_s = options.pop("timeout_s", None)
        given = {name: value for name, value in options.items() if value is not None}
        body = _body_of({"query_id": query_id, **rows, **given, **self._lenience})
        # an id that no header can hold is in the body only
        headers = {"idempotency-key": query_id} if _HEADER_TEXT.fullmatch(query_id) else {}
        path = f"/v1/applications/{quote(application, safe='')}/predict"
        found = await self._exchange("POST", path, query_id, limit_s, content=body, headers=headers)
        return answer_of(_read(codec.predictions.decode, found.content), latency_s=time.perf_counter() - started_s)

    async def _exchange(
        self, method: str, path: str, query_id: str | None = None, limit_s: float | None = None, **request: Any
    ) -> httpx.Response:
        """Send a request, again where that may help, and return an answer of 2xx."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        request["timeout"] = httpx.Timeout(None, connect=limit_s / 3)  # a host that drops packets is tried again
        clock, attempt = asyncio.get_running_loop().time, 0
        late = f"the gateway at {self._url} did not answer within {limit_s:g} s: try again with the same query_id"
        problem: HttpProblem = AnswerTimeout(late, query_id=query_id)
        scope = asyncio.timeout_at(ends_s := clock() + limit_s)
        try:
            async with scope:
                while not self._http.is_closed:
                    least_s = 0.0
                    try:
                        found = await self._http.request(method, path, **request)
                        if found.is_success:
                            return found
                        problem = _problem_of(found.status_code, found.content, query_id)
                        stated = found.headers.get("retry-after", "0")
                        least_s = float(stated) if stated.isdecimal() else 0.0
                    except httpx.RequestError as error:
                        what = f"the gateway at {self._url} does not answer ({error!r}): does it run there?"
                        problem = GatewayUnavailable(what, query_id=query_id)
                    longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
                    pause_s = least_s + random.uniform(longest_s / 2, longest_s)  # noqa: S311 - not for secrets
                    if problem.status not in RETRIED or attempt >= self._retries or clock() + pause_s >= ends_s:
                        raise problem
                    await self._sleep(pause_s)
                    attempt += 1
        except TimeoutError:  # of the scope, or the gateway's own
            raise problem from None
        raise GatewayUnavailable("the client was closed", query_id=query_id)


def _about(query: Answer | str, application: str | None, context: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {"query_id": query, "application": application, "context": context}
    if isinstance(query, Answer):
        given = {name: getattr(query, name) for name in given}
    return {name: value for name, value in given.items() if value is not None}


class SyncHttpClient(BlockingClient[HttpClient]):
    """A client of one gateway whose calls block; it has the arguments, calls and errors of `HttpClient`.

    with SyncHttpClient("http://localhost:8080") as client:
        answer = client.predict("digits", [0.0, 0.5, 1.0])
        client.feedback(answer, label=3)
    """

    @constructed_as(HttpClient.__init__)
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(HttpClient(*arguments, **options), GatewayUnavailable)

    predict = blocking(HttpClient.predict)
    predict_many = blocking(HttpClient.predict_many)
    predict_packed = blocking(HttpClient.predict_packed)
    feedback = blocking(HttpClient.feedback)
    query = blocking(HttpClient.query)


class _Problem(msgspec.Struct):
    error: str
    query_id: str | None = None


_queries = msgspec.json.Decoder(QueryStatus)
_problems = msgspec.json.Decoder(_Problem)


def _body_of(given: Mapping[str, Any]) -> bytes:
    try:
        ready = {name: [*map(plain, value)] if name == "inputs" else plain(value) for name, value in given.items()}
        return msgspec.json.encode(ready)
    except UNENCODABLE as error:
        raise RequestRefused(f"the request cannot be written as JSON: {error}") from error


def _read(decode: Callable[[bytes], T], content: bytes) -> T:
    try:
        return decode(content)
    except (ValueError, RecursionError) as error:
        raise GatewayUnavailable(f"the answer cannot be read ({error}): is this the URL of a gateway?") from error


def _problem_of(status: int, content: bytes, query_id: str | None) -> HttpProblem:
    """The error that an answer other than 2xx is; only words of a gateway are repeated."""
    try:
        found = _problems.decode(content)
    except (ValueError, RecursionError):
        found = _Problem("is this the URL of a gateway?")
    kind = BY_STATUS.get(status, RequestRefused if status // 100 == 4 else GatewayUnavailable)  # noqa: PLR2004
    text = f"the gateway answered {status}: {printable(found.error[:500])}"
    return kind(text, status=status, query_id=found.query_id or query_id)
