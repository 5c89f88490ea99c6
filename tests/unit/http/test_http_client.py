"""What the HTTP client sends, when it sends again, and what each answer of a gateway becomes."""

import asyncio
import json
import logging

import httpx
import numpy as np
import pytest

from clipper_stream.answers import answer_of
from clipper_stream.errors import ClipperError, InvalidSetting
from clipper_stream.http import AccessDenied, AnswerTimeout, GatewayUnavailable, HttpClient, Overloaded, RequestRefused
from clipper_topics import codec
from clipper_topics.prediction import ModelAnswer, Prediction

URL = "http://gateway:8080"
KEY = "a-key-that-nobody-else-knows"
MODELS = [ModelAnswer(model="svm", version="2", propensity=0.25, output=3)]
PREDICTION = Prediction(query_id="order 7", application="digits", context="me", output=3, confidence=0.5, models=MODELS)
ANSWERED = httpx.Response(200, content=codec.predictions.encode(PREDICTION))
ANSWER = answer_of(codec.predictions.decode(ANSWERED.content), latency_s=0.5)


def problem(status, error="no", headers=None, **extra):
    return httpx.Response(status, json={"status": status, "error": error, **extra}, headers=headers)


class FakeGateway:
    """Gives each request the next answer, the last one again and again; an exception is raised, a function asked."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.pauses: list[float] = []

    async def __call__(self, request):
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        answer = answer if isinstance(answer, httpx.Response) else await answer()
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def client(self, url=URL, **settings):
        return HttpClient(url, transport=httpx.MockTransport(self), **{"sleep": self.sleep, **settings})

    async def sleep(self, pause_s):
        self.pauses.append(pause_s)

    @property
    def bodies(self):
        return [json.loads(request.content) for request in self.asked if request.content]


# --- what is sent -------------------------------------------------------------------------------------------------
async def test_each_call_is_one_request_with_escaped_names_and_an_id_in_a_header_where_one_can_hold_it():
    gateway = FakeGateway(ANSWERED)
    client = gateway.client(f"{URL}/clipper/", api_key=KEY)
    said = {"context": "me", "models": ("svm:2",), "deadline_ms": None}
    await client.predict("digits", np.array([0.5, 1.0]), query_id="order 7", **said)
    await client.predict_packed("a/b?c", iter([b"abc", None]), query_id="Bestellung-Ü")
    await client.predict("a", 1, query_id="a\r\nx-api-key: b")
    await client.feedback(ANSWER, label=np.int64(3))
    await client.feedback("3@41", context="me", ack=True, reward=0.5)
    await client.query(ANSWER, wait_s=0.5)
    await client.query("2@17/x", application="a b", context="me")
    assert [f"{request.method} {request.url.raw_path.decode()}" for request in gateway.asked] == [
        "POST /clipper/v1/applications/digits/predict",
        "POST /clipper/v1/applications/a%2Fb%3Fc/predict",
        "POST /clipper/v1/applications/a/predict",
        "POST /clipper/v1/feedback",
        "POST /clipper/v1/feedback",
        "GET /clipper/v1/queries/order%207?application=digits&context=me&wait_s=0.5",
        "GET /clipper/v1/queries/2%4017%2Fx?application=a+b&context=me&wait_s=0.0",
    ]
    assert gateway.bodies == [
        {"query_id": "order 7", "input": [0.5, 1.0], "context": "me", "models": ["svm:2"]},
        {"query_id": "Bestellung-Ü", "inputs": [{"base64": "YWJj"}, None]},
        {"query_id": "a\r\nx-api-key: b", "input": 1},
        {"query_id": "order 7", "application": "digits", "context": "me", "label": 3},
        {"query_id": "3@41", "context": "me", "ack": True, "reward": 0.5},
    ]
    assert [request.headers.get("idempotency-key") for request in gateway.asked] == ["order 7", *[None] * 6]
    assert {request.headers["x-api-key"] for request in gateway.asked} == {KEY}


async def test_each_query_has_an_id_of_its_own_and_its_answer_is_what_was_predicted():
    gateway = FakeGateway(ANSWERED)
    answers = await gateway.client().predict_many("digits", range(3), context="me")
    assert sorted(body["input"] for body in gateway.bodies) == [0, 1, 2]
    ids = [body["query_id"] for body in gateway.bodies]
    assert ids == [request.headers["idempotency-key"] for request in gateway.asked]
    assert len(set(ids)) == len(answers) == 3
    answer = answers[0]
    assert (answer.query_id, answer.output, answer.outputs, answer.policy) == ("order 7", 3, None, None)
    assert (answer.models, answer.missing, answer.context) == (tuple(MODELS), (), "me")
    assert answer.latency_s > 0


async def test_a_query_at_fault_raises_unless_the_client_wants_its_default():
    said = {"error": "no row of numbers", "query_id": "order 7", "reason": "invalid_input"}
    with pytest.raises(RequestRefused, match=r"answered 400: no row of numbers$") as caught:
        await FakeGateway(httpx.Response(400, json=said)).client().predict("digits", "text")
    assert caught.value.query_id == "order 7"
    gateway = FakeGateway(ANSWERED)
    await gateway.client(raise_refusals=False).predict("digits", "text")
    assert json.loads(gateway.asked[0].content)["strict"] is False


async def test_a_query_has_its_prediction_and_its_feedback_or_is_being_decided_or_is_unknown():
    given = {"query_id": "order 7", "label": 3, "outcome": "applied"}
    known = {"query_id": "order 7", "prediction": json.loads(ANSWERED.content), "feedback": [given]}
    gateway = FakeGateway(*(httpx.Response(200, json=each) for each in (known, {"query_id": "order 7"})), problem(404))
    client = gateway.client()
    found = await client.query(ANSWER)
    assert found.prediction == PREDICTION
    assert [(each.label, each.outcome) for each in found.feedback] == [(3, "applied")]
    assert (await client.query("order 7", application="digits")).prediction is None
    with pytest.raises(RequestRefused) as caught:
        await client.query("order 8", application="digits")
    assert (caught.value.status, caught.value.query_id) == (404, "order 8")


async def test_what_json_cannot_hold_is_refused_before_it_is_sent():
    gateway = FakeGateway(ANSWERED)
    with pytest.raises(RequestRefused, match="a value of type object cannot be sent"):
        await gateway.client().predict("digits", object())
    with pytest.raises(RequestRefused, match="cannot be written as JSON"):
        await gateway.client().feedback("3@41", label="\ud800")
    assert gateway.asked == []


# --- answers ------------------------------------------------------------------------------------------------------
ERRORS = {
    RequestRefused: [400, 404, 413, 415, 422],
    AccessDenied: [401, 403],
    Overloaded: [429],
    AnswerTimeout: [504],
    GatewayUnavailable: [302, 307, 500, 502, 503],
}


@pytest.mark.parametrize(("error", "status"), [(error, status) for error in ERRORS for status in ERRORS[error]])
async def test_each_status_is_an_error_of_its_kind_with_the_words_of_the_gateway(error, status):
    to = {"location": "http://elsewhere/"}
    gateway = FakeGateway(problem(status, "the field \x1b[31m is red", to, query_id="order 7"))
    with pytest.raises(error) as caught:
        await gateway.client(retries=2).predict("digits", 1)
    assert type(caught.value) is error
    assert str(caught.value) == rf"the gateway answered {status}: the field \x1b[31m is red"
    assert (caught.value.status, caught.value.query_id) == (status, "order 7")
    assert len(gateway.asked) == (3 if status in {429, 502, 503} else 1)
    assert {request.url.host for request in gateway.asked} == {"gateway"}


@pytest.mark.parametrize("body", [b"<html>nginx</html>", b"", b"[1]", b'{"error": 3}', b"[" * 100_000])
async def test_the_words_of_something_else_are_not_repeated(body):
    client = FakeGateway(httpx.Response(404, content=body), httpx.Response(200, content=body)).client()
    with pytest.raises(RequestRefused, match=r"answered 404: is this the URL of a gateway\?"):
        await client.predict("digits", 1)
    with pytest.raises(GatewayUnavailable, match=r"cannot be read .*: is this the URL of a gateway\?"):
        await client.predict("digits", 1)


@pytest.mark.parametrize("first", [httpx.ConnectError("refused"), httpx.ReadError("cut off"), problem(503)])
async def test_a_call_is_sent_again_under_its_id_where_that_may_help(first):
    gateway = FakeGateway(first, first, ANSWERED)
    assert (await gateway.client().predict("digits", 1)).output == 3
    assert len({request.headers["idempotency-key"] for request in gateway.asked}) == 1
    assert len(gateway.asked) == 3
    assert 0.05 <= gateway.pauses[0] <= 0.1 <= gateway.pauses[1] <= 0.2


@pytest.mark.parametrize(
    ("stated", "pauses"), [("3", [(3.05, 3.1)]), ("Thu, 26 Nov 2026 10:00:00 GMT", [(0.05, 0.1)]), ("9", [])]
)
async def test_a_pause_is_as_long_as_the_gateway_asks_for_within_the_time_of_the_call(stated, pauses):
    gateway = FakeGateway(problem(429, headers={"retry-after": stated}))
    with pytest.raises(Overloaded):
        await gateway.client(timeout_s=5, retries=1).predict("digits", 1)
    assert all(least <= pause <= most for pause, (least, most) in zip(gateway.pauses, pauses, strict=True))


async def test_no_answer_in_time_is_an_error_with_the_id_of_the_query():
    gateway = FakeGateway(asyncio.Event().wait)
    with pytest.raises(AnswerTimeout, match=r"did not answer within 0\.05 s: try again with the same") as caught:
        await gateway.client(timeout_s=60).predict("digits", 1, timeout_s=0.05)
    assert caught.value.query_id == gateway.bodies[0]["query_id"]
    assert isinstance(caught.value, TimeoutError)


async def test_the_time_of_a_call_includes_its_pauses_and_the_last_problem_is_told():
    gateway = FakeGateway(httpx.ConnectError("refused"))
    with pytest.raises(GatewayUnavailable, match=r"gateway:8080 does not answer .*refused.*does it run there"):
        await gateway.client(timeout_s=0.3, retries=100, sleep=asyncio.sleep).predict("digits", 1)
    assert 2 <= len(gateway.asked) <= 4, "after 0.05, 0.1 and 0.2 s at least"


async def test_the_first_error_ends_all_calls_of_many():
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def silent():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def refused():
        await began.wait()
        return problem(400)

    with pytest.raises(RequestRefused):
        await FakeGateway(silent, refused).client().predict_many("digits", [1, 2])
    await cancelled.wait()


async def test_a_closed_client_says_so():
    async with FakeGateway(ANSWERED).client() as client:
        pass
    with pytest.raises(GatewayUnavailable, match="the client was closed"):
        await client.predict("digits", 1)


# --- settings and the key -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "http://me:secret@a", "http://a/?x=secret"])
def test_a_url_that_is_no_gateways_is_refused_without_a_secret_in_the_message(url):
    with pytest.raises(InvalidSetting, match="give http://HOST:PORT or https://HOST") as caught:
        HttpClient(url)
    assert "me:secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "secreta\nb", "secretü", "secret "])
def test_a_key_that_is_no_header_is_refused_and_not_shown(key):
    with pytest.raises(InvalidSetting, match="give printable ASCII") as caught:
        HttpClient(URL, api_key=key)
    assert "secret" not in str(caught.value)


async def test_the_key_is_in_no_repr_error_or_log(caplog):
    caplog.set_level(logging.DEBUG)
    told = []
    for answer in (ANSWERED, problem(401), problem(503), httpx.ConnectError("refused"), httpx.Response(200)):
        client = FakeGateway(answer).client(api_key=KEY, retries=1)
        try:
            told.append(repr(await client.predict("digits", 1)))
        except ClipperError as error:
            told += [repr(client), str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    assert len(told) == 1 + 4 * 5
    assert KEY not in "\n".join([*told, caplog.text])
