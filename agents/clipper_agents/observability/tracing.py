"""Spans of sampled queries: where the tracer of a process comes from, and where its spans go.

    router, host, gateway --spans--> a queue of the SDK --its thread, OTLP--> collector

Rules of this file:
- Whoever starts a trace samples it (the gateway, or an application), and no worker samples again.
- Nothing waits for a collector: spans for which the queue has no room, and those that the collector does not take in
  time, are lost, and counted in `clipper_spans_lost_total`.
- The variables OTEL_... are read by the SDK. Without an endpoint, or without the packages, there is no tracer.
"""

import logging
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from opentelemetry import trace
from prometheus_client import Counter

from clipper_agents.observability.logging import event
from clipper_stream.errors import install_command

if TYPE_CHECKING:
    from clipper_agents.observability.span_exporter import SpanRecorder

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
END_WITHIN_S = 1.0
"""For what is left when a process ends: with a collector that is away, spans are lost and no time."""
_open: list[Callable[[], object]] = []
"""What sends the rest at the end of the process."""


def start_recorder(role: str, instance: str, lost: Counter) -> "SpanRecorder | None":
    """Return what records the spans of this process, of whatever is sampled; None where nobody wants any."""
    if not _is_wanted():
        return None
    from clipper_agents.observability.span_exporter import SpanQueue, SpanRecorder, resource_of  # noqa: PLC0415

    recorder = SpanRecorder(SpanQueue(lost), resource_of(role, instance))
    _open.append(recorder.queue.shutdown)
    return recorder


def start_tracer(role: str, instance: str, lost: Counter) -> trace.Tracer | None:
    """Have this process start traces by the sampler in the variables; its tracer, or None where nobody wants any."""
    recorder = start_recorder(role, instance, lost)
    if recorder is None:
        return None
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an optional dependency

    provider = TracerProvider(resource=recorder.resource, shutdown_on_exit=False)
    provider.add_span_processor(recorder.queue)
    trace.set_tracer_provider(provider)  # that of the client too
    return provider.get_tracer("clipper_stream")


def stop_tracing() -> None:
    """Send the spans that wait, in a second or so; for the end of a process."""
    while _open:
        thread = threading.Thread(target=_open.pop(), name="last spans", daemon=True)
        thread.start()
        thread.join(END_WITHIN_S)


def _is_wanted() -> bool:
    """Whether spans are wanted and can be sent: there is an endpoint, nothing is switched off, and the packages too."""
    environ = os.environ
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not any(map(environ.get, ENDPOINTS)):
        return False
    if not all(map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter"))):
        text = f"nothing is traced: {install_command('tracing')}, or take OTEL_EXPORTER_OTLP_ENDPOINT away"
        event(logger, text, logging.WARNING)
        return False
    return True
