"""What the HTTP client sends, when it sends again, and what each answer of a gateway becomes."""

import asyncio
import json
import logging

import httpx
import numpy as np
import pytest

from clipper_stream.errors import ClipperError, InvalidSetting, RequestError, SetupError
from clipper_stream.http import (
    AccessDenied,
    AnswerTimeout,
    GatewayUnavailable,
    HttpClient,
    Overloaded,
    RequestRefused,
    errors,
)
from clipper_topics import codec
from clipper_topics.prediction import ModelAnswer, Prediction

URL = "http://gateway:8080"
KEY = "a-key-that-nobody-else-knows"
MODELS = [ModelAnswer(model="svm", version="2", propensity=0.25, output=3)]
PREDICTION = Prediction(query_id="order 7", application="digits", context="me", output=3, confidence=0.5, models=MODELS)
ANSWERED = httpx.Response(200, content=codec.predictions.encode(PREDICTION))


def problem(status, error="no", headers=None, **extra):
    return httpx.Response(status, json={"status": status, "error": error, **extra}, headers=headers)


class FakeGateway(httpx.AsyncBaseTransport):
    """Gives each request the next answer, the last one again and again; an exception is raised."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.pauses: list[float] = []

    async def handle_async_request(self, request):
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return await answer(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def client(self, **settings):
        return HttpClient(URL, transport=self, sleep=self.sleep, **settings)

    async def sleep(self, pause_s):
        self.pauses.append(pause_s)
        await asyncio.sleep(0)

    @property
    def bodies(self):
        return [json.loads(request.content) for request in self.asked if request.content]


# --- what is sent -------------------------------------------------------------------------------------------------
async def test_a_query_is_posted_to_its_application_under_an_id_of_its_own():
    gateway = FakeGateway(ANSWERED)
    async with gateway.client(api_key=KEY) as client:
        answer = await client.predict("digits", np.array([0.5, 1.0]), context="me", models=("svm:2",), deadline_ms=None)
    (request,), (body,) = gateway.asked, gateway.bodies
    assert (request.method, str(request.url)) == ("POST", f"{URL}/v1/applications/digits/predict")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["idempotency-key"] == body.pop("query_id")
    assert body == {"input": [0.5, 1.0], "context": "me", "models": ["svm:2"]}
    assert (answer.query_id, answer.output, answer.outputs, answer.policy) == ("order 7", 3, None, None)
    assert (answer.models, answer.missing, answer.context) == (tuple(MODELS), (), "me")
    assert answer.latency_s > 0


async def test_rows_are_packed_into_one_query_or_are_queries_of_their_own():
    gateway = FakeGateway(ANSWERED)
    async with gateway.client() as client:
        await client.predict_packed("digits", iter([b"abc", None]), query_id="order 7")
        answers = await client.predict_many("digits", range(3), context="me")
    packed, *single = gateway.bodies
    assert packed == {"query_id": "order 7", "inputs": [{"base64": "YWJj"}, None]}
    assert sorted(body["input"] for body in single) == [0, 1, 2]
    assert len({body["query_id"] for body in single}) == len(answers) == 3


async def test_names_and_ids_are_escaped_and_an_id_that_is_no_header_is_in_the_body_only():
    gateway = FakeGateway(ANSWERED, ANSWERED, httpx.Response(202, json={"query_id": "a"}))
    async with gateway.client() as client:
        await client.predict("a/b?c", 1, query_id="Bestellung-Ü")
        await client.predict("a", 1, query_id="a\r\nx-api-key: b")
        await client.query("2@17/x", application="a b", context="me")
    assert gateway.asked[0].url.raw_path == b"/v1/applications/a%2Fb%3Fc/predict"
    assert gateway.bodies[0]["query_id"] == "Bestellung-Ü"
    assert not any("idempotency-key" in request.headers for request in gateway.asked)
    assert gateway.asked[2].url.raw_path == b"/v1/queries/2%4017%2Fx?application=a+b&context=me&wait_s=0.0"


async def test_feedback_names_the_query_by_its_answer_or_by_its_id():
    gateway = FakeGateway(ANSWERED, httpx.Response(202, json={"accepted": 1}))
    async with gateway.client() as client:
        answer = await client.predict("digits", 1)
        await client.feedback(answer, label=np.int64(3))
        await client.feedback("3@41", context="me", ack=True, reward=0.5)
    assert [request.url.path for request in gateway.asked[1:]] == ["/v1/feedback"] * 2
    assert gateway.bodies[1] == {"query_id": "order 7", "application": "digits", "context": "me", "label": 3}
    assert gateway.bodies[2] == {"query_id": "3@41", "context": "me", "ack": True, "reward": 0.5}


async def test_a_query_can_be_looked_up_by_its_answer_with_its_feedback():
    given = {"query_id": "order 7", "label": 3, "outcome": "applied"}
    known = {"query_id": "order 7", "prediction": json.loads(ANSWERED.content), "feedback": [given]}
    gateway = FakeGateway(ANSWERED, httpx.Response(200, json=known))
    async with gateway.client() as client:
        found = await client.query(await client.predict("digits", 1), wait_s=0.5)
    assert gateway.asked[1].url.raw_path == b"/v1/queries/order%207?application=digits&context=me&wait_s=0.5"
    assert found.prediction == PREDICTION
    assert [(each.label, each.outcome) for each in found.feedback] == [(3, "applied")]


async def test_a_query_that_is_being_decided_has_no_prediction_an_unknown_one_is_refused():
    gateway = FakeGateway(httpx.Response(202, json={"query_id": "order 7"}), problem(404))
    async with gateway.client() as client:
        assert (await client.query("order 7", application="digits")).prediction is None
        with pytest.raises(RequestRefused) as caught:
            await client.query("order 8", application="digits")
    assert (caught.value.status, caught.value.query_id) == (404, "order 8")


async def test_what_json_cannot_hold_is_refused_before_it_is_sent():
    gateway = FakeGateway(ANSWERED)
    async with gateway.client() as client:
        with pytest.raises(RequestRefused, match="a value of type object cannot be sent"):
            await client.predict("digits", object())
        with pytest.raises(RequestRefused, match="cannot be written as JSON"):
            await client.feedback("3@41", label="\ud800")
    assert gateway.asked == []


# --- attempts -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "first", [httpx.ConnectError("refused"), httpx.ReadError("cut off"), problem(429), problem(502), problem(503)]
)
async def test_a_call_is_sent_again_under_its_id_where_that_may_help(first):
    gateway = FakeGateway(first, first, ANSWERED)
    async with gateway.client() as client:
        assert (await client.predict("digits", 1)).output == 3
    assert len({request.headers["idempotency-key"] for request in gateway.asked}) == 1
    assert len(gateway.asked) == 3
    assert 0.05 <= gateway.pauses[0] <= 0.1 <= gateway.pauses[1] <= 0.2


async def test_a_pause_is_as_long_as_the_gateway_asks_for_and_a_date_is_not_read():
    dated = {"retry-after": "Thu, 26 Nov 2026 10:00:00 GMT"}
    gateway = FakeGateway(problem(503, headers={"retry-after": "3"}), problem(429, headers=dated), ANSWERED)
    async with gateway.client() as client:
        await client.predict("digits", 1)
    assert 3.05 <= gateway.pauses[0] <= 3.1
    assert gateway.pauses[1] <= 0.2


async def test_a_pause_beyond_the_time_of_the_call_or_one_too_many_ends_it():
    gateway = FakeGateway(problem(429, headers={"retry-after": "9"}), problem(503))
    async with gateway.client(timeout_s=5, retries=2) as client:
        with pytest.raises(Overloaded, match="answered 429: no"):
            await client.predict("digits", 1)
        with pytest.raises(GatewayUnavailable):
            await client.predict("digits", 1)
    assert len(gateway.asked) == 1 + 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500, 504])
async def test_other_answers_are_not_asked_for_again(status):
    gateway = FakeGateway(problem(status))
    async with gateway.client() as client:
        with pytest.raises(errors.HttpProblem):
            await client.predict("digits", 1)
    assert len(gateway.asked) == 1


async def test_no_answer_in_time_is_an_error_with_the_id_of_the_query():
    async def silent(request):
        await asyncio.Event().wait()

    gateway = FakeGateway(silent)
    async with gateway.client(timeout_s=60) as client:
        with pytest.raises(AnswerTimeout, match=r"did not answer within 0\.05 s: try again with the same") as caught:
            await client.predict("digits", 1, timeout_s=0.05)
    assert caught.value.query_id == gateway.bodies[0]["query_id"]
    assert isinstance(caught.value, TimeoutError)


async def test_the_time_of_a_call_includes_its_pauses_and_the_last_problem_is_told():
    gateway = FakeGateway(httpx.ConnectError("refused"))
    client = HttpClient(URL, transport=gateway, timeout_s=0.3, retries=100)
    async with client:
        with pytest.raises(GatewayUnavailable, match=r"gateway:8080 does not answer .*refused.*does it run there"):
            await client.predict("digits", 1)
    assert 2 <= len(gateway.asked) <= 5


async def test_the_first_error_ends_all_calls_of_many():
    cancelled = []

    async def silent(request):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(request)

    async def refused(request):
        await asyncio.sleep(0)
        return problem(400)

    gateway = FakeGateway(silent, refused)
    async with gateway.client() as client:
        with pytest.raises(RequestRefused):
            await client.predict_many("digits", [1, 2])
        await asyncio.sleep(0)
    assert len(cancelled) == 1


async def test_a_closed_client_says_so():
    gateway = FakeGateway(ANSWERED)
    async with gateway.client() as client:
        pass
    with pytest.raises(GatewayUnavailable, match="the client was closed"):
        await client.predict("digits", 1)


# --- errors -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RequestRefused),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, RequestRefused),
        (413, RequestRefused),
        (422, RequestRefused),
        (429, Overloaded),
        (307, GatewayUnavailable),
        (500, GatewayUnavailable),
        (503, GatewayUnavailable),
        (504, AnswerTimeout),
    ],
)
async def test_each_status_is_an_error_of_its_kind_with_the_words_of_the_gateway(status, expected):
    gateway = FakeGateway(problem(status, "the field \x1b[31m is red", query_id="order 7"))
    async with gateway.client(retries=0) as client:
        with pytest.raises(expected) as caught:
            await client.predict("digits", 1)
    assert str(caught.value) == rf"the gateway answered {status}: the field \x1b[31m is red"
    assert (caught.value.status, caught.value.query_id) == (status, "order 7")


@pytest.mark.parametrize("body", [b"<html>nginx</html>", b"", b"[1]", b'{"error": 3}', b"[" * 100_000])
async def test_the_words_of_something_else_are_not_repeated(body):
    gateway = FakeGateway(httpx.Response(404, content=body), httpx.Response(200, content=body))
    async with gateway.client() as client:
        with pytest.raises(RequestRefused, match=r"answered 404: is this the URL of a gateway\?"):
            await client.predict("digits", 1)
        with pytest.raises(GatewayUnavailable, match=r"cannot be read .*: is this the URL of a gateway\?"):
            await client.predict("digits", 1)


def test_every_error_of_the_client_has_one_of_the_two_roots():
    own = [error for error in vars(errors).values() if isinstance(error, type) and error.__module__ == errors.__name__]
    assert len(own) == 6
    for error in set(own) - {errors.HttpProblem}:
        assert issubclass(error, ClipperError)
        assert issubclass(error, RequestError) != issubclass(error, SetupError)


# --- settings and the key -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "http://me:secret@a", "http://a/?x=secret"])
def test_a_url_that_is_no_gateways_is_refused_without_a_secret_in_the_message(url):
    with pytest.raises(InvalidSetting, match="give http://HOST:PORT or https://HOST") as caught:
        HttpClient(url)
    assert "me:secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "a\nb", "ü", " "])
def test_a_key_that_is_no_header_is_refused_and_not_shown(key):
    with pytest.raises(InvalidSetting, match="give printable ASCII") as caught:
        HttpClient(URL, api_key=f"secret{key}" if key else key)
    assert "secret" not in str(caught.value)


async def test_a_path_before_the_gateway_is_kept():
    gateway = FakeGateway(ANSWERED)
    async with HttpClient(f"{URL}/clipper/", transport=gateway) as client:
        await client.predict("digits", 1)
    assert gateway.asked[0].url.path == "/clipper/v1/applications/digits/predict"


async def test_the_key_is_in_no_repr_error_or_log(caplog):
    caplog.set_level(logging.DEBUG)
    told = []
    for answer in (ANSWERED, problem(401), problem(503), httpx.ConnectError("refused"), httpx.Response(200)):
        async with FakeGateway(answer).client(api_key=KEY, retries=1) as client:
            told.append(repr(client))
            try:
                told.append(repr(await client.predict("digits", 1)))
            except ClipperError as error:
                told += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    assert KEY not in "\n".join([*told, caplog.text])


async def test_a_redirect_is_not_followed_so_that_the_key_stays_here():
    gateway = FakeGateway(httpx.Response(302, headers={"location": "http://elsewhere/"}))
    async with gateway.client(api_key=KEY) as client:
        with pytest.raises(GatewayUnavailable, match="answered 302"):
            await client.predict("digits", 1)
    assert len(gateway.asked) == 1
