"""One HTTP request, from its headers to its log line, by an application that echoes bodies."""

import io
import json

import httpx
import pytest
from starlette.responses import Response
from starlette.routing import Router

from clipper_agents.observability.metrics import GatewayMetrics
from clipper_gateway.access import ANYBODY, Caller
from clipper_gateway.errors import Refusal
from clipper_gateway.request_log import RequestLog
from clipper_gateway.rest import Endpoints
from clipper_stream.client import BrokerUnavailable, PredictionTimeout


class OneKey:
    """Access by the key `right`, or for anybody."""

    def __init__(self, *, is_open=False):
        self.is_open = is_open

    async def identify(self, authorization, api_key):
        if self.is_open:
            return ANYBODY
        if api_key != "right":
            raise Refusal(401, "no such key")
        return Caller(name="shop", applications=None, rights=frozenset({"predict"}))


async def echo(call):
    match call.body:
        case b"timeout":
            raise PredictionTimeout("no answer", "3-1")
        case b"broker":
            raise BrokerUnavailable("Kafka at 10.0.0.1 refuses ada")
        case b"defect":
            raise KeyError("secret")
    return Response(call.body, headers={"record": repr(call.record_headers)})


def admit(application):
    if application == "full":
        raise Refusal(429, "too many", retry_after_s=2.0)


@pytest.fixture
def lines():
    return io.BytesIO()


@pytest.fixture
def client(lines):
    return made_client(lines, OneKey())


def made_client(lines, access, origins=frozenset()):
    log = RequestLog(GatewayMetrics(), {"digits"}, lines)
    endpoints = Endpoints(access, log, 1024, origins)
    routes = [
        endpoints.route("/live", echo, method="GET", public=True),
        endpoints.route("/{name}/echo", echo, admit=admit),
    ]
    transport = httpx.ASGITransport(app=Router(routes, default=endpoints.unknown()))
    transport.log = log  # type: ignore[attr-defined]
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers={"x-api-key": "right"})


async def test_a_request_is_answered_and_logged_in_one_line(client, lines):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-request-id": "r-1", "traceparent": traceparent}
    found = await client.post("/digits/echo", content=b"hello", headers=headers)
    assert (found.status_code, found.content, found.headers["x-request-id"]) == (200, b"hello", "r-1")
    assert found.headers["record"] == repr([("traceparent", traceparent.encode()), ("correlation-id", b"r-1")])
    client._transport.log.flush()
    (line,) = lines.getvalue().splitlines()
    said = json.loads(line)
    assert {name: said[name] for name in ("method", "route", "application", "status", "caller", "request_id")} == {
        "method": "POST",
        "route": "/{name}/echo",
        "application": "digits",
        "status": 200,
        "caller": "shop",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/digits/echo", b"", {"x-api-key": "wrong"}, 401),
        ("/digits/echo", b"x" * 1025, {}, 413),
        ("/digits/echo", b"x", {"content-length": "-1"}, 413),
        ("/digits/echo", b"x", {"content-encoding": "gzip"}, 415),
        ("/full/echo", b"x", {}, 429),
        ("/digits/echo", b"timeout", {}, 504),
        ("/digits/echo", b"broker", {}, 503),
        ("/digits/echo", b"defect", {}, 500),
        ("/digits/echo", b"x", {"origin": "https://evil.example"}, 403),
    ],
)
async def test_a_refused_request_has_its_status_and_one_line(client, lines, path, body, headers, status):
    found = await client.post(path, content=body, headers=headers)
    assert found.status_code == status
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json()["error"]
    assert "secret" not in found.text
    assert "10.0.0.1" not in found.text
    client._transport.log.flush()
    assert [json.loads(line)["status"] for line in lines.getvalue().splitlines()] == [status]


async def test_the_rest_of_a_refusal_is_in_headers_and_body(client):
    assert (await client.post("/full/echo", content=b"x")).headers["retry-after"] == "2"
    assert (await client.post("/digits/echo", content=b"timeout")).json()["query_id"] == "3-1"


async def test_a_body_in_pieces_counts_until_it_is_too_large(client):
    async def pieces(count):
        for _ in range(count):
            yield b"x" * 100

    assert (await client.post("/digits/echo", content=pieces(10))).content == b"x" * 1000
    assert (await client.post("/digits/echo", content=pieces(11))).status_code == 413


async def test_a_header_that_decides_stands_once(client):
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    found = await client.post("/digits/echo", content=b"x", headers=headers)
    assert (found.status_code, "stands twice" in found.json()["error"]) == (400, True)


async def test_text_from_outside_begins_no_line_of_its_own(client, lines):
    await client.post('/a%0a{"status":200}/echo', content=b"x", headers={"x-request-id": "a b"})
    client._transport.log.flush()
    assert lines.getvalue().count(b"\n") == 1
    assert json.loads(lines.getvalue())["request_id"] != "a b"


async def test_an_unknown_path_and_another_method_are_refused_and_logged(client, lines):
    unknown, method = await client.get("/nowhere"), await client.get("/digits/echo")
    assert (unknown.status_code, method.status_code, method.headers["allow"]) == (404, 405, "POST")
    assert unknown.json()["status"] == 404
    assert method.json()["status"] == 405
    client._transport.log.flush()
    assert [json.loads(line)["status"] for line in lines.getvalue().splitlines()] == [404, 405]


async def test_who_needs_no_key_may_ask_for_probes_only(client):
    assert (await client.get("/live", headers={"x-api-key": "wrong"})).status_code == 200


async def test_a_page_of_another_site_may_not_call_what_is_open_here(lines):
    client = made_client(lines, OneKey(is_open=True), frozenset({"https://console.example"}))

    async def status(origin, host):
        headers = {"origin": origin, "host": host}
        return (await client.post("/digits/echo", content=b"x", headers=headers)).status_code

    assert await status("http://localhost:8080", "localhost:8080") == 200
    assert await status("https://console.example", "localhost:8080") == 200
    assert await status("https://evil.example", "localhost:8080") == 403
    assert await status("http://evil.example:8080", "evil.example:8080") == 403  # a name that leads to this machine
