"""What is refused leaves nothing behind: no record, one line of the log at most, and no key or token in it."""

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

import grpc
import httpx
import pytest
from e2e.gateways import Deployment, Gateway, Guard, client_of, exchange
from joserfc import jwt
from joserfc.jwk import Key, generate_key
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub
from stub_server import Answer, StubServer, serving

from clipper_gateway.keys import make_key

ISSUER, AUDIENCE = "https://issuer.example", "clipper"
ISSUED = generate_key("RSA", 2048, {"kid": "issued"})
STRANGE = generate_key("RSA", 2048)
MOST_BYTES = 100_000
PATH = "/v1/applications/sums/predict"
BODY = b'{"input": [1, 2]}'
SCOPES = "clipper:predict clipper:feedback clipper:read"
Code: TypeAlias = grpc.StatusCode
CODES = {400: Code.INVALID_ARGUMENT, 401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED}
Headers = Mapping[str, str]


# --- tokens and keys --------------------------------------------------------------------------------------------------
def token(*, key: Key = ISSUED, **claims: Any) -> str:
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 3600, "scope": SCOPES, **claims}
    return jwt.encode({"alg": "RS256", "kid": "issued"}, given, key)


@dataclass(frozen=True)
class Fortress:
    """A gateway with keys and tokens.

    Attributes:
        keys: Secrets by name: `all` may do everything, `letters` is for that application, `reader` may only read.
        guard: Sees what requests leave behind.
    """

    gateway: Gateway
    keys: Mapping[str, str]
    guard: Guard

    def post(self, headers: Headers, path: str = PATH, body: bytes = BODY) -> httpx.Response:
        return httpx.post(self.gateway.http + path, content=body, headers=headers, trust_env=False, timeout=60)

    def exchange(self, sent: bytes) -> tuple[list[int], bytes]:
        """Send bytes with the key that may do everything; the statuses of the answers, and all that came."""
        return exchange(self.gateway.port, sent.replace(b"$KEY", self.keys["all"].encode()))

    def call(self, headers: Headers, request: Any = None) -> Code:
        with grpc.insecure_channel(self.gateway.grpc) as channel:
            try:
                stub = GRPCInferenceServiceStub(channel)
                stub.ModelInfer(request or inference(), metadata=[*headers.items()], timeout=60)
            except grpc.RpcError as error:
                status: Code = error.code()
                return status
            return Code.OK


def inference(name: str = "sums", values: int = 2) -> Any:
    request = oip.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="input", datatype="FP32", shape=[1, values])
    tensor.contents.fp32_contents.extend([1.0] * values)
    return request


@pytest.fixture(scope="module")
def fortress(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    file = tmp_path_factory.mktemp("fortress") / "keys.json"
    asks = ["predict", "feedback", "read"]
    rights = {"all": (None, asks), "sums": (["sums"], asks), "letters": (["letters"], asks), "reader": (None, ["read"])}
    keys = {
        name: make_key(file, name, applications=applications, rights=given, rate=None, now_ms=0)
        for name, (applications, given) in rights.items()
    }
    with serving(StubServer(metadata=Answer({"keys": [ISSUED.as_dict(private=False)]}))) as issuer:
        settings = {
            "CLIPPER_GATEWAY_KEYS_FILE": str(file),
            "CLIPPER_GATEWAY_OIDC_ISSUER": ISSUER,
            "CLIPPER_GATEWAY_OIDC_AUDIENCE": AUDIENCE,
            "CLIPPER_GATEWAY_OIDC_JWKS_URL": f"http://127.0.0.1:{issuer.port}/jwks",
            "CLIPPER_GATEWAY_MAX_BODY_BYTES": str(MOST_BYTES),
        }
        with deployment.gateway("keyed", **settings) as gateway:
            guard = Guard(deployment, gateway, [*keys.values(), *token().split(".")[1:], "Bearer", "eyJ", "cs_"])
            yield Fortress(gateway, keys, guard)
            guard.check(0)
            guard.close()


# --- who asks ---------------------------------------------------------------------------------------------------------
def bearer(made: str) -> Headers:
    return {"authorization": f"Bearer {made}"}


def test_who_may_ask_is_answered(fortress):
    sums = fortress.keys["sums"]
    for headers in ({"x-api-key": sums}, bearer(sums), bearer(token(clipper_applications=["sums"]))):
        assert fortress.post(headers).json()["output"] == 3.0
        assert fortress.call(headers) == Code.OK
    callers = [each["caller"] for each in fortress.guard.check(6, told=6, writes=6)]
    assert sorted(callers) == [f"ada of {ISSUER}"] * 2 + ["sums"] * 4


def test_who_may_not_ask_is_refused(fortress):
    """One of each status at both doors; test_access, test_keys and test_tokens of tests/unit/gateway have the rest."""
    kept_out: list[tuple[int, Headers]] = [
        (401, {"x-api-key": "cs_" + "A" * 43}),
        (403, {"x-api-key": fortress.keys["reader"]}),
        (400, {"x-api-key": fortress.keys["all"], **bearer(token())}),
        (401, bearer(token(key=STRANGE))),
        (403, bearer(token(clipper_applications=["letters"]))),
    ]
    for status, headers in kept_out:
        answer = fortress.post(headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert not any(value in answer.text for value in headers.values())
        assert fortress.call(headers) == CODES[status]
    asked = fortress.guard.check(2 * len(kept_out), told=2 * len(kept_out))
    assert sorted(each["status"] for each in asked) == sorted(2 * [status for status, _ in kept_out])


PUBLIC = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}


def test_every_path_but_probes_asks_for_a_key(fortress):
    with client_of(fortress.gateway.http) as client:
        paths = client.get("/openapi.json").json()["paths"]
        asked = [
            (path, method, path.format(name="sums", model="one:1", query_id="1", version="1"))
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
        ("POST", PATH, BODY),
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
    fortress.guard.check(len(refused) + 3, told=len(refused) + 3)


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


def feedback(*query_ids: str) -> bytes:
    body = json.dumps([{"query_id": query_id, "loss": 1} for query_id in query_ids]).encode()
    return request(path="/v1/feedback", body=body)


KEY = b"x-api-key: $KEY\r\n"
WIRE: dict[str, tuple[int, bytes]] = {
    # where a body ends
    "a length beside chunks": (400, request("transfer-encoding: chunked", body=b"0\r\n\r\n")),
    "chunks beside a length": (400, request("content-length: 17", "transfer-encoding: chunked", length=False)),
    "two different lengths": (400, request("content-length: 5")),
    "a length of 30 digits": (400, request(f"content-length: {10**30}", length=False)),
    "an unknown transfer-encoding": (400, request("transfer-encoding: xchunked", length=False)),
    "chunks that are not last": (400, request("transfer-encoding: chunked, identity", length=False)),
    "two transfer-encodings": (400, request("transfer-encoding: chunked", "transfer-encoding: identity", length=False)),
    "a chunk of no size": (400, request("transfer-encoding: chunked", length=False, body=b"z\r\n\r\n")),
    "a key behind the body": (401, chunked(BODY, trailer=KEY).replace(KEY, b"", 1)),
    # headers
    "a folded header": (400, request("x-folded: a\r\n b")),
    "a zero byte in a header": (400, request(b"idempotency-key: a\0b")),
    "two authorizations": (400, request("authorization: Bearer a", "authorization: Bearer b")),
    "two keys": (400, request("x-api-key: a")),
    "two hosts": (400, request("host: elsewhere")),
    "two cookies": (400, request("cookie: a=b", "cookie: clipper-console=a")),
    "two idempotency keys": (400, request("idempotency-key: a", "Idempotency-Key: a")),
    "two content types": (400, request("content-type: application/json", "content-type: text/plain")),
    "an empty idempotency key": (400, request("idempotency-key: ")),
    "a long idempotency key": (400, request(f"idempotency-key: {'a' * 257}")),
    "101 headers": (431, request(*(f"x-{number}: a" for number in range(101)))),
    "a header of a megabyte": (431, request(f"x-large: {'a' * 2**20}")),
    "a path of a megabyte": (431, request(path=f"/v1/{'a' * 2**20}")),
    "a foreign origin": (403, request("origin: https://elsewhere.example")),
    "a null origin": (403, request("origin: null")),
    # bodies
    "a length beyond the bound": (413, request(f"content-length: {MOST_BYTES + 1}", length=False, body=b"")),
    "chunks beyond the bound": (413, chunked(*[b"[" * 20_000] * 6)),
    "a body beyond the bound": (413, request(body=b" " * (MOST_BYTES + 1))),
    "a gzip bomb": (415, request("content-encoding: gzip", body=gzip.compress(b" " * 50_000_000))),
    "a twice packed body": (415, request("content-encoding: gzip, gzip")),
    "another content type": (415, request("content-type: application/xml")),
    # paths and methods
    "a path of dots": (404, request(path="/v1/applications/../../etc/passwd/predict")),
    "a path of escaped slashes": (404, request(path="/v1/applications/..%2f..%2fetc/predict")),
    "a name of a zero byte": (404, request(path="/v1/applications/sums%00/predict")),
    "a name that is no UTF-8": (404, request(path="/v1/applications/%ff%fe/predict")),
    "a query of slashes": (404, request(method="GET", path="/v1/queries/..%2f..%2fetc?application=sums", body=b"")),
    "another method": (405, request(method="DELETE")),
    "a method that echoes": (405, request(method="TRACE")),
    "a method for proxies": (400, request(method="CONNECT", path="elsewhere.example:80")),
    "a path of all": (404, request(method="OPTIONS", path="*")),
    "an unknown method": (400, request(method="PREDICT")),
    "an unknown version of HTTP": (400, request().replace(b"HTTP/1.1", b"HTTP/7.9", 1)),
    "a greeting of TLS": (400, bytes.fromhex("16030100f4010000f00303") + b"a" * 200),
    # JSON
    "no JSON": (400, request(body=b"input=1")),
    "nothing": (400, request(body=b"")),
    "no UTF-8": (400, request(body=b'{"input": "\xff"}')),
    "half a character": (400, request(body=b'{"input": "\\ud800"}')),
    "40 000 levels": (400, request(body=b'{"input": ' + b"[" * 40_000 + b"]" * 40_000 + b"}")),
    "an infinite number": (400, request(body=b'{"input": [1e999]}')),
    "a number of 90 000 digits": (400, request(body=b'{"input": ' + b"9" * 90_000 + b"}")),
    "5 000 fields of one name": (400, request(body=b"{" + b'"input": [1], ' * 5_000 + b'"input": [1e999]}')),
    "an empty id": (400, request(body=b'{"input": [1], "query_id": ""}')),
    "two different ids": (400, request("idempotency-key: a", body=b'{"input": [1], "query_id": "b"}')),
    "a JSON part too long": (400, request("inference-header-content-length: 1000", path="/v2/models/sums/infer")),
    "1 001 feedbacks": (400, feedback(*["1"] * 1_001)),
    "feedback about no partition": (400, feedback("1", f"7-{'0' * 32}")),
}  # fmt: skip


def test_strange_bytes_are_refused(fortress):
    found = {case: fortress.exchange(sent) for case, (_, sent) in WIRE.items()}
    assert {case: statuses for case, (statuses, _) in found.items()} == {case: [one] for case, (one, _) in WIRE.items()}
    received = b"".join(text for _, text in found.values())
    assert not any(secret in received for secret in (b"Traceback", fortress.keys["all"].encode()))
    asked = Counter(each["status"] for each in fortress.guard.check(len(WIRE)))
    del asked[499]
    assert asked <= Counter(status for status, _ in WIRE.values())


def test_what_follows_a_refused_body_is_no_request(fortress):
    hidden = request(method="GET", path="/v1/applications", body=b"")
    probe = request(method="GET", path="/livez", body=b"")
    begun = request("content-length: 10000000", length=False, body=hidden)
    assert fortress.exchange(begun)[0] == [413]
    kept = request(body=hidden).replace(b"connection: close", b"connection: keep-alive", 1)
    assert exchange(fortress.gateway.port, kept + probe)[0] == [401, 200]
    asked = fortress.guard.check(3)
    assert [each["route"] for each in asked] == [PATH.replace("sums", "{name}")] * 2 + ["/livez"]


def test_a_message_beyond_the_bound_of_the_settings_is_refused_over_grpc(fortress):
    key = {"x-api-key": fortress.keys["all"]}
    assert fortress.call(key, inference(values=MOST_BYTES)) == Code.RESOURCE_EXHAUSTED
    fortress.guard.check(1, told=1)


FORGED = '"}\n{"at":"x","status":200}\r\n\x1b[31m\x9b31m\u2028\x00\x7f'


def test_no_text_of_a_caller_begins_a_line_or_colours_it(fortress):
    key = {"x-api-key": fortress.keys["all"]}
    path = f"/v1/applications/{httpx.URL('/', params={'a': FORGED}).query.decode()[2:].replace('+', '%20')}/predict"
    assert fortress.post(key, path).status_code == 404
    assert fortress.call(key, inference(FORGED)) == Code.NOT_FOUND
    sent = request("x-request-id: a b", "traceparent: 00-x", "user-agent: \u00e9", path="/v1/applications/a/predict")
    assert fortress.exchange(sent)[0] == [404]
    found = fortress.guard.check(3, told=3)
    assert sorted(each["application"] for each in found) == [FORGED, FORGED, "a"]
    assert "a b" not in {each["request_id"] for each in found}


def test_an_id_with_line_breaks_stays_in_its_place(fortress):
    forged = "order\r\nset-cookie: a=b\r\n\r\n{}"
    body = json.dumps({"input": [1, 2], "query_id": forged}).encode()
    with client_of(fortress.gateway.http, **{"x-api-key": fortress.keys["all"]}) as client:
        answered = client.post(PATH, content=body)
        assert (answered.status_code, "set-cookie" in answered.headers) == (200, False)
        where = f"/v1/queries/{quote(forged, safe='')}?application=sums&wait_s=50"
        assert client.get(where).json()["query_id"] == forged
    fortress.guard.check(2, writes=1)
