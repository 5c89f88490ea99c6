"""Answers and audits become records that every topic takes."""

import pytest
from builders.query_router import application, make_router, outputs_of
from unit.router.rig import AT_S, query

from clipper_agents.router.prediction_records import encode_answer, encode_audit
from clipper_stream.models.runner import explain
from clipper_stream.query import Failure, InFlightQuery, MissingModel, QueryAnswer
from clipper_topics import codec


def answer_of(outputs, *, packed=False, kind=codec.JSON, **changes):
    asked = query("q", rows=outputs, packed=packed, content_type=kind)
    return QueryAnswer(InFlightQuery(asked), None, outputs, AT_S, confidence=1.0)._replace(**changes)


def test_a_model_that_failed_is_in_the_record_with_why_though_another_answered():
    why = explain(ValueError("no such\ndigit " + "x" * 1000))
    failed = MissingModel("svm:1", 0.5, served=True, failure=Failure("error", why))
    answer = answer_of([1, 2], packed=True, missing=(failed,), served_propensity=0.5)
    written, value = encode_answer(answer, most_bytes=2000)
    found = codec.predictions.decode(value)
    assert (written, found.outputs) == (answer, [1, 2])
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
def test_an_answer_or_audit_that_no_record_holds_says_so_instead(output, kind, packed, why):
    default = None if output is LARGE else application(default_output=output)
    answer = answer_of([output], packed=packed, kind=kind, application=default)
    written, value = encode_answer(answer, most_bytes=600)
    found = codec.predictions.decode(value, codec.headers_of(kind))
    assert (written.default, found.default, found.reason) == (True, True, "errors")
    assert why in found.explanation
    assert (found.outputs if packed else found.output) == ([] if packed else None)

    router = make_router(application("app", ("a:1",), shadows={"s:1": 1.0}, volatile=("s:1",)))
    asked = router.receive([query("q", 3, content_type=kind)], AT_S).requests
    (audit,) = router.gather([outputs_of(one, lambda _: output) for one in asked if one.ref == "s:1"], AT_S).audits
    found = codec.audits.decode(encode_audit(audit, most_bytes=600), codec.headers_of(kind))
    (missing,) = found.missing
    assert (found.models, missing.model, missing.reason, missing.served) == ([], "s", "error", False)
    assert why in missing.explanation
