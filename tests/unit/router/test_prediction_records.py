"""Answers and audits become records that every topic takes."""

import pytest
from builders.query_router import application, make_router, outputs_of
from msgspec import UNSET
from unit.router.rig import AT_S, query

from clipper_agents.router import prediction_records
from clipper_agents.router.prediction_records import encode_answers, encode_audits
from clipper_stream.models.runner import explain
from clipper_topics import codec


def answers_of(outputs, *refs, packed=False, kind=codec.JSON, failed=None, **settings):
    """The answers to a query whose models say these outputs, but for those that failed, each with why."""
    router = make_router(application("app", refs or ("a:1",), volatile=refs or ("a:1",), **settings))
    rows = [[float(place)] for place in range(len(outputs))]
    requests = router.receive([query("q", rows=rows, packed=packed, content_type=kind)], AT_S).requests
    for one in requests:
        why = dict.fromkeys(range(len(outputs)), ("error", failed[one.ref])) if one.ref in (failed or {}) else None
        effects = router.gather([outputs_of(one, lambda row: outputs[int(row)], why)], AT_S)
    (answers,) = effects.effects.answers
    return answers


def test_a_model_that_failed_is_in_the_record_with_why_though_another_answered():
    why = explain(ValueError("no such\ndigit " + "x" * 1000))
    answers = answers_of([1, 2], "a:1", "svm:1", packed=True, failed={"svm:1": why})
    written, (value,) = encode_answers(answers)
    found = codec.predictions.decode(value)
    assert (written, found.outputs) == (answers, [1, 2])
    (missing,) = found.missing
    assert (missing.model, missing.reason, len(missing.explanation)) == ("svm", "error", 500)
    assert missing.explanation.startswith("ValueError: no such digit xxx")


KEY, LARGE, HUGE = {(1, 2): 3}, "x" * 1000, 10**400
FEWER, UNWRITABLE = "a record has at most 600: ask for fewer rows at once", "cannot be written"


@pytest.mark.parametrize(
    ("output", "kind", "packed", "why"),
    [
        (LARGE, codec.JSON, True, FEWER),
        (LARGE, codec.JSON, False, FEWER),
        (LARGE, codec.MSGPACK, False, FEWER),
        (KEY, codec.JSON, False, UNWRITABLE),
        (HUGE, codec.MSGPACK, False, UNWRITABLE),
    ],
    ids=repr,
)
def test_an_answer_or_audit_that_no_record_holds_says_so_instead(output, kind, packed, why, monkeypatch):
    monkeypatch.setattr(prediction_records, "MOST_BYTES", 600)
    default = {"default_output": None if output is LARGE else output}
    written, (value,) = encode_answers(answers_of([output], packed=packed, kind=kind, **default))
    found = codec.predictions.decode(value, codec.headers_of(kind))
    assert (written.failures[0].reason, found.default, found.reason) == ("errors", True, "errors")
    assert why in found.explanation
    assert (found.outputs if packed else found.output) == ([] if packed else None)

    router = make_router(application("app", ("a:1",), shadows={"s:1": 1.0}, volatile=("s:1",)))
    asked = router.receive([query("q", 3, content_type=kind)], AT_S).requests
    effects = router.gather([outputs_of(one, lambda _: output) for one in asked if one.ref == "s:1"], AT_S)
    ((value,),) = [encode_audits(some) for some in effects.effects.audits]
    found = codec.audits.decode(value, codec.headers_of(kind))
    (missing,) = found.missing
    assert (found.models, missing.model, missing.reason, missing.served) == ([], "s", "error", False)
    assert why in missing.explanation


@pytest.mark.parametrize("refs", [("a:1",), ("a:1", "b:1")], ids=["one model", "two models"])
@pytest.mark.parametrize("why", [None, ("error", "bad row")], ids=["answered", "failed"])
def test_a_packed_query_of_one_row_is_answered_by_a_list_alone_and_among_others(refs, why):
    """Its batch looks like one of queries that are not packed: one row each, as many models."""
    router = make_router(application("app", refs, volatile=refs, default_output=-1.0))
    packed = [True, False, True, False, True, True]
    queries = [query(f"q{place}", rows=[[float(place)]], packed=each) for place, each in enumerate(packed)]
    for request in router.receive(queries, AT_S).requests:
        failed = why and dict.fromkeys(range(len(request.rows)), why)
        effects = router.gather([outputs_of(request, lambda row: row, failed)], AT_S)
    (answers,) = effects.effects.answers
    found = [codec.predictions.decode(value) for value in encode_answers(answers)[1]]
    output = [float(place) if why is None else -1.0 for place in range(6)]
    assert [one.output for one in found] == [UNSET if packed[place] else output[place] for place in range(6)]
    assert [one.outputs for one in found] == [[output[place]] if packed[place] else UNSET for place in range(6)]
