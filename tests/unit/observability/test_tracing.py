import os
import subprocess
import sys
from socket import create_server
from types import SimpleNamespace

import pytest
from builders.otlp import collecting
from builders.spans import CONTEXT, PARENT, TRACE
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from clipper_agents.observability.tracing import start_recorder, start_tracer, stop_tracing

ENDPOINT, NOWHERE = "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"
AT_NS = 10**18


class Worker:
    """A process whose variables say where its spans go."""

    def __init__(self, endpoint, monkeypatch, **environ):
        for name, value in {ENDPOINT: endpoint, **environ}.items():
            monkeypatch.setenv(name, str(value))
        self._lost = Counter("lost", "Spans.", registry=None)
        self.recorder = start_recorder("router", "router-7", self._lost)

    @property
    def lost(self):
        return self._lost._value.get()

    def record(self, **attributes):
        span = self.recorder.begin("process queries", SpanKind.CONSUMER, CONTEXT, {"own": 1}, AT_NS)
        span.add_event("decided", {"clipper.model": "a:1"}, AT_NS + 1)
        span.end(attributes, AT_NS + 5)
        return span


NO_TRACES = ({}, {ENDPOINT: ""}, *({ENDPOINT: NOWHERE, name: value} for name, value in (
    ("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"),
)))  # fmt: skip


@pytest.mark.parametrize("environ", NO_TRACES, ids=["nothing", "empty", "disabled", "no exporter"])
def test_nothing_is_recorded_unless_an_endpoint_says_where_to(environ, monkeypatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    lost = Counter("lost", "Spans.", registry=None)
    assert (start_recorder("router", "r-0", lost), start_tracer("gateway", "g-0", lost)) == (None, None)


WITHOUT = """
import sys
sys.modules["opentelemetry.sdk"] = None
import clipper_agents.host.app, clipper_agents.router.app, clipper_stream.client
from clipper_agents.observability.tracing import start_recorder, start_tracer
print(start_recorder("router", "r-0", None), start_tracer("gateway", "g-0", None))
"""


def test_without_the_packages_nothing_is_recorded_and_the_log_says_what_to_install():
    environ = {**os.environ, ENDPOINT: NOWHERE}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None"]
    assert "[tracing]'" in done.stderr


def test_a_collector_has_at_the_end_of_a_process_all_its_spans_as_they_were(monkeypatch):
    with collecting() as collector:
        worker = Worker(collector.root, monkeypatch, OTEL_TRACES_SAMPLER="always_off")
        ended = [worker.record(**about) for about in ({"clipper.rows": 2}, {"error.type": "late"})]
        stop_tracing()
        whole, failed = collector.spans
    assert (whole.service, whole.name, whole.kind) == ("clipper-router", "process queries", "CONSUMER")
    assert (whole.trace_id, whole.parent_id) == (TRACE, PARENT)
    assert [one.span_id for one in (whole, failed)] == [f"{span.context.span_id:016x}" for span in ended]
    assert (whole.start_ns, whole.end_ns, whole.events) == (AT_NS, AT_NS + 5, (("decided", AT_NS + 1),))
    assert (whole.attributes, whole.is_error) == ({"own": 1, "clipper.rows": 2}, False)
    assert (failed.attributes, failed.is_error) == ({"own": 1, "error.type": "late"}, True)
    assert worker.lost == 0


def test_spans_have_the_name_in_the_variables(monkeypatch):
    with collecting() as collector:
        worker = Worker(collector.root, monkeypatch, OTEL_SERVICE_NAME="shop")
        worker.record()
        stop_tracing()
        assert [span.service for span in collector.spans] == ["shop"]


def test_spans_that_a_collector_does_not_take_are_lost_and_counted(monkeypatch):
    worker = Worker(NOWHERE, monkeypatch, OTEL_EXPORTER_OTLP_TIMEOUT=0.1)
    for _ in range(3):
        worker.record()
    worker.recorder.queue.force_flush()
    assert worker.lost == 3
    stop_tracing()


def test_a_collector_that_never_answers_holds_nothing_up_and_what_has_no_room_is_counted(monkeypatch):
    room = {"OTEL_BSP_MAX_QUEUE_SIZE": 8, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 4}
    with create_server(("127.0.0.1", 0)) as silent:
        worker = Worker(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch, **room)
        for _ in range(8 + 4 + 3):  # a queue, what is being sent, and more
            worker.record()
        assert 3 <= worker.lost <= 3 + 4
        stop_tracing()


def test_spans_go_over_grpc_where_the_variables_say_so(monkeypatch):
    exporter = SimpleNamespace(OTLPSpanExporter=lambda: SimpleNamespace(shutdown=lambda: None))
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", exporter)
    worker = Worker(NOWHERE, monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert worker.recorder is not None
    stop_tracing()
