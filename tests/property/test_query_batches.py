"""Queries of a batch get, byte for byte, the predictions that they get each in a batch of its own."""

from collections import Counter

import msgspec
from builders.kafka import record
from builders.query_router import NOW_S, application, make_router, outputs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_agents.router.indexed_log import OutgoingRecords
from clipper_agents.router.prediction_records import encode_answers
from clipper_agents.router.queries import decode_queries
from clipper_stream.query import Failure
from clipper_topics import codec

MODELS = ("a:1", "b%b:1", "c:1")
APPLICATIONS = {
    "one": application('50 % "off" ü', MODELS, "exp3", volatile=("c:1",)),
    "vote": application("vote", MODELS, "exp4", volatile=("c:1",)),
    "mean": application("mean", MODELS, "exp4", combiner="mean", volatile=("c:1",)),
    "sure": application("sure", MODELS, "exp4", confidence_threshold=0.6),
}
VALUES = [0, 1, -1, 2**70, 0.1, 1e300, float("nan"), None, True, "text", 'q"%b\n\0ü', "\0hole\0", [1, "x"], {"%": None}]
OUTPUTS = st.sampled_from(VALUES)
IDS = st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="@"), min_size=1, max_size=9),
               min_size=8, max_size=20, unique=True)  # fmt: skip


def records_of(name, ids, kind, ages_s, deadlines_ms, *, traced):
    encode = (msgspec.json if kind == codec.JSON else msgspec.msgpack).encode
    for offset, (query_id, age_s, deadline_ms) in enumerate(zip(ids, ages_s, deadlines_ms, strict=False)):
        content = {"query_id": query_id, "application": name, "input": [float(offset % 5)]}
        if deadline_ms:
            content["deadline_ms"] = deadline_ms
        headers = [*codec.headers_of(kind), *([("traceparent", b"%d" % offset)] if traced else [])]
        at_ms = round((NOW_S - age_s) * 1000)
        yield record(offset, encode(content), key=query_id.encode(), headers=headers, timestamp=at_ms)


class Served:
    """What a router makes of records in batches or one by one: records and entries of the index by id, and counts."""

    def __init__(self, application, records, outputs, delays_s, *, together):
        several = [records] if together else [[one] for one in records]
        arriving = [batch for some in several for batch in decode_queries(some, 0)[0]]
        assert len(arriving) == len(several)
        self.router, self.predictions, self.counts = make_router(application), {}, Counter()
        effects = self.router.receive(arriving, NOW_S)
        self.take(effects)
        now_s = NOW_S
        for request in sorted(effects.requests, key=lambda one: one.ref):
            for row, delay_s in enumerate(delays_s[: len(request.rows)]):
                now_s += delay_s
                if (due_s := self.router.next_deadline_s) is not None and due_s <= now_s:
                    self.take(self.router.expire(now_s))
                output = outputs[(row + len(request.ref)) % len(outputs)]
                piece = outputs_of(request, lambda _, said=output: said, rows=(row, row + 1))
                if isinstance(output, Failure):
                    piece = outputs_of(request, None, {row: output}, (row, row + 1))
                self.take(self.router.gather([piece], now_s))
        self.take(self.router.expire(NOW_S + 1000.0))

    def take(self, effects):
        outgoing = []
        for some in effects.effects.answers:
            answers, values = encode_answers(some)
            outgoing.append(OutgoingRecords(some.batch, some.entries, values, some.batch.content_type, answers))
        for one in outgoing:
            written = zip(one.records(), one.index_entries(0), strict=True)
            self.predictions |= {key: (record, decided[2:]) for record, (key, *decided) in written}
        self.counts += Counter(effects.behind) + Counter(coalesced=effects.coalesced)
        self.counts += Counter(effects.hits) + Counter(effects.lookups) + Counter(effects.queries)


@settings(max_examples=200)
@given(
    application=st.sampled_from([*APPLICATIONS.values()]),
    ids=IDS,
    kind=st.sampled_from([codec.JSON, codec.MSGPACK]),
    ages_s=st.lists(st.sampled_from([0.0, 0.25, 0.9, 1.5, -5.0]), min_size=20, max_size=20),
    deadlines_ms=st.lists(st.sampled_from([None, None, 300, 10_000]), min_size=20, max_size=20),
    outputs=st.lists(OUTPUTS | st.builds(Failure, st.sampled_from(["late", "error"]), st.just("why")), min_size=1),
    traced=st.booleans(),
    delays_s=st.lists(st.sampled_from([0.0, 0.001, 0.05, 0.2]), min_size=20, max_size=20),
)
def test_the_records_are_those_of_batches_of_one(
    application, ids, kind, ages_s, deadlines_ms, outputs, delays_s, traced
):
    records = list(records_of(application.name, ids, kind, ages_s, deadlines_ms, traced=traced))
    together = Served(application, records, outputs, delays_s, together=True)
    alone = Served(application, records, outputs, delays_s, together=False)
    assert together.predictions == alone.predictions
    assert len(together.predictions) == len(ids)
    assert together.counts == alone.counts
    assert together.router.admission.waiting == alone.router.admission.waiting == 0
