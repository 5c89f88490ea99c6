"""What strangers may send to a gateway with keys and tokens: each is refused by its status, and leaves nothing behind.

Nothing means: no record in the topics, one line of the log at most, and no key or token in it.
"""

import base64
import gzip
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from e2e.gateways import Gateway, Guard, client_of, deployed, events, exchange
from e2e.programs import environment, run, until
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from joserfc import jwt
from joserfc.jwk import Key, generate_key
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub
from stub_server import Answer, StubServer, serving

from clipper_gateway.keys import make_key
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ISSUER, AUDIENCE = "https://issuer.example", "clipper"
ISSUED = generate_key("RSA", 2048, {"kid": "issued"})
STRANGE = generate_key("RSA", 2048, {"kid": "strange"})
MOST_BYTES = 100_000
PATH = "/v1/applications/sums/predict"
BODY = b'{"input": [1, 2]}'
SCOPES = "clipper:predict clipper:feedback clipper:read"
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
}
Headers = Mapping[str, str]


# --- tokens and keys --------------------------------------------------------------------------------------------------
def token(*, alg: str = "RS256", key: Key = ISSUED, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 3600, "scope": SCOPES, **claims}
    return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, given, key)


def part(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned_token() -> str:
    return f"{part({'alg': 'none'})}.{token().split('.')[1]}."


def token_by_the_public_key() -> str:
    head = f"{part({'alg': 'HS256', 'kid': 'issued'})}.{token().split('.')[1]}"
    return f"{head}.{part(hmac.digest(ISSUED.as_pem(private=False), head.encode(), 'sha256'))}"


def token_with_more_rights() -> str:
    head, _, signature = token(scope="").split(".")
    return f"{head}.{token().split('.')[1]}.{signature}"


class Issuer(StubServer):
    """Gives the issuer's public keys to who asks."""

    def answer(self, asked: Any) -> Answer:
        return Answer({"keys": [ISSUED.as_dict(private=False)]})


@dataclass(frozen=True)
class Fortress:
    """A gateway with keys and tokens.

    Attributes:
        keys: Secrets by name: `all` may do everything, `letters` is for that application, `reader` may only read.
        guard: Sees what requests leave behind.
    """

    gateway: Gateway
    keys: Mapping[str, str]
    file: Path
    guard: Guard

    def post(self, headers: Headers, path: str = PATH, body: bytes = BODY) -> httpx.Response:
        return httpx.post(self.gateway.http + path, content=body, headers=headers, trust_env=False, timeout=60)

    def call(self, headers: Headers, method: str = "ModelInfer", request: Any = None) -> grpc.StatusCode:
        """Call over gRPC; the status."""
        with grpc.insecure_channel(self.gateway.grpc) as channel:
            try:
                stub = GRPCInferenceServiceStub(channel)
                getattr(stub, method)(request or inference(), metadata=[*headers.items()], timeout=60)
            except grpc.RpcError as error:
                status: grpc.StatusCode = error.code()
                return status
            return grpc.StatusCode.OK


def inference(name: str = "sums", values: int = 2) -> Any:
    request = oip.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="input", datatype="FP32", shape=[1, values])
    tensor.contents.fp32_contents.extend([1.0] * values)
    return request


@pytest.fixture(scope="module")
def fortress(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    folder = tmp_path_factory.mktemp("fortress")
    file, given = folder / "keys.json", {"rate": None, "now_ms": 0}
    rights = ["predict", "feedback", "read"]
    keys = {
        "all": make_key(file, "all", applications=None, rights=rights, **given),
        "sums": make_key(file, "sums", applications=["sums"], rights=rights, **given),
        "letters": make_key(file, "letters", applications=["letters"], rights=rights, **given),
        "reader": make_key(file, "reader", applications=None, rights=["read"], **given),
    }
    with deployed(kafka, folder) as deployment, serving(Issuer()) as issuer:
        settings = {
            "CLIPPER_GATEWAY_KEYS_FILE": str(file),
            "CLIPPER_GATEWAY_OIDC_ISSUER": ISSUER,
            "CLIPPER_GATEWAY_OIDC_AUDIENCE": AUDIENCE,
            "CLIPPER_GATEWAY_OIDC_JWKS_URL": f"http://127.0.0.1:{issuer.port}/jwks",
            "CLIPPER_GATEWAY_MAX_BODY_BYTES": str(MOST_BYTES),
        }
        with deployment.gateway("keyed", **settings) as gateway:
            guard = Guard(deployment, gateway, [*keys.values(), *token().split(".")[1:], "Bearer", "eyJ", "cs_"])
            yield Fortress(gateway, keys, file, guard)
            guard.check(0)
            guard.close()


# --- who asks ---------------------------------------------------------------------------------------------------------
def bearer(made: str) -> Headers:
    return {"authorization": f"Bearer {made}"}


LET_IN: dict[str, tuple[str, Callable[[Mapping[str, str]], Headers]]] = {
    "a key": ("sums", lambda keys: {"x-api-key": keys["sums"]}),
    "a key as a token": ("sums", lambda keys: bearer(keys["sums"])),
    "a token": ("ada", lambda _: bearer(token(clipper_applications=["sums"]))),
}


@pytest.mark.parametrize("case", LET_IN)
def test_who_may_ask_is_answered(fortress, case):
    caller, credentials = LET_IN[case]
    headers = credentials(fortress.keys)
    assert fortress.post(headers).json()["output"] == 3.0
    assert fortress.call(headers) == grpc.StatusCode.OK
    assert [each["caller"] for each in fortress.guard.check(2, told=2, writes=2)] == [caller] * 2


KEPT_OUT: dict[str, tuple[int, Callable[[Mapping[str, str]], Headers]]] = {
    "nothing": (401, lambda _: {}),
    "an empty key": (401, lambda _: {"x-api-key": ""}),
    "an unknown key": (401, lambda _: {"x-api-key": "cs_" + "A" * 43}),
    "an unknown key as a token": (401, lambda _: bearer("cs_" + "A" * 43)),
    "half a key": (401, lambda keys: {"x-api-key": keys["all"][:20]}),
    "a key of another application": (403, lambda keys: {"x-api-key": keys["letters"]}),
    "a key without the right": (403, lambda keys: {"x-api-key": keys["reader"]}),
    "two different credentials": (400, lambda keys: {"x-api-key": keys["all"], **bearer(token())}),
    "a password": (401, lambda keys: {"authorization": f"Basic {part(keys['all'].encode())}"}),
    "an expired token": (401, lambda _: bearer(token(exp=int(time.time()) - 3600))),
    "a token of tomorrow": (401, lambda _: bearer(token(nbf=int(time.time()) + 3600))),
    "a token without an end": (401, lambda _: bearer(token(exp=None))),
    "an unsigned token": (401, lambda _: bearer(unsigned_token())),
    "a token signed with the public key": (401, lambda _: bearer(token_by_the_public_key())),
    "a token for another audience": (401, lambda _: bearer(token(aud="elsewhere"))),
    "a token of another issuer": (401, lambda _: bearer(token(iss="https://elsewhere.example"))),
    "a token of an unknown key": (401, lambda _: bearer(token(key=STRANGE))),
    "a token of a key by a known name": (401, lambda _: bearer(token(key=STRANGE, header={"kid": "issued"}))),
    "a token that brings its key": (
        401,
        lambda _: bearer(token(key=STRANGE, header={"kid": "issued", "jwk": STRANGE.as_dict(private=False)})),
    ),
    "a token that was changed": (401, lambda _: bearer(token_with_more_rights())),
    "a token without rights": (403, lambda _: bearer(token(scope="openid"))),
    "a token of another application": (403, lambda _: bearer(token(clipper_applications=["letters"]))),
    "a token of null applications": (401, lambda _: bearer(token(clipper_applications=None))),
    "garbage": (401, lambda _: bearer("A" * 8_000)),
    "garbage with dots": (401, lambda _: bearer(f"{part(b'[' * 3_000)}.e30.e30")),
}


@pytest.mark.parametrize("case", KEPT_OUT)
def test_who_may_not_ask_is_refused(fortress, case):
    status, credentials = KEPT_OUT[case]
    headers = credentials(fortress.keys)
    answer = fortress.post(headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert not any(value in answer.text for value in headers.values() if len(value) > 20)
    assert fortress.call(headers) == CODES[status]
    assert [each["status"] for each in fortress.guard.check(2, told=2)] == [status] * 2


def test_a_revoked_key_is_refused_while_the_gateway_runs(fortress, tmp_path):
    made = run("keys", "create", "guest", "--file", str(fortress.file), folder=tmp_path, environ=environment())
    headers, asked = {"x-api-key": made.out.strip()}, 0

    def status_is(wanted: int) -> bool:
        nonlocal asked
        asked += 1
        return fortress.post(headers, "/v1/applications/sums/predict", b"").status_code == wanted

    until("the new key is known", lambda: status_is(400))
    assert (
        run("keys", "revoke", "guest", "--file", str(fortress.file), folder=tmp_path, environ=environment()).code == 0
    )
    until("the revoked key is not", lambda: status_is(401))
    assert fortress.call(headers) == grpc.StatusCode.UNAUTHENTICATED
    fortress.guard.check(asked + 1, told=asked + 1)


PUBLIC = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}


def test_every_path_but_probes_asks_for_a_key(fortress):
    with client_of(fortress.gateway.http) as client:
        paths = client.get("/openapi.json").json()["paths"]
        asked = [
            (path, method, path.format(name="sums", query_id="1", version="1"))
            for path, methods in paths.items()
            for method in methods
            if method in {"get", "post"}
        ]
        statuses = {path: client.request(method, where, content=BODY).status_code for path, method, where in asked}
    assert len(asked) >= 15
    assert {path for path, status in statuses.items() if status != 401} == PUBLIC
    fortress.guard.check(len(asked), told=len(asked))


def test_a_key_of_one_application_sees_no_other(fortress):
    key = {"x-api-key": fortress.keys["letters"]}
    of_letters, of_sums = (
        json.dumps({"query_id": "1", "application": name, "label": 1}).encode() for name in ("letters", "sums")
    )
    refused = [
        ("GET", "/v1/queries/1?application=sums", b""),
        ("GET", "/v2/models/sums", b""),
        ("GET", "/v2/models/sums/ready", b""),
        ("POST", "/v2/models/sums/infer", BODY),
        ("POST", "/sums/predict", BODY),
        ("POST", "/sums/update", b'{"query_id": "1", "label": 1}'),
        ("POST", "/v1/feedback", of_sums),
        ("POST", "/v1/feedback", b"[%b, %b]" % (of_letters, of_sums)),
        ("POST", "/v1/applications/nobody/predict", BODY),
    ]  # fmt: skip
    with client_of(fortress.gateway.http, **key) as client:
        for method, path, body in refused:
            assert client.request(method, path, content=body).status_code == 403, path
        assert client.post("/v1/feedback", content=b'{"query_id": "1", "label": 1}').status_code == 400
        assert [each["name"] for each in client.get("/v1/applications").json()] == ["letters"]
        assert [each["name"] for each in client.get("/v1/models").json()] == ["letters"]
    for method, name in (("ModelMetadata", "name"), ("ModelReady", "name"), ("ModelInfer", "model_name")):
        request = getattr(oip, f"{method}Request")(**{name: "sums"})
        assert fortress.call(key, method, request) == grpc.StatusCode.PERMISSION_DENIED
    fortress.guard.check(len(refused) + 6, told=len(refused) + 6)


# --- bytes ------------------------------------------------------------------------------------------------------------
def request(
    *lines: str | bytes, path: str = PATH, method: str = "POST", body: bytes = BODY, length: bool = True
) -> bytes:
    """A request of the key that may do everything; the connection is to end with it."""
    head = [f"{method} {path} HTTP/1.1", "host: gateway", "x-api-key: $KEY", "connection: close", *lines]
    head += [f"content-length: {len(body)}"] if length else []
    raw = [line if isinstance(line, bytes) else line.encode() for line in head]
    return b"\r\n".join([*raw, b"", body])


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return request("transfer-encoding: chunked", length=False, body=parts + b"0\r\n" + trailer + b"\r\n")


def without_key(sent: bytes) -> bytes:
    return sent.replace(b"x-api-key: $KEY\r\n", b"", 1)


def question(**fields: Any) -> bytes:
    return request(body=json.dumps(fields).encode())


def feedback(*query_ids: str) -> bytes:
    return json.dumps([{"query_id": query_id, "loss": 1} for query_id in query_ids]).encode()


def nested(levels: int) -> bytes:
    return b'{"input": ' + b"[" * levels + b"]" * levels + b"}"


CLOSED: list[int] = []
"""The connection ends without a word."""
WIRE: dict[str, tuple[int, bytes]] = {
    # where a body ends
    "a length beside chunks": (400, request("transfer-encoding: chunked", body=b"0\r\n\r\n")),
    "chunks beside a length": (400, request("content-length: 17", "transfer-encoding: chunked", length=False)),
    "two different lengths": (400, request("content-length: 5")),
    "two equal lengths": (400, request(f"content-length: {len(BODY)}")),
    "a list of lengths": (400, request("content-length: 17, 17", length=False)),
    "a signed length": (400, request("content-length: +17", length=False)),
    "a negative length": (400, request("content-length: -17", length=False)),
    "a length in hexadecimal": (400, request("content-length: 0x11", length=False)),
    "a length of 30 digits": (400, request(f"content-length: {10**30}", length=False)),
    "an unknown transfer-encoding": (400, request("transfer-encoding: xchunked", length=False)),
    "chunks that are not last": (400, request("transfer-encoding: chunked, identity", length=False)),
    "two transfer-encodings": (400, request("transfer-encoding: chunked", "transfer-encoding: identity", length=False)),
    "a chunk of no size": (400, request("transfer-encoding: chunked", length=False, body=b"z\r\n\r\n")),
    "a key behind the body": (401, without_key(chunked(BODY, trailer=b"x-api-key: $KEY\r\n"))),
    "a megabyte behind the body": (431, chunked(BODY, trailer=b"x-large: " + b"a" * 2**20 + b"\r\n")),
    "a chunk of a megabyte's extension": (
        431,
        request("transfer-encoding: chunked", length=False, body=b"5;" + b"a" * 2**20 + b"\r\n"),
    ),
    "a chunk of a negative size": (400, request("transfer-encoding: chunked", length=False, body=b"-1\r\n\r\n")),
    # headers
    "a folded header": (400, request("x-folded: a\r\n b")),
    "a space before the colon": (400, request("x-spaced : a")),
    "a header without a colon": (400, request("x-bare")),
    "a zero byte in a header": (400, request(b"idempotency-key: a\0b")),
    "a carriage return in a header": (400, request(b"idempotency-key: a\rb: c")),
    "a line feed in a header": (400, request(b"idempotency-key: a\nb")),
    "two authorizations": (400, request("authorization: Bearer a", "authorization: Bearer b")),
    "two keys": (400, request("x-api-key: a")),
    "two hosts": (400, request("host: elsewhere")),
    "two cookies": (400, request("cookie: a=b", "cookie: clipper-console=a")),
    "two idempotency keys": (400, request("idempotency-key: a", "Idempotency-Key: a")),
    "two content types": (400, request("content-type: application/json", "content-type: text/plain")),
    "an empty idempotency key": (400, request("idempotency-key: ")),
    "a long idempotency key": (400, request(f"idempotency-key: {'a' * 257}")),
    "10 000 headers": (431, request(*(f"x-{number}: a" for number in range(10_000)))),
    "101 headers": (431, request(*(f"x-{number}: a" for number in range(101)))),
    "a header of a megabyte": (431, request(f"x-large: {'a' * 2**20}")),
    "a header name of a megabyte": (431, request(f"{'a' * 2**20}: a")),
    "a path of a megabyte": (431, request(path=f"/v1/{'a' * 2**20}")),
    "a foreign origin": (403, request("origin: https://elsewhere.example")),
    "a null origin": (403, request("origin: null")),
    # bodies
    "a length beyond the bound": (413, request(f"content-length: {MOST_BYTES + 1}", length=False, body=b"")),
    "chunks beyond the bound": (413, chunked(*[b"[" * 20_000] * 6)),
    "a body beyond the bound": (413, request(body=b" " * (MOST_BYTES + 1))),
    "a gzip bomb": (415, request("content-encoding: gzip", body=gzip.compress(b" " * 50_000_000))),
    "a twice packed body": (415, request("content-encoding: gzip, gzip", body=BODY)),
    "another content type": (415, request("content-type: application/xml")),
    # paths and methods
    "a path of dots": (404, request(path="/v1/applications/../../etc/passwd/predict")),
    "a path of escaped dots": (404, request(path="/v1/applications/%2e%2e/predict")),
    "a path of escaped slashes": (404, request(path="/v1/applications/..%2f..%2fetc/predict")),
    "a path of escaped backslashes": (404, request(path="/v1/applications/..%5c..%5cetc/predict")),
    "a name of a zero byte": (404, request(path="/v1/applications/sums%00/predict")),
    "a name that is no UTF-8": (404, request(path="/v1/applications/%ff%fe/predict")),
    "a model of dots": (404, request(path="/v2/models/../../etc/infer")),
    "a version of escaped slashes": (404, request(path="/v2/models/sums/versions/..%2f1/infer")),
    "a query of slashes": (404, request(method="GET", path="/v1/queries/..%2f..%2fetc?application=sums", body=b"")),
    "doubled slashes": (404, request(path="//v1//applications/sums/predict")),
    "another method": (405, request(method="DELETE")),
    "a method that echoes": (405, request(method="TRACE")),
    "a method for proxies": (400, request(method="CONNECT", path="elsewhere.example:80")),
    "a path of all": (404, request(method="OPTIONS", path="*")),
    "an unknown method": (400, request(method="PREDICT")),
    "an unknown version of HTTP": (400, request().replace(b"HTTP/1.1", b"HTTP/7.9", 1)),
    "a preface of HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a greeting of TLS": (400, bytes.fromhex("16030100f4010000f00303") + b"a" * 200),
    # JSON
    "no JSON": (400, request(body=b"input=1")),
    "nothing": (400, request(body=b"")),
    "two values": (400, request(body=BODY + BODY)),
    "no UTF-8": (400, request(body=b'{"input": "\xff"}')),
    "half a character": (400, request(body=b'{"input": "\\ud800"}')),
    "40 000 levels": (400, request(body=nested(40_000))),
    "an infinite number": (400, request(body=b'{"input": [1e999]}')),
    "an infinite deadline": (400, request(body=b'{"input": [1], "deadline_ms": 1e999}')),
    "no number": (400, request(body=b'{"input": [NaN]}')),
    "a number of 90 000 digits": (400, request(body=b'{"input": ' + b"9" * 90_000 + b"}")),
    "a number of 4 000 digits": (400, request(body=b'{"input": ' + b"9" * 4_000 + b"}")),
    "5 000 fields of one name": (400, request(body=b"{" + b'"input": [1], ' * 5_000 + b'"input": [1e999]}')),
    "an empty id": (400, question(input=[1], query_id="")),
    "a long id": (400, question(input=[1], query_id="a" * 257)),
    "an id as routers give them": (400, question(input=[1], query_id="0@1")),
    "two different ids": (400, request("idempotency-key: a", body=b'{"input": [1], "query_id": "b"}')),
    "10 001 rows": (400, question(inputs=[1] * 10_001)),
    "a tensor of a wrong shape": (
        400,
        request(
            path="/v2/models/sums/infer",
            body=b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1000000000, 1000000000], "data": [1]}]}',
        ),
    ),
    "a tensor of a negative shape": (
        400,
        request(
            path="/v2/models/sums/infer",
            body=b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, -1], "data": [1]}]}',
        ),
    ),
    "a JSON part longer than the body": (
        400,
        request("inference-header-content-length: 1000", path="/v2/models/sums/infer"),
    ),
    "1 001 feedbacks": (400, request(path="/v1/feedback", body=feedback(*["1"] * 1_001))),
    "one feedback of many that says nothing": (
        400,
        request(path="/v1/feedback", body=b'[{"query_id": "1", "loss": 1}, {"query_id": "1"}]'),
    ),
    "one feedback of many about another partition": (
        400,
        request(
            path="/v1/feedback",
            body=feedback("1", f"7-{'0' * 32}"),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WIRE)
def test_strange_bytes_are_refused(fortress, case):
    status, sent = WIRE[case]
    statuses, received = exchange(fortress.gateway.port, sent.replace(b"$KEY", fortress.keys["all"].encode()))
    assert statuses == [status], received[:500]
    assert b"Traceback" not in received
    assert fortress.keys["all"].encode() not in received
    assert {each["status"] for each in fortress.guard.check(1)} <= {status, 499}


def test_what_follows_a_refused_body_is_no_request(fortress):
    hidden = request(method="GET", path="/v1/applications", body=b"").replace(b"$KEY", fortress.keys["all"].encode())
    begun = request("content-length: 10000000", length=False, body=hidden)
    statuses, _ = exchange(fortress.gateway.port, begun.replace(b"$KEY", fortress.keys["all"].encode()))
    assert statuses == [413]
    kept = request(body=hidden).replace(b"connection: close", b"connection: keep-alive", 1)
    statuses, _ = exchange(fortress.gateway.port, kept + request(method="GET", path="/livez", body=b""))
    assert statuses == [401, 200]
    asked = fortress.guard.check(3)
    assert [each["route"] for each in asked] == [PATH.replace("sums", "{name}")] * 2 + ["/livez"]


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "h2c, websocket"])
def test_an_offer_of_another_protocol_is_ignored_and_a_body_stays_one(fortress, protocol):
    offer = "connection: Upgrade, HTTP2-Settings", f"upgrade: {protocol}", "http2-settings: AAEAAEAA"
    key = fortress.keys["all"].encode()
    statuses, received = exchange(fortress.gateway.port, request(*offer).replace(b"$KEY", key))
    assert (statuses, b'"output":3.0' in received) == ([200], True)
    hidden = request(method="GET", path="/v1/applications", body=b"").replace(b"$KEY", key)
    statuses, _ = exchange(fortress.gateway.port, request(*offer, body=hidden).replace(b"$KEY", key))
    assert statuses == [400]
    statuses, _ = exchange(fortress.gateway.port, request(*offer, method="GET", path="/livez", body=b""))
    assert statuses == [200]
    fortress.guard.check(3, writes=1)


FORGED = '"}\n{"at":"x","status":200}\r\n\x1b[31m\x9b31m\u2028\x00\x7f'


def test_no_text_of_a_caller_begins_a_line_or_colours_it(fortress):
    key = {"x-api-key": fortress.keys["all"]}
    path = f"/v1/applications/{httpx.URL('/', params={'a': FORGED}).query.decode()[2:].replace('+', '%20')}/predict"
    assert fortress.post(key, path).status_code == 404
    assert fortress.call(key, request=inference(FORGED)) == grpc.StatusCode.NOT_FOUND
    sent = request("x-request-id: a b", "traceparent: 00-x", "user-agent: \u00e9", path="/v1/applications/a/predict")
    statuses, _ = exchange(fortress.gateway.port, sent.replace(b"$KEY", fortress.keys["all"].encode()))
    assert statuses == [404]
    found = fortress.guard.check(3, told=3)
    assert sorted(each["application"] for each in found) == [FORGED, FORGED, "a"]
    assert "a b" not in {each["request_id"] for each in found}


def test_an_id_with_line_breaks_stays_in_its_place(fortress):
    forged = "order\r\nset-cookie: a=b\r\n\r\nevent: forged\ndata: {}"
    body = json.dumps({"input": [1, 2], "query_id": forged}).encode()
    with client_of(fortress.gateway.http, **{"x-api-key": fortress.keys["all"]}) as client:
        accepted = client.post(PATH, content=body, headers={"prefer": "respond-async"})
        assert (accepted.status_code, "set-cookie" in accepted.headers) == (202, False)
        where = f"{accepted.headers['location']}&wait_s=50"
        found = client.get(where, headers={"accept": "text/event-stream"})
        (event,) = events(found.iter_lines())
    assert (event["event"], json.loads(event["data"])["query_id"]) == ("answer", forged)
    fortress.guard.check(2, writes=1)


# --- gRPC -------------------------------------------------------------------------------------------------------------
INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLS: dict[str, tuple[grpc.StatusCode, dict[str, Any]]] = {
    "two authorizations": (CODES[400], {"metadata": [("authorization", "Bearer a"), ("authorization", "Bearer b")]}),
    "two keys": (CODES[400], {"metadata": [("x-api-key", "a")]}),
    "two idempotency keys": (CODES[400], {"metadata": [("idempotency-key", "a"), ("idempotency-key", "a")]}),
    "a long idempotency key": (CODES[400], {"metadata": [("idempotency-key", "a" * 257)]}),
    "metadata of 20 kB": (grpc.StatusCode.RESOURCE_EXHAUSTED, {"metadata": [("x-large", "a" * 20_000)]}),
    "metadata of a megabyte": (grpc.StatusCode.RESOURCE_EXHAUSTED, {"metadata": [("x-large", "a" * 2**20)]}),
    "10 000 pieces of metadata": (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        {"metadata": [(f"x-{number}", "a") for number in range(10_000)]},
    ),
    "a message beyond the bound": (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        {"message": inference(values=MOST_BYTES).SerializeToString()},
    ),
    "a packed message": (grpc.StatusCode.UNIMPLEMENTED, {"compression": grpc.Compression.Gzip}),
    "garbage": (CODES[400], {"message": b"\xff" * 100}),
    "an unknown method": (grpc.StatusCode.UNIMPLEMENTED, {"method": f"{INFER}/../ModelInfer"}),
    "an unknown service": (grpc.StatusCode.UNIMPLEMENTED, {"method": "/grpc.reflection.v1.ServerReflection/List"}),
    "a name of slashes": (grpc.StatusCode.NOT_FOUND, {"message": inference("../../etc").SerializeToString()}),
    "no name": (grpc.StatusCode.NOT_FOUND, {"message": b""}),
    "no tensor": (CODES[400], {"message": oip.ModelInferRequest(model_name="sums").SerializeToString()}),
}


@pytest.mark.parametrize("case", CALLS)
def test_strange_calls_are_refused(fortress, case):
    expected, how = CALLS[case]
    metadata = [("x-api-key", fortress.keys["all"]), *how.get("metadata", ())]
    message = how.get("message", inference().SerializeToString())
    with grpc.insecure_channel(fortress.gateway.grpc) as channel:
        call = channel.unary_unary(how.get("method", INFER))
        with pytest.raises(grpc.RpcError) as caught:
            call(message, metadata=metadata, compression=how.get("compression"), timeout=60)
    assert caught.value.code() == expected, caught.value.details()
    assert fortress.keys["all"] not in caught.value.details()
    fortress.guard.check(1, told="x-request-id" in dict(caught.value.trailing_metadata() or ()))


def test_health_is_told_to_anybody_and_nothing_else(fortress):
    with grpc.insecure_channel(fortress.gateway.grpc) as channel:
        assert HealthStub(channel).Check(HealthCheckRequest(), timeout=60).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            HealthStub(channel).Check(HealthCheckRequest(service="a\nb"), timeout=60)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert fortress.call({}, "ServerLive", oip.ServerLiveRequest()) == grpc.StatusCode.OK
    assert fortress.call({}, "ServerReady", oip.ServerReadyRequest()) == grpc.StatusCode.OK
    for method in ("ServerMetadata", "ModelMetadata", "ModelReady", "ModelInfer"):
        assert fortress.call({}, method, getattr(oip, f"{method}Request")()) == grpc.StatusCode.UNAUTHENTICATED
    statuses, _ = exchange(int(fortress.gateway.grpc.rpartition(":")[2]), request())
    assert statuses == CLOSED
    fortress.guard.check(9, told=8)
