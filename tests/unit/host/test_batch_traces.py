import pytest
from builders.host import FunctionOfRow, asked

from clipper_agents.host.batch_traces import UNTRACED, BatchTraces
from clipper_agents.host.batching import HostBatcher
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_agents.host.request_rows import RowSpan, read_request
from clipper_agents.observability.batch_notes import QueuedRows, SentOutputs
from clipper_agents.observability.metrics import BatchMetrics, ProcessMetrics
from clipper_stream.batching.registry import Fixed
from clipper_stream.batching.window import Window
from clipper_topics.frames import RequestFrame, encode_frame
from clipper_topics.trace_context import TracedRows, rows_in_header, trace_and_span, traced_rows_header

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = f"00-{TRACE}-{PARENT}-01"
DOUBLE = FunctionOfRow(lambda row: 2 * row)


class Notes(list):
    put = list.append


class NoSink:
    def send(self, partition, pieces):
        """The outputs are safe at once."""

    def finish(self, origins):
        """Nobody asks."""


async def served(*frames, limit=4, model=DOUBLE):
    """The notes of an engine that has served frames of rows, each with its traced rows."""
    notes = Notes()
    core, traces = HostBatcher(Window(0.0), Fixed(limit)), BatchTraces(notes, "sum:1", "requests")
    observer = BatchMetrics(ProcessMetrics("host"), "sum", "1")
    predictor = Predictor(model, inline=True)
    engine = HostEngine(core, predictor, NoSink(), observer, traces=traces)
    await engine.submit([asked(rows, frame=number, **how) for number, (rows, how) in enumerate(frames)])
    engine.drain()
    await engine.run()
    return notes


def traced(start, stop):
    return {"traced": (TracedRows(start, stop, CONTEXT),)}


async def test_a_batch_is_noted_with_its_rows_and_those_that_are_sampled():
    (note,) = await served(([1, 2], traced(1, 2)), ([3], {}))
    assert (note.model, note.topic, note.rows, note.frames, note.failed) == ("sum:1", "requests", 3, 2, 0)
    assert [(one.context, one.rows) for one in note.queued] == [(CONTEXT, 1)]
    assert note.queued[0].admitted_ns <= note.taken_ns <= note.began_ns <= note.ended_ns <= note.now_ns
    assert note.queued[0].ended_ns == note.taken_ns
    assert [span.name for span in note.spans()] == ["process requests", "queue", "batch", "model"]
    assert await served(([1, 2], {}), ([3], {})) == [], "without a sampled row"


async def test_rows_of_one_query_are_noted_with_each_batch_that_they_are_in():
    notes = await served(([1, 2, 3, 4, 5], traced(1, 4)), limit=2)
    assert [(note.rows, [one.rows for one in note.queued]) for note in notes] == [(2, [1]), (2, [2])]


async def test_a_model_that_fails_is_the_error_of_its_batch_and_late_rows_are_noted_as_such():
    (note,) = await served((["no number"], traced(0, 1)), model=FunctionOfRow(int))
    assert (note.failed, note.error) == (1, "ValueError")
    (note,) = await served(([1], {**traced(0, 1), "deadline_s": 1.0}))
    assert (type(note), note.error, note.context) == (QueuedRows, "late", CONTEXT)


def run_of(start, stop, *rows):
    return RowSpan(asked([0] * 9, traced=rows), start, stop)


def test_outputs_are_sent_in_a_span_of_their_own_whose_context_goes_with_them():
    notes, sent = Notes(), []
    traces = BatchTraces(notes, "sum:1", "requests")
    assert traces.sending(run_of(0, 2, TracedRows(5, 6, CONTEXT)), 0, sent) == []
    ((_, header),) = traces.sending(run_of(4, 9, TracedRows(5, 6, CONTEXT)), 1, sent)
    traces.sent("outputs", 3, [70, 71], sent)
    (note,) = notes
    assert isinstance(note, SentOutputs)
    assert (note.context, note.topic, note.partition, note.offset) == (CONTEXT, "outputs", 3, 71)
    (rows,) = rows_in_header(header)
    assert trace_and_span(rows.traceparent) == (TRACE, note.span_id)


def test_where_nothing_is_recorded_the_context_goes_on_as_it_came():
    sent = []
    ((_, header),) = UNTRACED.sending(run_of(4, 9, TracedRows(5, 6, CONTEXT)), 0, sent)
    assert (rows_in_header(header), sent) == ((TracedRows(5, 6, CONTEXT),), [])


@pytest.mark.parametrize("header", [b"", b"\xff", b"1,2,", b"0,1,00-1-2-01", b"-1,2," + CONTEXT.encode()[:-1]])
def test_a_header_of_another_form_names_no_rows(header):
    frame = encode_frame(RequestFrame(router=b"r", frame=1, reply=0, dtype="json", shape=[1], rows=[1]))
    assert read_request(frame, 1, [("clipper-traces", header)]).traced == ()
    rows = TracedRows(0, 1, CONTEXT)
    assert read_request(frame, 1, traced_rows_header([rows])).traced == (rows,)
