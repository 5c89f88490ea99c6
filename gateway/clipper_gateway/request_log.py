"""What is written about each request: a line of JSON, and metrics.

    {"at":"2026-11-26T10:00:00.123456Z","method":"POST","route":"/v1/applications/{name}/predict","application":"digits",
     "status":200,"ms":4.1,"caller":"shop","request_id":"7f1c...","peer":"127.0.0.1"}

Rules of this file:
- Text from outside is in it as JSON has it, shortened and escaped: nothing can begin a line of its own, or be obeyed by
  a terminal. No header is in it.
- What a page brings along (`QUIET`) is counted, and has a line only where it failed.
- Lines are written together, at most `FLUSH_S` late: a write for each request would be a tenth of its price.
"""

import asyncio
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import IO

import msgspec

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_gateway.served_call import ServedCall
from clipper_stream.errors import plain

FLUSH_S = 0.05
TEXT_CHARACTERS = 128
QUIET = "/console/static/"


class RequestLog:
    """Writes about requests to a stream and into metrics."""

    def __init__(self, metrics: ProcessMetrics, applications: Collection[str], stream: IO[bytes] | None = None) -> None:
        self._metrics, self._applications = metrics, applications
        self._stream = sys.stderr.buffer if stream is None else stream
        self._lines: list[str] = []
        self._encode = msgspec.json.Encoder().encode

    def write(self, call: ServedCall) -> None:
        application, took_s = call.application, time.perf_counter() - call.started_s
        known = application if application in self._applications else ""
        self._metrics.counter("clipper_gateway_requests_total", call.route, str(call.status), known).inc()
        self._metrics.histogram("clipper_gateway_request_seconds", call.route).observe(took_s)
        if call.route.startswith(QUIET) and call.status < 400:  # noqa: PLR2004 - of HTTP
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        line = {
            "at": datetime.now(UTC),
            "method": call.method[:16],
            "route": call.route,
            "application": application[:TEXT_CHARACTERS],
            "status": call.status,
            "ms": round(took_s * 1000, 2),
            "caller": call.caller.name,
            "request_id": call.request_id,
            "peer": call.peer,
        }
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
