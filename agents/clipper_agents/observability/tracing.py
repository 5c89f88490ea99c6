"""Traces of sampled queries: what a worker notes of them, on its way to an OpenTelemetry collector.

    notes --> a thread --pipe--> `span_exporter`, a process beside the worker: spans, the SDK --OTLP--> collector

Rules of this file:
- The sampled bit of a `traceparent` decides: for a query without it no clock is read, and nothing is kept.
- A worker notes what it knows when it is done with a query. To make spans of it by the SDK, and to encode them, takes
  a millisecond: that is done in another process, which begins with the first note. No thread of the SDK is in a worker.
- A query never waits for its trace: beyond `MOST_WAITING` the newest notes are dropped.
- The variables OTEL_... are read by the SDK. Whoever starts a trace samples it (the gateway, or an application), and no
  worker samples again. Without an endpoint, or without the packages, nothing is recorded.
"""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from queue import SimpleQueue
from random import getrandbits
from typing import Any, NamedTuple

import msgspec

from clipper_agents.observability.logging import event, writes_json

logger = logging.getLogger(__name__)

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"
"""Kinds of spans, as OpenTelemetry names them."""
MOST_WAITING = 20_000
"""Notes that wait for the pipe: ten megabytes or so."""
FLUSH_S = 1.0
"""Notes that are written together are cheaper, and an exporter waits longer by itself."""
END_WITHIN_S = 1.0
"""For what is left when a process ends: with a collector that is away, spans are lost and no time."""
AGAIN_S = 30.0
"""Between two starts of an exporter that does not run."""
LENGTH_BYTES = 4
THREAD = "traces"
"""Name of the thread that writes notes."""
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class TimedSpan(NamedTuple):
    """One span of a sampled trace, in hexadecimal ids and nanoseconds since the epoch.

    Attributes:
        span_id: Empty where no other span refers to it: the exporter gives it one.
        parent_id: Of a span in any process; empty for the root of a trace.
        links: Trace and span of each.
        error: What failed, in a word (`error.type`); empty where nothing did.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: Sequence[tuple[str, str]] = ()
    error: str = ""


def new_span_id() -> str:
    """Return a new id of a span: 16 hexadecimal digits, not all of them 0. `random` has another seed after a fork."""
    return f"{getrandbits(64) or 1:016x}"


class TraceSink:
    """Gives notes to an exporter process, from a thread that sleeps while there are none.

    Args:
        command: Begins the process, which reads batches on its standard input.

    Attributes:
        dropped: Notes for which there was no room, since that was last said in the log.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self.dropped = 0
        self._notes: SimpleQueue[msgspec.Struct | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._begun_s = -AGAIN_S
        self._ends = threading.Event()
        self._encode = msgspec.msgpack.Encoder().encode

    def put(self, note: msgspec.Struct) -> None:
        """Have spans made of a note, of those that the exporter knows, or drop it where too many wait."""
        if self._notes.qsize() < MOST_WAITING:
            self._notes.put(note)
        else:
            self.dropped += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what waits; return when it is sent, or after `END_WITHIN_S`."""
        self._ends.set()
        if self._thread is None:
            return
        end_s = time.monotonic() + END_WITHIN_S
        self._notes.put(None)
        self._thread.join(END_WITHIN_S)
        if self._process is not None and not self._thread.is_alive():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, end_s - time.monotonic()))

    def _run(self) -> None:
        found: list[msgspec.Struct | None] = []
        while None not in found:
            found = [self._notes.get()]
            self._ends.wait(FLUSH_S)
            found += [self._notes.get() for _ in range(self._notes.qsize())]
            if notes := [note for note in found if note is not None]:
                self._write(notes)
            if self.dropped:
                event(logger, "more is traced than can be sent", logging.WARNING, dropped=self.dropped)
                self.dropped = 0
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _write(self, notes: list[msgspec.Struct]) -> None:
        value = self._encode(notes)
        try:
            process = self._running()
            if process is not None and process.stdin is not None:
                process.stdin.write(len(value).to_bytes(LENGTH_BYTES) + value)
                process.stdin.flush()
        except OSError as error:
            event(logger, "traces are lost, their exporter does not run", logging.WARNING, reason=error)
            self._process = None

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._process is None and time.monotonic() - self._begun_s >= AGAIN_S:
            self._begun_s = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and a module of this package
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
            )
        return self._process


# --- the parts of one process -----------------------------------------------------------------------------------------
_open: list[Callable[[], object]] = []
"""What sends the rest at the end of the process."""


def start_tracing(role: str, instance: str, environ: Mapping[str, str] = os.environ) -> TraceSink | None:
    """Return where a worker puts its notes; None where nobody wants any."""
    if not _is_wanted(environ):
        return None
    logs = "json" if writes_json() else "text"
    sink = TraceSink((sys.executable, "-P", "-m", "clipper_agents.observability.span_exporter", role, instance, logs))
    _open.append(sink.close)
    return sink


def start_tracer(role: str, instance: str, environ: Mapping[str, str] = os.environ) -> Any | None:
    """Have this process start traces, as the variables say, and record them itself; its tracer, or None for nobody."""
    if not _is_wanted(environ):
        return None
    from clipper_agents.observability.span_exporter import make_provider, use  # noqa: PLC0415 - optional dependencies

    provider = make_provider(role, instance)
    _open.append(lambda: end_within(provider.shutdown))
    return use(provider)


def stop_tracing() -> None:
    """Send the spans that wait, in a second or so; for the end of a process."""
    while _open:
        _open.pop()()


def end_within(shutdown: Callable[[], object], seconds: float = END_WITHIN_S) -> None:
    """Call what may wait for a collector; return when it has, or after so many seconds."""
    thread = threading.Thread(target=shutdown, name="last spans", daemon=True)
    thread.start()
    thread.join(seconds)


def _is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether spans are wanted and can be sent: there is an endpoint, nothing is switched off, and the packages too."""
    if not any(map(environ.get, ENDPOINTS)) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    if find_spec("opentelemetry") is None or not all(map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter"))):
        text = "nothing is traced: install clipper-stream[tracing], or take OTEL_EXPORTER_OTLP_ENDPOINT away"
        event(logger, text, logging.WARNING)
        return False
    return True
