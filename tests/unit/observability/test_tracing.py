import os
import subprocess
import sys

import msgspec
import pytest
from builders.otlp import collecting

from clipper_agents.observability.batch_notes import BatchRun, QueuedRows, SentOutputs
from clipper_agents.observability.query_notes import ProcessedRecord
from clipper_agents.observability.span_exporter import batches
from clipper_agents.observability.tracing import LENGTH_BYTES, MOST_WAITING, TraceSink, start_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = f"00-{TRACE}-{PARENT}-01"
ENDPOINT, NOWHERE = "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"
EXPORTER = (sys.executable, "-P", "-m", "clipper_agents.observability.span_exporter")
AT_NS = 10**18


def processed(number=0, **changes):
    return ProcessedRecord(CONTEXT, "queries", 1, number, AT_NS, AT_NS + 5_000, {"clipper.rows": 2}, **changes)


def framed(*notes):
    value = msgspec.msgpack.encode(notes)
    return len(value).to_bytes(LENGTH_BYTES) + value


@pytest.fixture
def written(tmp_path):
    """A file, and a command that writes what it reads into it."""
    path = tmp_path / "notes"
    return path, (sys.executable, "-c", "import sys\nopen(sys.argv[1], 'wb').write(sys.stdin.buffer.read())", str(path))


def test_notes_are_written_in_order_and_all_of_them_at_the_end(written):
    path, command = written
    TraceSink(command).close()
    assert not path.exists(), "no process begins before there is a note"
    sink = TraceSink(command)
    for number in range(3_000):
        sink.put(processed(number))
    sink.close()
    with path.open("rb") as source:
        assert [note.offset for notes in batches(source) for note in notes] == [*range(3_000)]


@pytest.mark.parametrize("command", [("/nonexistent",), (sys.executable, "-c", "")], ids=["none", "one that ends"])
def test_an_exporter_that_does_not_run_loses_notes_and_nothing_else(command, caplog):
    sink = TraceSink(command)
    for number in range(5):
        sink.put(processed(number, error="x" * 100_000))
    sink.close()
    assert "traces are lost" in caplog.text


def test_notes_that_an_exporter_does_not_take_are_dropped_and_counted():
    sink = TraceSink((sys.executable, "-c", "import time\ntime.sleep(10)"))
    numbers = iter(range(4 * MOST_WAITING))
    while not sink.dropped:
        sink.put(processed(next(numbers)))
    assert sink.dropped == 1
    sink.close()


NO_TRACES = ({}, {ENDPOINT: ""}, *({ENDPOINT: NOWHERE, name: value} for name, value in (
    ("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"),
)))  # fmt: skip


@pytest.mark.parametrize("environ", NO_TRACES, ids=["nothing", "empty", "disabled", "no exporter"])
def test_nothing_is_recorded_unless_an_endpoint_says_where_to(environ):
    assert start_tracing("router", "r-0", environ) is None


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import clipper_agents.host.app, clipper_agents.router.app, clipper_stream.client
from clipper_agents.observability.tracing import start_tracer, start_tracing
print(start_tracing("router", "r-0"), start_tracer("gateway", "g-0"))
"""


def test_without_the_packages_nothing_is_recorded_and_the_log_says_what_to_install():
    environ = {**os.environ, ENDPOINT: NOWHERE}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None"]
    assert "clipper-stream[tracing]" in done.stderr


def exported(*notes, **environ):
    """The spans that a collector has when an exporter process has read these notes and ended."""
    with collecting() as collector:
        environ = {**os.environ, ENDPOINT: collector.root, **environ}
        subprocess.run([*EXPORTER, "router", "router-7", "text"], input=b"".join(notes), env=environ, check=True)
        return collector.spans


def test_a_note_is_a_span_with_the_ids_and_times_that_it_says_and_one_not_written_wholly_is_left_out():
    sent = SentOutputs(CONTEXT, "10f067aa0ba902b7", "outputs", 3, 8, AT_NS, AT_NS + 9)
    note = processed(4, span_id="00f067aa0ba902b7", error="undecodable")
    span, output = exported(framed(note, sent), framed(processed(2))[:-3])
    assert (span.service, span.name, span.kind) == ("clipper-router", "process queries", "CONSUMER")
    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, "00f067aa0ba902b7", PARENT)
    assert (span.start_ns, span.end_ns, span.is_error) == (AT_NS, AT_NS + 5_000, True)
    assert span.links == frozenset()
    assert span.attributes == {
        "clipper.rows": 2, "messaging.system": "kafka", "messaging.operation.name": "process",
        "messaging.operation.type": "process", "messaging.destination.name": "queries",
        "messaging.destination.partition.id": "1", "messaging.kafka.offset": 4, "error.type": "undecodable",
    }  # fmt: skip
    assert (output.name, output.kind, output.context) == ("send outputs", "PRODUCER", (TRACE, "10f067aa0ba902b7"))
    assert (output.parent_id, output.attributes["messaging.destination.partition.id"]) == (PARENT, "3")


def test_a_batch_is_a_trace_of_its_own_linked_with_its_sampled_rows_under_the_name_in_the_variables():
    others = CONTEXT.replace(TRACE, TRACE[::-1])
    queued = [QueuedRows("sum:1", context, 1, AT_NS, AT_NS + 10) for context in (CONTEXT, others)]
    times = AT_NS + 10, AT_NS + 20, AT_NS + 30, AT_NS + 40
    note = framed(BatchRun("sum:1", "requests.sum.1", 32, 5, 1, "", *times, queued))
    spans = exported(note, OTEL_SERVICE_NAME="shop", OTEL_TRACES_SAMPLER="parentbased_always_off")
    assert {span.service for span in spans} == {"shop"}, "no sampler drops what is sampled"
    (whole,) = [span for span in spans if span.name == "process requests.sum.1"]
    assert (whole.kind, whole.parent_id, whole.links) == ("CONSUMER", "", {(TRACE, PARENT), (TRACE[::-1], PARENT)})
    assert whole.attributes["messaging.batch.message_count"] == 5
    for trace_id in (TRACE, TRACE[::-1]):
        own = {span.name: span for span in spans if span.trace_id == trace_id}
        assert own.keys() == {"queue", "batch", "model"}
        assert (own["queue"].parent_id, own["batch"].parent_id) == (PARENT, PARENT)
        assert (own["model"].parent_id, own["batch"].links) == (own["batch"].span_id, {whole.context})
        assert [own[name].start_ns - AT_NS for name in ("queue", "batch", "model")] == [0, 10, 20]
        assert [own[name].end_ns - AT_NS for name in ("queue", "batch", "model")] == [10, 40, 30]
        assert own["batch"].attributes == {"clipper.model": "sum:1", "clipper.batch.rows": 32, "clipper.rows": 1}
