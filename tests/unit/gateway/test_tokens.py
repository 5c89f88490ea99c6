"""Tokens of an issuer: which pass, which do not and why, and how often the issuer's keys are fetched."""

import asyncio
import base64
import hmac
import json
import logging
import socket
from dataclasses import dataclass, field

import pytest
from joserfc import jwt
from joserfc.jwk import generate_key
from joserfc.jws import JWSRegistry
from stub_server import Answer, StubServer, serving

from clipper_gateway.errors import Refusal
from clipper_gateway.tokens import MAX_TOKEN_BYTES, TokenVerifier, is_loopback
from clipper_stream.errors import InvalidSetting

AUDIENCE = "clipper"
RSA = generate_key("RSA", 2048, {"kid": "rsa"})
KEYS = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": generate_key("EC", "P-256", {"kid": "ec"}),
    "EdDSA": generate_key("OKP", "Ed25519", {"kid": "ed"}),
}
ANY = JWSRegistry(algorithms=[*JWSRegistry.algorithms])


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Issuer(StubServer):
    """An issuer on loopback: its keys, and its discovery document."""

    keys: list = field(default_factory=lambda: [*KEYS.values()])
    answers: dict = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def fetches(self) -> int:
        return sum(each.path == "/jwks" for each in self.asked)

    def answer(self, asked):
        self.asked.append(asked)
        discovery = Answer({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})
        documents = {
            "/.well-known/openid-configuration": discovery,
            "/jwks": Answer({"keys": [each if isinstance(each, dict) else each.as_dict() for each in self.keys]}),
        }
        return (documents | self.answers)[asked.path]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def issuer():
    with serving(Issuer()) as server:
        yield server


@pytest.fixture
def verifier(issuer, clock):
    return TokenVerifier(issuer.url, AUDIENCE, None, clock)


def token(issuer, alg="ES256", key=None, header=None, **claims):
    given = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": int(Clock.now_s) + 60, **claims}
    given = {name: value for name, value in given.items() if value is not None}
    key = key or KEYS[alg]
    return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, given, key, registry=ANY)


def unsigned(header, claims):
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return ".".join((*parts, ""))


async def refused(verifier, value, status=401):
    with pytest.raises(Refusal) as caught:
        await verifier.claims(value)
    assert caught.value.status == status
    if status == 401:
        assert caught.value.headers == {"www-authenticate": 'Bearer error="invalid_token"'}
    return str(caught.value)


@pytest.mark.parametrize("alg", KEYS)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_each_asymmetric_algorithm_passes(verifier, issuer, alg):
    claims = await verifier.claims(token(issuer, alg, scope="openid clipper:predict", scp=["clipper:read"]))
    assert (claims.sub, claims.scopes) == ("ada", {"openid", "clipper:predict", "clipper:read"})


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS512", "ES256K", "", 5, None, ["RS256"]])
async def test_no_other_algorithm_passes_whatever_the_signature(verifier, issuer, alg):
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": int(Clock.now_s) + 60}
    text = await refused(verifier, unsigned({"alg": alg, "kid": "rsa"}, claims))
    assert "(unsupported_algorithm)" in text or "(invalid_header_value)" in text


async def test_a_public_key_is_no_hmac_secret(verifier, issuer):
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": int(Clock.now_s) + 60}
    head = unsigned({"alg": "HS256", "kid": "rsa"}, claims)[:-1]
    digest = hmac.digest(RSA.as_pem(private=False), head.encode(), "sha256")
    signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert "(unsupported_algorithm)" in await refused(verifier, f"{head}.{signature}")


async def test_an_hmac_key_among_the_issuers_is_not_used(verifier, issuer):
    shared = generate_key("oct", 256, {"kid": "shared"})
    issuer.keys = [shared.as_dict(private=True)]
    assert "(unsupported_algorithm)" in await refused(verifier, token(issuer, "HS256", shared))


async def test_a_key_that_the_token_brings_along_is_not_used(verifier, issuer):
    own = generate_key("EC", "P-256", {"kid": "ec"})
    brought = {"jwk": own.as_dict(private=False), "jku": f"{issuer.url}/own"}
    assert "(bad_signature)" in await refused(verifier, token(issuer, key=own, header=brought))
    assert [each.path for each in issuer.asked] == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (dict(exp=int(Clock.now_s) - 30), "The token is expired"),
        (dict(exp=None), "Missing claim: 'exp'"),
        (dict(exp="tomorrow"), "'exp' must be a NumericDate"),
        (dict(exp=float("nan")), "'exp' must be a NumericDate"),
        (dict(nbf=int(Clock.now_s) + 31), "not yet valid"),
        (dict(aud="other"), "Invalid claim: 'aud'"),
        (dict(aud=["other", "more"]), "Invalid claim: 'aud'"),
        (dict(aud=None), "Missing claim: 'aud'"),
        (dict(iss="https://other.example"), "Invalid claim: 'iss'"),
        (dict(iss=None), "Missing claim: 'iss'"),
        (dict(sub=None), "sub"),
        (dict(sub=""), "sub"),
        (dict(scope=5), "scope"),
        (dict(clipper_applications="digits"), "clipper_applications"),
        (dict(clipper_applications=[1]), "clipper_applications"),
    ],
)
async def test_a_wrong_claim_is_named(verifier, issuer, claims, said):
    text = await refused(verifier, token(issuer, **claims))
    assert said in text
    assert text.endswith(f"get one from {issuer.url} for {AUDIENCE}")


async def test_null_applications_are_not_all_applications(verifier, issuer):
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "a", "exp": int(Clock.now_s) + 60}
    value = jwt.encode({"alg": "ES256", "kid": "ec"}, claims | {"clipper_applications": None}, KEYS["ES256"])
    assert "clipper_applications" in await refused(verifier, value)


@pytest.mark.parametrize(
    "claims",
    [
        dict(exp=int(Clock.now_s) - 29),
        dict(exp=Clock.now_s + 0.5),
        dict(exp=10**400),
        dict(nbf=int(Clock.now_s) + 30),
        dict(aud=["other", AUDIENCE]),
    ],
)
async def test_clocks_may_differ_by_half_a_minute_and_audiences_be_many(verifier, issuer, claims):
    assert (await verifier.claims(token(issuer, **claims))).sub == "ada"


async def test_header_fields_that_nobody_knows_are_ignored(verifier, issuer):
    value = jwt.encode(
        {"alg": "ES256", "kid": "ec", "nonce": "x"},
        {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": int(Clock.now_s) + 60},
        KEYS["ES256"],
        registry=JWSRegistry(algorithms=["ES256"], strict_check_header=False),
    )
    assert (await verifier.claims(value)).sub == "ada"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "a.b.c",
        "...",
        "é.é.é",
        unsigned(["alg"], {}),
        unsigned("alg", {}),
        unsigned(5, {}),
        unsigned({"alg": "ES256", "kid": 5}, {}),
        unsigned({"alg": "ES256", "kid": "ec", "crit": [["x"]]}, {}),
        unsigned({"alg": "ES256", "kid": "ec", "crit": 5}, {}),
        unsigned({"alg": "ES256", "kid": "ec", "b64": False}, {}),
        "A" * MAX_TOKEN_BYTES,
        "A" * (MAX_TOKEN_BYTES + 1),
        base64.urlsafe_b64encode(b"[" * 300).decode() + ".e30.",
    ],
)
async def test_garbage_is_refused_without_an_error_of_another_kind(verifier, value):
    text = await refused(verifier, value)
    assert len(value) < 4 or value not in text


async def test_a_changed_payload_and_a_cut_signature_are_refused(verifier, issuer):
    head, _, signature = token(issuer).split(".")
    payload = token(issuer, sub="root").split(".")[1]
    assert "(bad_signature)" in await refused(verifier, f"{head}.{payload}.{signature}")
    assert "(bad_signature)" in await refused(verifier, f"{head}.{payload}.")


async def test_a_token_is_checked_once_until_it_expires(verifier, issuer, clock):
    value = token(issuer)
    first = await verifier.claims(value)
    assert await verifier.claims(value) is first
    clock.now_s += 60.0
    again = await verifier.claims(value)  # within the leeway
    assert again is not first
    clock.now_s += 30.0
    assert "expired" in await refused(verifier, value)


async def test_a_token_outlives_its_withdrawn_key_by_ten_minutes_at_most(verifier, issuer, clock):
    value = token(issuer, exp=int(clock.now_s) + 86_400)
    await verifier.claims(value)
    issuer.keys = [KEYS["EdDSA"]]
    clock.now_s += 599.0
    await verifier.claims(value)
    clock.now_s += 1.0
    assert "(invalid_key_id)" in await refused(verifier, value)


async def test_a_new_key_of_the_issuer_is_fetched_when_a_token_names_it(verifier, issuer, clock):
    await verifier.claims(token(issuer))
    new = generate_key("EC", "P-256", {"kid": "new"})
    issuer.keys = [*KEYS.values(), new]
    value = token(issuer, key=new)
    clock.now_s += 9.9
    assert "(invalid_key_id)" in await refused(verifier, value)
    assert issuer.fetches == 1
    clock.now_s += 0.1
    assert (await verifier.claims(value)).sub == "ada"
    assert issuer.fetches == 2


async def test_unknown_keys_cost_one_fetch_in_ten_seconds(verifier, issuer, clock):
    await verifier.claims(token(issuer))
    clock.now_s += 10.0
    others = [generate_key("EC", "P-256", {"kid": f"other-{n}"}) for n in range(5)]
    values = [token(issuer, key=key) for key in others]
    outcomes = await asyncio.gather(*map(verifier.claims, values), return_exceptions=True)
    assert [each.status for each in outcomes] == 5 * [401]
    for value in values:
        await refused(verifier, value)
    assert issuer.fetches == 2


async def test_calls_at_once_share_a_fetch_and_one_that_goes_away_ends_none(verifier, issuer):
    gone, *others = [asyncio.create_task(verifier.claims(token(issuer, sub=f"caller-{n}"))) for n in range(6)]
    await asyncio.sleep(0)
    gone.cancel()
    assert [claims.sub for claims in await asyncio.gather(*others)] == [f"caller-{n}" for n in range(1, 6)]
    assert issuer.fetches == 1


async def test_keys_are_fetched_again_after_ten_minutes(verifier, issuer, clock):
    await verifier.claims(token(issuer))
    clock.now_s += 599.0
    await verifier.claims(token(issuer, exp=int(clock.now_s) + 60))
    assert issuer.fetches == 1
    clock.now_s += 1.0
    await verifier.claims(token(issuer, exp=int(clock.now_s) + 60))
    assert issuer.fetches == 2


async def test_a_clock_that_is_set_back_stops_no_fetch(verifier, issuer, clock):
    await verifier.claims(token(issuer))
    clock.now_s -= 3600.0
    await verifier.claims(token(issuer, sub="bob"))
    assert issuer.fetches == 2


async def test_keys_of_a_kind_that_is_not_known_spoil_no_other(verifier, issuer):
    issuer.keys = [{"kty": "AKP", "kid": "ec"}, {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"}, KEYS["ES256"]]
    assert (await verifier.claims(token(issuer))).sub == "ada"


async def test_a_given_url_of_keys_needs_no_discovery(issuer, clock):
    verifier = TokenVerifier(issuer.url, AUDIENCE, f"{issuer.url}/jwks", clock)
    assert (await verifier.claims(token(issuer))).sub == "ada"
    assert [each.path for each in issuer.asked] == ["/jwks"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/jwks", Answer(status=500)),
        ("/jwks", Answer(b"<html>")),
        ("/jwks", Answer(b"[]")),
        ("/jwks", Answer({"keys": 5})),
        ("/jwks", Answer(b'{"keys": []' + b" " * 2**20 + b"}")),
        ("/jwks", Answer(status=302, headers={"location": "http://issuer.example/jwks"})),
        ("/.well-known/openid-configuration", Answer({"issuer": "https://other.example", "jwks_uri": "https://o/"})),
        ("/.well-known/openid-configuration", Answer({})),
        ("/.well-known/openid-configuration", None),
    ],
)
async def test_keys_that_cannot_be_fetched_are_503_and_one_line_a_second(verifier, issuer, clock, caplog, path, answer):
    issuer.answers = {path: answer}
    with caplog.at_level(logging.WARNING):
        assert "try again" in await refused(verifier, token(issuer), status=503)
        assert "try again" in await refused(verifier, token(issuer), status=503)
    assert [each.getMessage() for each in caplog.records] == ["keys of the token issuer not fetched"]
    issuer.answers = {}
    clock.now_s += 1.0
    assert (await verifier.claims(token(issuer))).sub == "ada"


async def test_a_discovery_document_that_names_a_plain_url_is_not_followed(verifier, issuer, caplog):
    documents = {"issuer": issuer.url, "jwks_uri": "http://issuer.example/jwks"}
    issuer.answers = {"/.well-known/openid-configuration": Answer(documents)}
    await refused(verifier, token(issuer), status=503)
    assert "neither https:// nor http:// on loopback" in str(caplog.records[0].fields["error"])


async def test_an_issuer_that_is_not_there_is_503(clock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    gone = TokenVerifier(url, AUDIENCE, None, clock)
    value = unsigned({"alg": "ES256", "kid": "ec"}, {})
    await refused(gone, value, status=503)


async def test_a_failed_fetch_leaves_known_keys_good_and_unknown_ones_open(verifier, issuer, clock):
    await verifier.claims(token(issuer))
    issuer.answers = {"/jwks": Answer(status=500)}
    clock.now_s += 10.0
    await refused(verifier, token(issuer, key=generate_key("EC", "P-256", {"kid": "new"})), status=503)
    assert (await verifier.claims(token(issuer, sub="bob"))).sub == "bob"


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "ftp://issuer.example",
        "file:///etc/passwd",
        "https://",
        "https://u:p@i",
        "x",
        "https://[a",
    ],
)
def test_keys_that_could_be_forged_on_the_way_are_refused_at_start(url):
    with pytest.raises(InvalidSetting, match="use https://, or http:// on loopback"):
        TokenVerifier(url, AUDIENCE)
    with pytest.raises(InvalidSetting, match="use https://"):
        TokenVerifier("https://issuer.example", AUDIENCE, url)


def test_loopback_is_what_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "localhost.example", "127.0.0.1.example")))
