"""What is written about each request: a line of JSON, and metrics; and what of its headers goes into records.

    {"at":"2026-11-26T10:00:00.123Z","method":"POST","route":"/v1/applications/{name}/predict","application":"digits",
     "status":200,"ms":4.1,"caller":"shop","request_id":"7f1c...","peer":"127.0.0.1"}

Rules of this file:
- Text from outside is in it as JSON has it, shortened and escaped: nothing can begin a line of its own, or be obeyed by
  a terminal. No header is in it.
- Lines are written together, at most `FLUSH_S` late: a write for each request would be a tenth of its price.
"""

import asyncio
import re
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import IO

import msgspec

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_stream.errors import plain
from clipper_topics.query_ids import random_hex

FLUSH_S = 0.05
TEXT_CHARACTERS = 128
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, level 1."""
CLIENT_GONE = 499
"""In logs, metrics and spans: nobody was there any more to read the answer."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

RecordHeaders = list[tuple[str, bytes]]


class AccessLine(msgspec.Struct, frozen=True):
    """One request; times in milliseconds."""

    at: str
    method: str
    route: str
    application: str
    status: int
    ms: float
    caller: str
    request_id: str
    peer: str


class RequestLog:
    """Writes about requests to a stream and into metrics."""

    def __init__(self, metrics: ProcessMetrics, applications: Collection[str], stream: IO[bytes] | None = None) -> None:
        self._metrics, self._applications = metrics, applications
        self._stream = sys.stderr.buffer if stream is None else stream
        self._lines: list[str] = []
        self._second, self._prefix = 0, ""
        self._encode = msgspec.json.Encoder().encode

    def write(
        self,
        *,
        method: str,
        route: str,
        application: str,
        status: int,
        took_s: float,
        caller: str,
        request_id: str,
        peer: str,
    ) -> None:
        """Note a request that has ended."""
        known = application if application in self._applications else ""
        self._metrics.counter("clipper_gateway_requests_total", route, str(status), known).inc()
        self._metrics.histogram("clipper_gateway_request_seconds", route).observe(took_s)
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        now_s = time.time()
        if now_s >= self._second + 1:
            self._second = int(now_s)
            self._prefix = datetime.fromtimestamp(self._second, UTC).isoformat()[:-6]
        moment = f"{self._prefix}.{int((now_s - self._second) * 1000):03d}Z"
        shown = application[:TEXT_CHARACTERS]
        line = AccessLine(moment, method[:16], route, shown, status, round(took_s * 1000, 2), caller, request_id, peer)
        self._lines.append(plain(self._encode(line).decode()))

    def flush(self) -> None:
        """Write what waits; a stream that takes nothing any more costs no request its answer."""
        lines, self._lines = self._lines, []
        self._metrics.keep("application", self._applications)
        try:
            self._stream.write("".join([line + "\n" for line in lines]).encode())
            self._stream.flush()
        except (OSError, ValueError):
            return


def checked_request_id(given: str | None) -> str:
    """Return the request's id: its own when it is printable ASCII without spaces, at most 128 characters.

    >>> checked_request_id("order-7")
    'order-7'
    """
    return given if given is not None and _REQUEST_ID.fullmatch(given) else random_hex()


def record_headers(traceparent: str | None, request_id: str | None) -> RecordHeaders:
    """Return the headers of the records of a request; what has another form is left out.

    >>> record_headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a b")
    [('traceparent', b'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')]
    """
    headers: RecordHeaders = []
    if traceparent is not None and TRACEPARENT.fullmatch(traceparent):
        headers.append(("traceparent", traceparent.encode()))
    if request_id is not None and _REQUEST_ID.fullmatch(request_id):
        headers.append(("correlation-id", request_id.encode()))
    return headers
