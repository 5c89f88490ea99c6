"""Whatever bytes come in: decoding raises its own errors only, and every query that can be read is answered."""

from contextlib import suppress

from bad_input import contents, frames, headers, manifests, request_frames, texts, values, written
from builders.kafka import record
from builders.query_router import Query, application, make_router
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import decode_feedback
from clipper_agents.host.batching import MOST_ROWS, read_request
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.prediction_records import encode_answers
from clipper_agents.router.queries import decode_queries
from clipper_stream.models.row_spec import LISTED, NUMERIC, RowSpec
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord, UnknownFrame, decode_output

CODECS = [one for one in vars(codec).values() if isinstance(one, codec.Codec)]


@settings(max_examples=400)
@given(contents, headers)
def test_bytes_are_a_record_of_each_kind_or_are_refused(value, around):
    for reader in CODECS:
        with suppress(UndecodableRecord):
            reader.decode(value, around)
    batches, undecodable = decode_queries([record(3, value, headers=around)], 0)
    assert sum(map(len, batches)) + len(undecodable) == 1
    with suppress(UndecodableRecord):
        assert decode_feedback(record(3, value, headers=around)).query_id


@given(frames, request_frames)
def test_bytes_are_a_frame_or_are_refused(value, request_frame):
    with suppress(UnknownFrame):
        decode_output(value or b"")
    for frame in (value, request_frame):
        with suppress(UnknownFrame):
            assert len(read_request(frame, 2).rows) <= MOST_ROWS


known_keys = st.sampled_from([b"application/app", b"model/a:1", b"application/", b"model/\xff"])
keys = st.one_of(st.none(), st.binary(max_size=12), known_keys)


@example([(b"application/app", b'{"name": "app", "models": ["a:1"]}', ())])
@given(st.lists(st.tuples(keys, st.one_of(contents, written(manifests)), headers), max_size=4))
def test_any_records_of_the_control_topic_leave_a_registry_that_answers(records):
    registry, known = ApplicationRegistry(), ControlState()
    registry.reached("a:1")
    for key, value, around in records:
        known.apply(key, value, around)
        registry.take([record(0, value, key, headers=around)])
    for app in registry.applications.values():
        _all_answered(make_router(app), [Query("0-1", "app", [[1.0]], 10.0)])


received = st.builds(
    Query,
    query_id=texts.filter(bool),
    partition=st.integers(0, 1),
    application=st.sampled_from(["app", "unknown"]),
    rows=st.lists(values, min_size=1, max_size=4),
    packed=st.sampled_from([True]),
    queried_at_s=st.floats(-1.0, 2**53),
    offset=st.integers(0, 2**63 - 1),
    context=st.none() | texts,
    deadline_s=st.none() | st.floats(0, 1e9),
    models=st.none() | st.lists(texts, min_size=1, max_size=3),
    content_type=st.sampled_from([codec.JSON, codec.MSGPACK]),
    invalid=st.none() | texts.filter(bool),
    raw=st.sampled_from([False]),
)
shapes = st.sampled_from([None, (), (1,), (2, 2)])
input_specs = st.builds(RowSpec, st.sampled_from(sorted({*NUMERIC, *LISTED} - {"table"})), shapes) | st.builds(
    RowSpec, st.just("table"), st.none(), st.sampled_from([[("a", "text")], [("a",), ("b", "date")]]), st.booleans()
)


def _all_answered(router, queries, now_s=20.0):
    """Each query is answered at once, by an outcome of its models, or at its deadline; and can be written down."""
    found = [router.receive(queries, now_s), router.expire(9.1e15)] if queries else []
    answers = [answer for seen in found for answer in seen.answers]
    first = {(query.partition, query.query_id, query.application) for query in queries}
    assert {(one.query.partition, one.query.query_id, one.query.application) for one in answers} == first
    assert len(answers) == len(first)
    for some in (some for seen in found for some in seen.effects.answers):
        written_answers, encoded = encode_answers(some)
        for entry, value in zip(some.entries, encoded, strict=True):
            assert codec.predictions.decode(value, codec.headers_of(some.batch.content_type)).default
            assert written_answers.failures[entry].explanation


@given(st.lists(received, max_size=5), input_specs, values)
def test_every_query_that_was_received_is_answered_once(queries, spec, default_output):
    app = application(refs=("sum:1", "b:1"), spec=spec, default_output=default_output)
    _all_answered(make_router(app), queries)
