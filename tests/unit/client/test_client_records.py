"""From what a caller says to the record to send, and from the record of an answer to what a caller sees."""

import numpy as np
import pytest
from msgspec import structs

from clipper_stream import http
from clipper_stream.answers import answer_of
from clipper_stream.client import Client, InvalidQuery, errors
from clipper_stream.client.client_records import partition_for, prepare_feedback, prepare_query
from clipper_stream.errors import ClipperError, InvalidSetting, RequestError, SetupError
from clipper_topics import codec
from clipper_topics.prediction import ModelAnswer, Prediction
from clipper_topics.query import Query
from clipper_topics.query_ids import partition_of

PREDICTION = Prediction(query_id="order", application="digits", context="me", output=3, confidence=0.5)
HOW = dict(partition=3, key=b"me", latency_s=0.5)
ANSWER = answer_of(PREDICTION, **HOW)


def feedback(query, context=None, **truth):
    return prepare_feedback(query, truth, context, 4, codec.JSON)


def test_an_answer_shows_the_models_that_gave_it_and_has_none_where_the_record_has_nothing():
    models = [ModelAnswer(model="svm", version="2", propensity=0.25, output=3)]
    answer = answer_of(structs.replace(PREDICTION, models=models), **HOW)
    assert "models=(ModelAnswer(model='svm', version='2', propensity=0.25, output=3" in repr(answer)
    assert "missing=" not in repr(answer)
    assert (ANSWER.output, ANSWER.outputs, ANSWER.policy, ANSWER.models) == (3, None, None, ())
    late = answer_of(structs.replace(PREDICTION, default=True, reason="late"), **HOW)
    assert [(one.default, one.reason) for one in (ANSWER, late)] == [(False, None), (True, "late")]


def test_a_query_keeps_its_own_id_or_gets_one_that_names_its_partition():
    prepared = prepare_query(Query(application="digits", input=[1]), 4, codec.JSON)
    assert partition_of(prepared.query_id) == prepared.partition == partition_for(prepared.key, 4)
    assert codec.queries.decode(prepared.value).query_id == prepared.query_id
    query = Query(application="digits", input=[1], query_id="order 7")
    assert prepare_query(query, 4, codec.JSON).query_id == "order 7"


def test_a_query_whose_text_is_none_is_refused():
    with pytest.raises(InvalidQuery, match="cannot be written as application/json"):
        prepare_query(Query(application="\ud800", input=1), 4, codec.JSON)


def test_feedback_goes_where_its_answer_or_its_id_or_else_its_context_says():
    prepared = feedback(ANSWER, label=np.int64(3))
    assert (prepared.partition, prepared.key) == (3, b"me")
    assert prepared.value == b'{"query_id":"order","application":"digits","context":"me","label":3}'
    assert (feedback("2@7", loss=0).partition, feedback("2@7", loss=0).key) == (2, None)
    by_context = feedback("order", context="me", loss=0)
    assert (by_context.partition, by_context.key) == (partition_for(b"me", 4), b"me")


def test_a_client_refuses_settings_that_it_cannot_use():
    with pytest.raises(InvalidSetting, match="send_timeout_s is 0"):
        Client("localhost:9092", send_timeout_s=0)


def test_a_timeout_names_its_query():
    late = errors.PredictionTimeout("no answer", "order 7")
    assert (str(late), late.query_id) == ("no answer", "order 7")


@pytest.mark.parametrize(("module", "count"), [(errors, 8), (http.errors, 5)])
def test_every_error_of_a_client_has_one_of_the_two_roots(module, count):
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    own = [error for error in own if error is not http.errors.HttpProblem]
    assert len(own) == count
    for error in own:
        assert issubclass(error, ClipperError)
        assert issubclass(error, RequestError) != issubclass(error, SetupError)
