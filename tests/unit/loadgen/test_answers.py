import msgspec
import pytest

from clipper_loadgen.run import AnswerStatus, decode_answer
from clipper_topics import codec
from clipper_topics.codec import JSON, MSGPACK, MSGPACK_HEADERS
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

PREDICTION = Prediction(
    query_id="3-41",
    application="digits",
    default=True,
    reason="late",
    policy=PolicyRef(name="exp3"),
    models=[ModelAnswer(model="m", version="1", propensity=0.5, output=[1.0, 2.0])],
)


@pytest.mark.parametrize(("kind", "headers"), [(JSON, ()), (MSGPACK, MSGPACK_HEADERS)])
def test_a_prediction_is_decoded_as_far_as_it_is_counted(kind, headers):
    value = codec.predictions.encode(PREDICTION, kind)
    assert decode_answer(value, headers) == AnswerStatus(query_id="3-41", default=True, reason="late")


@pytest.mark.parametrize("value", [None, b"", b"nonsense", b"[]", msgspec.json.encode({"application": "digits"})])
def test_bytes_that_are_no_prediction_are_passed_over(value):
    assert decode_answer(value, ()) is None
