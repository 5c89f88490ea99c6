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
from unit.gateway.rig import Clock, refuses

from clipper_gateway.tokens import MAX_TOKEN_BYTES, TokenVerifier
from clipper_stream.errors import InvalidSetting

AUDIENCE = "clipper"
NOW_S = int(Clock().now_s)
RSA, ED = generate_key("RSA", 2048, {"kid": "rsa"}), generate_key("OKP", "Ed25519", {"kid": "ed"})
EC, OWN, NEW, NEWER = [generate_key("EC", "P-256", {"kid": kid}) for kid in ("ec", "ec", "new", "newer")]
KEYS = {"RS256": RSA, "PS256": RSA, "ES256": EC, "EdDSA": ED}
ANY = JWSRegistry(algorithms=[*JWSRegistry.algorithms], strict_check_header=False)
DISCOVERY = "/.well-known/openid-configuration"


@dataclass
class Issuer(StubServer):
    """An issuer on loopback: its keys, and its discovery document."""

    keys: list = field(default_factory=lambda: [RSA, EC, ED])
    answers: dict = field(default_factory=dict)

    @property
    def paths(self):
        return [each.path for each in self.asked]

    def answer(self, asked):
        self.asked.append(asked)
        keys = [each if isinstance(each, dict) else each.as_dict() for each in self.keys]
        discovery = {"issuer": self.root, "jwks_uri": f"{self.root}/jwks"}
        return ({DISCOVERY: Answer(discovery), "/jwks": Answer({"keys": keys})} | self.answers)[asked.path]


@pytest.fixture
def issuer():
    with serving(Issuer()) as server:
        yield server


@pytest.fixture
def verifier(issuer, clock):
    return TokenVerifier(issuer.root, AUDIENCE, None, clock)


def claims_of(issuer, **claims):
    return {"iss": issuer.root, "aud": AUDIENCE, "sub": "ada", "exp": NOW_S + 60, **claims}


def token(issuer, alg="ES256", key=None, header=(), **claims):
    given = {name: value for name, value in claims_of(issuer, **claims).items() if value is not None}
    key = key or KEYS[alg]
    return jwt.encode({"alg": alg, "kid": key.kid, **dict(header)}, given, key, registry=ANY)


def encoded(part):
    return (
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=").decode()
    )


def unsigned(header, claims=()):
    return f"{encoded(header)}.{encoded(dict(claims))}."


async def refused(verifier, value, status=401, said=""):
    with refuses(status) as found:
        await verifier.claims(value)
    if status == 401:
        assert found.value.headers == {"www-authenticate": 'Bearer error="invalid_token"'}
    assert said in str(found.value)
    assert len(value) < 4 or value not in str(found.value)


@pytest.mark.parametrize("alg", KEYS)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_each_asymmetric_algorithm_passes(verifier, issuer, alg):
    claims = await verifier.claims(token(issuer, alg, scope="openid clipper:predict", scp=["clipper:read"]))
    assert (claims.sub, claims.scopes) == ("ada", {"openid", "clipper:predict", "clipper:read"})


# --- tokens that do not pass ----------------------------------------------------------------------------------------
def signed_by_hmac(issuer):
    """Signed by the public key of the issuer, as if that were a secret."""
    head = unsigned({"alg": "HS256", "kid": "rsa"}, claims_of(issuer))[:-1]
    return f"{head}.{encoded(hmac.digest(RSA.as_pem(private=False), head.encode(), 'sha256'))}"


def signed_by_a_shared_key(issuer):
    shared = generate_key("oct", 256, {"kid": "shared"})
    issuer.keys = [shared.as_dict(private=True)]
    return token(issuer, "HS256", shared)


def changed(issuer, *, signature=True):
    head, _, signed = token(issuer).split(".")
    return f"{head}.{token(issuer, sub='root').split('.')[1]}.{signed if signature else ''}"


def with_null_applications(issuer):
    return jwt.encode({"alg": "ES256", "kid": "ec"}, claims_of(issuer, clipper_applications=None), EC)


FORGED = {
    "the issuer's public key as a secret": (signed_by_hmac, "(unsupported_algorithm)"),
    "a secret among the issuer's keys": (signed_by_a_shared_key, "(unsupported_algorithm)"),
    "a key that it brings along": (
        lambda issuer: token(issuer, key=OWN, header={"jwk": OWN.as_dict(private=False), "jku": f"{issuer.root}/own"}),
        "(bad_signature)",
    ),
    "changed claims": (changed, "(bad_signature)"),
    "no signature": (lambda issuer: changed(issuer, signature=False), "(bad_signature)"),
    "null for applications": (with_null_applications, "clipper_applications"),
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_token_is_refused_by_the_issuers_keys_alone(verifier, issuer, case):
    make, said = FORGED[case]
    await refused(verifier, make(issuer), said=said)
    assert issuer.paths == [DISCOVERY, "/jwks"]


@pytest.mark.parametrize(
    ("alg", "said"),
    [
        *((alg, "(unsupported_algorithm)") for alg in ("none", "None", "HS256", "RS512", "ES256K", "")),
        *((alg, "(invalid_header_value)") for alg in (5, None, ["RS256"])),
    ],
)
async def test_no_other_algorithm_passes_whatever_the_signature(verifier, issuer, alg, said):
    await refused(verifier, unsigned({"alg": alg, "kid": "rsa"}, claims_of(issuer)), said=said)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (dict(exp=NOW_S - 30), "The token is expired"),
        (dict(exp=None), "Missing claim: 'exp'"),
        (dict(exp="tomorrow"), "'exp' must be a NumericDate"),
        (dict(exp=float("nan")), "'exp' must be a NumericDate"),
        (dict(nbf=NOW_S + 31), "not yet valid"),
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
async def test_a_wrong_claim_is_named_and_where_to_get_a_token(verifier, issuer, claims, said):
    await refused(verifier, token(issuer, **claims), said=said)
    await refused(verifier, token(issuer, **claims), said=f"get one from {issuer.root} for {AUDIENCE}")


@pytest.mark.parametrize(
    "claims",
    [
        *(dict(exp=at_s) for at_s in (NOW_S - 29, NOW_S + 0.5, 10**400)),
        dict(nbf=NOW_S + 30),
        dict(aud=["other", AUDIENCE]),
        dict(header={"nonce": "x"}),
    ],
)
async def test_clocks_may_differ_by_half_a_minute_audiences_be_many_and_headers_unknown(verifier, issuer, claims):
    assert (await verifier.claims(token(issuer, **claims))).sub == "ada"


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", "a.b.c", "...", "é.é.é"),
        *map(unsigned, (["alg"], "alg", 5, {"alg": "ES256", "kid": 5})),
        *(unsigned({"alg": "ES256", "kid": "ec", **more}) for more in ({"crit": [["x"]]}, {"crit": 5}, {"b64": False})),
        "A" * MAX_TOKEN_BYTES,
        "A" * (MAX_TOKEN_BYTES + 1),
        encoded(b"[" * 300) + ".e30.",
    ],
)
async def test_garbage_is_refused_without_an_error_of_another_kind(verifier, value):
    await refused(verifier, value)


# --- how long a token is good ---------------------------------------------------------------------------------------
async def test_a_token_is_checked_once_until_it_expires(verifier, issuer, clock):
    value = token(issuer)
    first = await verifier.claims(value)
    assert await verifier.claims(value) is first
    clock.now_s += 60.0
    again = await verifier.claims(value)  # within the leeway
    assert again is not first
    clock.now_s += 30.0
    await refused(verifier, value, said="expired")


# --- how often keys are fetched -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("then", "steps"),
    [
        ({}, [(0, "ada", 200, 1), (599, "bob", 200, 1), (1, "eve", 200, 2)]),
        ({}, [(0, "ada", 200, 1), (-3600, "bob", 200, 2)]),
        ({"keys": [NEW]}, [(0, "ada", 200, 1), (9.9, "new", 401, 1), (0.1, "new", 200, 2)]),
        ({"keys": [NEW]}, [(0, "ada", 200, 1), (599, "ada", 200, 1), (1, "ada", 401, 2)]),
        ({}, [(0, "ada", 200, 1), (10, "new", 401, 2), (0, "newer", 401, 2), (10, "newer", 401, 3)]),
        (
            {"answers": {"/jwks": Answer(status=500)}},
            [(0, "ada", 200, 1), (10, "new", 503, 2), (0, "bob", 200, 2), (600, "ada", 503, 3)],
        ),
    ],
    ids=["after ten minutes", "a clock set back", "a new key", "a withdrawn key", "unknown keys", "a failed fetch"],
)
async def test_keys_are_fetched_when_they_are_old_or_a_token_names_another(verifier, issuer, clock, then, steps):
    """Steps are seconds that pass, whose token comes, how it is answered, and fetches by then."""
    keys = {"new": NEW, "newer": NEWER}
    tokens = {
        name: token(issuer, key=keys.get(name), sub=name, exp=NOW_S + 86_400)
        for name in ("ada", "bob", "eve", "new", "newer")
    }
    for passed_s, name, status, fetches in steps:
        clock.now_s += passed_s
        if status == 200:
            assert (await verifier.claims(tokens[name])).sub == name
        else:
            await refused(verifier, tokens[name], status, "(invalid_key_id)" if status == 401 else "")
        assert issuer.paths.count("/jwks") == fetches
        vars(issuer).update(then)


async def test_calls_at_once_for_an_unknown_key_share_a_fetch(verifier, issuer, clock):
    await verifier.claims(token(issuer))
    clock.now_s += 10.0
    calls = [verifier.claims(token(issuer, key=NEW, sub=f"caller-{n}")) for n in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [each.status for each in outcomes] == 5 * [401]
    assert issuer.paths.count("/jwks") == 2


async def test_calls_at_once_share_a_fetch_and_one_that_goes_away_ends_none(verifier, issuer):
    gone, *others = [asyncio.create_task(verifier.claims(token(issuer, sub=f"caller-{n}"))) for n in range(6)]
    await asyncio.sleep(0)
    gone.cancel()
    assert [claims.sub for claims in await asyncio.gather(*others)] == [f"caller-{n}" for n in range(1, 6)]
    assert issuer.paths.count("/jwks") == 1


async def test_keys_of_a_kind_that_is_not_known_spoil_no_other(verifier, issuer):
    issuer.keys = [{"kty": "AKP", "kid": "ec"}, {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"}, EC]
    assert (await verifier.claims(token(issuer))).sub == "ada"


async def test_a_given_url_of_keys_needs_no_discovery(issuer, clock):
    verifier = TokenVerifier(issuer.root, AUDIENCE, f"{issuer.root}/jwks", clock)
    assert (await verifier.claims(token(issuer))).sub == "ada"
    assert issuer.paths == ["/jwks"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/jwks", Answer(status=500)),
        ("/jwks", Answer(b"<html>")),
        ("/jwks", Answer(b"[]")),
        ("/jwks", Answer({"keys": 5})),
        ("/jwks", Answer(b'{"keys": []' + b" " * 2**20 + b"}")),
        ("/jwks", Answer(status=302, headers={"location": "http://issuer.example/jwks"})),
        (DISCOVERY, Answer({"issuer": "https://other.example", "jwks_uri": "https://o/"})),
        (DISCOVERY, Answer({})),
        (DISCOVERY, None),
    ],
)
async def test_keys_that_cannot_be_fetched_are_503_and_one_line_a_second(verifier, issuer, clock, caplog, path, answer):
    issuer.answers = {path: answer}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await refused(verifier, token(issuer), 503, "try again")
    assert [each.getMessage() for each in caplog.records] == ["keys of the token issuer not fetched"]
    issuer.answers = {}
    clock.now_s += 1.0
    assert (await verifier.claims(token(issuer))).sub == "ada"


async def test_a_discovery_document_that_names_a_plain_url_is_not_followed(verifier, issuer, caplog):
    issuer.answers = {DISCOVERY: Answer({"issuer": issuer.root, "jwks_uri": "http://issuer.example/jwks"})}
    await refused(verifier, token(issuer), 503)
    assert "neither https:// nor http:// on loopback" in str(caplog.records[0].fields["error"])


async def test_an_issuer_that_is_not_there_is_503(clock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    await refused(TokenVerifier(url, AUDIENCE, None, clock), unsigned({"alg": "ES256", "kid": "ec"}), 503)


PLAIN = "http://issuer.example ftp://issuer.example file:///etc/passwd https:// https://u:p@i x https://[a"


@pytest.mark.parametrize("url", PLAIN.split())
def test_keys_that_could_be_forged_on_the_way_are_refused_at_start(url):
    for issuer, jwks_url in ((url, None), ("https://issuer.example", url)):
        with pytest.raises(InvalidSetting, match="use https://, or http:// on loopback"):
            TokenVerifier(issuer, AUDIENCE, jwks_url)
