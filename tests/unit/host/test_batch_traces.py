import pytest
from builders.host import FunctionOfRow, asked
from builders.spans import CONTEXT, SAMPLED, UNSAMPLED, RecordedSpans, events
from opentelemetry.trace import SpanKind, StatusCode

from clipper_agents.host.batching import HostBatcher, read_request
from clipper_agents.host.engine import BatchTraces, HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_agents.observability.metrics import BatchMetrics, ProcessMetrics
from clipper_stream.batching.limits import Fixed
from clipper_stream.batching.window import Window
from clipper_topics.codec import RequestFrame, encode_frame
from clipper_topics.trace_context import TracedRows, traced_rows_header

DOUBLE = FunctionOfRow(lambda row: 2 * row)


class NoSink:
    def send(self, partition, pieces):
        """The outputs are safe at once."""

    def finish(self, origins):
        """Nobody asks."""


async def served(*frames, limit=4, model=DOUBLE, topic="requests"):
    """The spans of an engine that has served frames of rows, each with its traced rows."""
    recorder = RecordedSpans()
    core, traces = HostBatcher(Window(0.0), Fixed(limit)), BatchTraces(recorder, "sum:1", topic)
    observer = BatchMetrics(ProcessMetrics("host"), "sum", "1")
    predictor = Predictor(model, inline=True)
    engine = HostEngine(core, predictor, NoSink(), observer, traces=traces)
    await engine.submit([asked(rows, frame=number, **how) for number, (rows, how) in enumerate(frames)])
    engine.drain()
    await engine.run()
    return recorder.all


def traced(start, stop):
    return {"traced": (TracedRows(start, stop, CONTEXT),)}


async def test_the_sampled_rows_of_a_batch_have_a_span_with_its_stages():
    (span,) = await served(([1, 2], traced(1, 2)), ([3], {}))
    assert (span.name, span.kind, span.parent) == ("process requests", SpanKind.CONSUMER, CONTEXT)
    assert (span.context.trace_id, span.status.status_code) == (CONTEXT.trace_id, StatusCode.UNSET)
    assert dict(span.attributes) == {"clipper.model": "sum:1", "clipper.batch.rows": 3, "clipper.rows": 1}
    assert events(span) == ["batch", "model", "outputs"]
    times = [event.timestamp for event in span.events]
    assert [span.start_time, *times, span.end_time] == sorted([span.start_time, *times, span.end_time])
    assert await served(([1, 2], {}), ([3], {})) == [], "without a sampled row"


async def test_a_model_in_a_router_has_a_span_of_its_own():
    (span,) = await served(([1], traced(0, 1)), topic="")
    assert (span.name, span.kind, span.parent) == ("model", SpanKind.INTERNAL, CONTEXT)


async def test_rows_of_one_query_have_a_span_for_each_batch_that_they_are_in():
    spans = await served(([1, 2, 3, 4, 5], traced(1, 4)), limit=2)
    assert [(span.attributes["clipper.batch.rows"], span.attributes["clipper.rows"]) for span in spans] == [
        (2, 1),
        (2, 2),
    ]


@pytest.mark.parametrize(
    ("rows", "deadline", "error", "stages"),
    [("no number", {}, "ValueError", ["batch", "model", "outputs"]), (1, {"deadline_s": 1.0}, "late", [])],
)
async def test_a_model_that_fails_and_rows_that_are_late_are_errors_of_their_span(rows, deadline, error, stages):
    (span,) = await served(([rows], {**traced(0, 1), **deadline}), model=FunctionOfRow(int))
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, error)
    assert (events(span), span.attributes.get("clipper.rows.failed")) == (stages, 1 if stages else None)


NOT_VALID = f"00-{'0' * 32}-{'0' * 16}-01"
FORMS = ["", "1,2,", "\xff", "0,1,00-1-2-01", f"-1,2,{SAMPLED[:-1]}", f"0,1,{UNSAMPLED}", f"0,1,{NOT_VALID}"]


@pytest.mark.parametrize("header", [*(form.encode("latin-1") for form in FORMS), None])
def test_a_header_of_another_form_names_no_rows(header):
    frame = encode_frame(RequestFrame(router=b"r", frame=1, reply=0, dtype="json", shape=[1], rows=[1]))
    assert read_request(frame, 1, [("clipper-traces", header)]).traced == ()
    rows = TracedRows(0, 1, CONTEXT)
    assert traced_rows_header([rows]) == [("clipper-traces", f"0,1,{SAMPLED}".encode())]
    assert read_request(frame, 1, traced_rows_header([rows])).traced == (rows,)
