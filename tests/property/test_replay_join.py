"""On any log the join says what a naive one says, however it is cut into lists and chunks and whatever memory holds."""

from typing import Any

import hypothesis.strategies as st
from builders.decision_logs import Log, answer, decided, joined, missing, naive, plain
from hypothesis import HealthCheck, given, settings
from msgspec import UNSET

from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.restore import RESTORE

IDS = [*(f"0-{number}" for number in range(4)), "order 7", "é", "9-1"]
PACKED = {"0-3", "é"}
"""Queries of several rows."""
VALUES = st.sampled_from([0, 1, 1.0, True, "1", "x", 0.5, None, [1, 2], [1, 2.0], [], {"a": 1}, 2**70, float("inf")])
PROPENSITY = st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5])
REFS = ["a:1", "b:1", "c:2"]
CONTEXTS = st.sampled_from([None, "u", "v"])
KINDS = st.sampled_from([codec.JSON, codec.JSON, codec.MSGPACK])


def uses(draw, refs, several, *, may_serve):
    """Answers and missing ones of these models."""
    found = []
    for ref in refs:
        served = draw(st.booleans()) if may_serve else False
        if draw(st.integers(0, 3)) == 0:
            found.append(missing(ref, draw(PROPENSITY), served=served))
        else:
            output = dict(output=UNSET, outputs=draw(st.lists(VALUES, min_size=2, max_size=2))) if several else {}
            one = answer(
                ref, draw(VALUES), draw(PROPENSITY), served=served, latency_ms=draw(st.sampled_from([0.0, 2.5]))
            )
            for name, value in output.items():
                setattr(one, name, value)
            found.append(one)
    return found


@st.composite
def predictions(draw):
    query_id = draw(st.sampled_from(IDS))
    several = query_id in PACKED
    asked = uses(draw, draw(st.lists(st.sampled_from(REFS), unique=True, max_size=3)), several, may_serve=True)
    changes = dict(context=draw(CONTEXTS), audited=draw(st.booleans()), query_offset=draw(st.integers(0, 1)))
    changes |= dict(features=draw(st.lists(st.sampled_from([0.5, -1.0, 2.0]), max_size=2)))
    if several:
        changes |= dict(output=UNSET, outputs=draw(st.lists(VALUES, min_size=2, max_size=2)))
    if draw(st.integers(0, 4)) == 0:
        changes |= dict(default=True, reason=draw(st.sampled_from(["late", "low_confidence"])))
    if draw(st.integers(0, 4)) == 0:
        changes |= dict(served_propensity=draw(st.sampled_from([None, 0.3])))
    if draw(st.integers(0, 5)) == 0:
        changes |= dict(policy=None)
    application = draw(st.sampled_from(["app", "app", "app", "other"]))
    return decided(query_id, *asked, application=application, **changes)


@st.composite
def audits(draw):
    query_id, refs = draw(st.sampled_from(IDS)), draw(st.lists(st.sampled_from(REFS), unique=True, max_size=3))
    asked = uses(draw, refs, query_id in PACKED, may_serve=False)
    return Audit(
        query_id=query_id,
        models=[one for one in asked if not hasattr(one, "reason")],
        missing=[one for one in asked if hasattr(one, "reason")],
        query_offset=draw(st.integers(0, 1)),
    )


@st.composite
def told(draw):
    truth = draw(st.sampled_from(["label", "label", "labels", "loss", "reward"]))
    content = {
        "label": lambda: dict(label=draw(VALUES)),
        "labels": lambda: dict(label=draw(st.lists(VALUES, max_size=2))),
        "loss": lambda: dict(loss=draw(st.sampled_from([0.0, 0.25, 1.0]))),
        "reward": lambda: dict(reward=draw(st.sampled_from([0.0, 0.3, 1.0]))),
    }[truth]()
    application = draw(st.sampled_from([None, None, "app", "other"]))
    return Feedback(query_id=draw(st.sampled_from(IDS)), application=application, context=draw(CONTEXTS), **content)


def encodable(content, kind):
    codecs: dict[str, Any] = {"Prediction": codec.predictions, "Audit": codec.audits, "Feedback": codec.feedback}
    try:
        codecs[type(content).__name__].encode(content, kind)
    except (OverflowError, ValueError):
        return False
    return True


@st.composite
def logs(draw):
    log, at_ms = Log(partition=0), 0
    for content in draw(st.lists(st.one_of(predictions(), audits(), told(), told()), max_size=25)):
        kind = draw(KINDS)
        at_ms += draw(st.sampled_from([0, 1, 1_000, 5_000]))
        if encodable(content, kind):
            marker = isinstance(content, Feedback) and draw(st.integers(0, 9)) == 0
            log.add(content, kind=kind, at_ms=at_ms, headers=[(RESTORE, b"r-1")] if marker else [])
    return log


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    log=logs(),
    loss_kind=st.sampled_from(["zero_one", "absolute", "squared"]),
    lists_of=st.integers(1, 9),
    chunk_rows=st.sampled_from([1, 2, 7, 1_000]),
    memory=st.sampled_from([1, 3, 1_000]),
    horizon_ms=st.sampled_from([0.0, 5_000.0, float("inf")]),
)
def test_the_join_of_any_log_is_the_naive_one(log, loss_kind, lists_of, chunk_rows, memory, horizon_ms):
    columns, _ = joined(
        log,
        loss_kind=loss_kind,
        lists_of=lists_of,
        chunk_rows=chunk_rows,
        most_in_memory=memory,
        horizon_ms=horizon_ms,
    )
    assert plain(columns) == naive(log, loss_kind=loss_kind, horizon_ms=horizon_ms)
