import asyncio

import pytest
from starlette.responses import Response
from starlette.routing import Router
from unit.gateway.rig import KeptLog, StubAccess, browser_of

from clipper_gateway.callers import Shares
from clipper_gateway.errors import Refusal
from clipper_gateway.rest import Endpoints
from clipper_gateway.served_call import ServedCall
from clipper_stream.client import BrokerUnavailable, PredictionTimeout

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


FAILURES = {
    b"timeout": PredictionTimeout("no answer", "3-1"),
    b"broker": BrokerUnavailable("Kafka at 10.0.0.1 refuses ada"),
    b"defect": KeyError("secret"),
}


async def echo(call):
    if call.body in FAILURES:
        raise FAILURES[call.body]
    return Response(call.body, headers={"record": repr(call.record_headers)})


def admit(application, caller):
    if application == "full":
        raise Refusal(429, "too many", retry_after_s=2.0, reason="overloaded")


class Served:
    """A client of such an application, and its log."""

    def __init__(self, access, origins=frozenset()):
        self.log, self.access = KeptLog({"digits"}), access
        endpoints = Endpoints(access, self.log, 1024, origins)
        live = endpoints.route("/live", echo, method="GET", public=True)
        routes = [live, endpoints.route("/{name}/echo", echo, admit=admit)]
        self.client = browser_of(Router(routes, default=endpoints.unknown()), **{"x-api-key": "predict"})

    async def post(self, content=b"x", path="/digits/echo", headers=()):
        return await self.client.post(path, content=content, headers=headers)


@pytest.fixture
def served():
    return Served(StubAccess())


async def test_a_request_is_answered_and_logged_in_one_line(served):
    found = await served.post(b"hello", headers={"x-request-id": "r-1", "traceparent": TRACE})
    assert (found.status_code, found.content, found.headers["x-request-id"]) == (200, b"hello", "r-1")
    assert found.headers["record"] == repr([("traceparent", TRACE.encode()), ("correlation-id", b"r-1")])
    about = {"method": "POST", "route": "/{name}/echo", "application": "digits", "status": 200, "caller": "shop"}
    (said,) = served.log.written()
    assert said.items() >= (about | {"request_id": "r-1"}).items()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "about"),
    [
        ("POST", "/digits/echo", b"", {"x-api-key": ""}, 401, {}),
        ("POST", "/digits/echo", b"x" * 1025, {}, 413, {"connection": "close"}),
        ("POST", "/digits/echo", b"x", {"content-length": "-1"}, 413, {}),
        ("POST", "/digits/echo", b"x", {"content-encoding": "gzip"}, 415, {}),
        ("POST", "/full/echo", b"x", {}, 429, {"retry-after": "2", "reason": "overloaded"}),
        ("POST", "/digits/echo", b"timeout", {}, 504, {"query_id": "3-1"}),
        ("POST", "/digits/echo", b"broker", {}, 503, {}),
        ("POST", "/digits/echo", b"defect", {}, 500, {}),
        ("POST", "/digits/echo", b"x", {"origin": "https://evil.example"}, 403, {}),
        ("POST", "/digits/echo", b"x", [("idempotency-key", "a"), ("idempotency-key", "b")], 400, {}),
        ("GET", "/nowhere", b"", {}, 404, {}),
        ("GET", "/digits/echo", b"", {}, 405, {"allow": "POST"}),
    ],
)
async def test_a_refused_request_has_its_status_and_one_line(served, method, path, body, headers, status, about):
    found = await served.client.request(method, path, content=body, headers=headers)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json")
    said = found.json()
    assert (said["status"], bool(said["error"])) == (status, True)
    assert ({**found.headers} | said).items() >= about.items()
    assert not any(secret in found.text for secret in ("secret", "10.0.0.1"))
    assert [line["status"] for line in served.log.written()] == [status]


async def test_a_file_of_a_page_is_counted_and_has_a_line_only_where_it_is_missing():
    log = KeptLog()
    for status in (200, 304, 404):
        log.write(ServedCall(method="GET", route="/console/static/{path:path}", status=status))
    assert [line["status"] for line in log.written()] == [404]


async def test_every_answer_keeps_a_browser_from_guessing_its_type(served):
    for path in ("/digits/echo", "/nowhere", "/full/echo"):
        assert (await served.post(path=path)).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("proxies", "peer"), [([], "127.0.0.1"), (["127.0.0.0/8"], "192.0.2.7")])
async def test_the_address_behind_a_trusted_proxy_is_the_peer(served, proxies, peer):
    served.access.shares = Shares(proxies=proxies)
    await served.post(headers={"x-forwarded-for": "6.6.6.6, 192.0.2.7"})
    assert [line["peer"] for line in served.log.written()] == [peer]


@pytest.mark.parametrize("is_stated", [True, False])
async def test_bodies_of_a_caller_wait_for_its_share(served, is_stated):
    bodies, content = served.access.shares.bodies, b"x" * 1_000

    async def in_pieces():
        yield content

    bodies.take("shop", bodies.of_caller - 500)
    waits = asyncio.ensure_future(served.post(content if is_stated else in_pieces()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waits.done()
    bodies.give_back("shop", bodies.of_caller - 500)
    assert (await waits).status_code == 200
    assert bodies.fits("shop", bodies.of_caller)


async def test_a_body_in_pieces_counts_until_it_is_too_large(served):
    async def pieces(count):
        for _ in range(count):
            yield b"x" * 100

    assert (await served.post(pieces(10))).content == b"x" * 1000
    assert (await served.post(pieces(11))).status_code == 413


async def test_text_from_outside_begins_no_line_of_its_own(served):
    await served.post(path='/a%0a{"status":200}/echo', headers={"x-request-id": "a b"})
    (line,) = served.log.written()
    assert line["request_id"] != "a b"


async def test_who_needs_no_key_may_ask_for_probes_only(served):
    assert (await served.client.get("/live", headers={"x-api-key": ""})).status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost:8080", "localhost:8080", 200),
        ("https://console.example", "localhost:8080", 200),
        ("https://evil.example", "localhost:8080", 403),
        ("http://evil.example:8080", "evil.example:8080", 403),  # a name that leads to this machine
    ],
)
async def test_a_page_of_another_site_may_not_call_what_is_open_here(origin, host, status):
    access = StubAccess()
    access.is_open = True
    served = Served(access, frozenset({"https://console.example"}))
    assert (await served.post(headers={"origin": origin, "host": host})).status_code == status


@pytest.mark.parametrize("path", ["/digits/echo", "/live", "/nowhere"])
@pytest.mark.parametrize("host", ["evil.example:8080", "127.0.0.1.evil.example", "[::1].evil.example", "10.0.0.1"])
async def test_where_no_key_is_needed_on_this_machine_no_other_name_is_answered(path, host):
    """A page of any site could read what is open here, once its name led to this machine."""
    access = StubAccess()
    access.is_open = access.is_of_this_machine = True
    served = Served(access)
    assert [
        (await served.client.request(method, path, headers={"host": host, "x-api-key": "all"})).status_code
        for method in ("GET", "POST")
    ] in ([403, 403], [405, 403], [403, 405])
    assert (await served.client.get("/live", headers={"host": "localhost:8080"})).status_code == 200
