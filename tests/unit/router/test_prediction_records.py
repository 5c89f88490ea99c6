"""Answers become prediction records that every topic takes."""

import pytest
from builders.query_router import application

from clipper_agents.router.prediction_records import encode_answer
from clipper_stream.models.runner import explain
from clipper_stream.query import DecodedQuery, Failure, InFlightQuery, MissingModel, QueryAnswer
from clipper_topics import codec


def answer_of(outputs, *, packed):
    query = DecodedQuery(query_id="0-1", application="digits", rows=outputs, queried_at_s=1.0, packed=packed)
    return QueryAnswer(InFlightQuery(query), None, outputs, 1.5, confidence=1.0)


def test_an_answer_that_fits_is_written_as_it_is():
    answer = answer_of([1, 2], packed=True)
    written, value = encode_answer(answer, most_bytes=1000)
    assert written is answer
    assert codec.predictions.decode(value).outputs == [1, 2]


def test_a_model_that_failed_is_in_the_record_with_why_though_another_answered():
    why = explain(ValueError("no such\ndigit " + "x" * 1000))
    failed = MissingModel("svm:1", 0.5, served=True, failure=Failure("error", why))
    _, value = encode_answer(answer_of([1], packed=False)._replace(missing=(failed,), served_propensity=0.5))
    (missing,) = codec.predictions.decode(value).missing
    assert (missing.model, missing.reason, len(missing.explanation)) == ("svm", "error", 500)
    assert missing.explanation.startswith("ValueError: no such digit xxx")


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_that_no_record_holds_becomes_a_default_with_the_reason(packed):
    written, value = encode_answer(answer_of(["x" * 1000], packed=packed), most_bytes=1000)
    found = codec.predictions.decode(value)
    assert (written.default, found.default, found.reason) == (True, True, "errors")
    assert "bytes, a record has at most 1000: ask for fewer rows at once" in found.explanation
    assert (found.outputs if packed else found.output) == ([] if packed else None)


@pytest.mark.parametrize("kind", [codec.JSON, codec.MSGPACK])
@pytest.mark.parametrize("output", [{(1, 2): 3}, 10**400], ids=["key", "integer"])
def test_an_output_that_cannot_be_written_becomes_a_default(output, kind):
    query = answer_of([output], packed=False).query._replace(content_type=kind)
    bad = QueryAnswer(InFlightQuery(query), application(default_output=output), [output], 1.5, confidence=1.0)
    _, value = encode_answer(bad)
    codec.predictions.decode(value, codec.headers_of(kind))
