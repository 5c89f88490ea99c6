"""Who is let in by which headers, what a caller may do, and when everybody is."""

import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import generate_key
from stub_server import Answer, StubServer, serving

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.access import ANYBODY, RIGHTS, Access, Caller, may_start
from clipper_gateway.errors import Refusal
from clipper_gateway.keys import KeyRing, make_key, revoke_key
from clipper_gateway.tokens import TokenVerifier
from clipper_stream.errors import InvalidSetting

ISSUER, AUDIENCE = "https://issuer.example", "clipper"
KEY = generate_key("EC", "P-256", {"kid": "one"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def secret(path):
    return make_key(path, "shop", applications=["digits"], rights=["predict"], rate=None, now_ms=1)


@pytest.fixture
def by_keys(path, secret):
    return Access(keys=KeyRing(path))


@pytest.fixture
def by_tokens():
    with serving(StubServer(metadata=Answer({"keys": [KEY.as_dict(private=False)]}))) as server:
        url = f"http://127.0.0.1:{server.port}/jwks"
        yield Access(tokens=TokenVerifier(ISSUER, AUDIENCE, url))


def token(**claims):
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60, **claims}
    return jwt.encode({"alg": "ES256", "kid": "one"}, given, KEY)


async def refusal_of(access, authorization=None, api_key=None):
    with pytest.raises(Refusal) as refused:
        await access.identify(authorization, api_key)
    challenge = refused.value.headers.get("www-authenticate")
    return refused.value.status, challenge, str(refused.value)


async def test_a_key_is_taken_from_either_header(by_keys, secret):
    shop = Caller("shop", frozenset({"digits"}), frozenset({"predict"}))
    assert await by_keys.identify(None, secret) == shop
    assert await by_keys.identify(f"Bearer {secret}", None) == shop
    assert await by_keys.identify(f"bearer {secret}", secret) == shop


async def test_two_headers_that_differ_are_a_bad_request(by_keys, secret):
    status, challenge, text = await refusal_of(by_keys, f"Bearer {secret}x", secret)
    assert (status, challenge) == (400, None)
    assert secret not in text


async def test_without_credentials_a_closed_gateway_asks_for_some(by_keys):
    for authorization, api_key in ((None, None), ("", ""), (None, "")):
        status, challenge, text = await refusal_of(by_keys, authorization, api_key)
        assert (status, challenge) == (401, "Bearer")
        assert "x-api-key" in text


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer", "Bearer ", "cs_abc"])
async def test_an_authorization_that_is_no_bearer_token_is_refused(by_keys, authorization):
    status, challenge, text = await refusal_of(by_keys, authorization)
    assert (status, challenge) == (401, "Bearer")
    assert "YTpi" not in text


async def test_a_wrong_a_foreign_and_a_revoked_key_are_refused_alike(by_keys, path, tmp_path, secret):
    foreign = make_key(tmp_path / "other.json", "shop", applications=None, rights=["read"], rate=None, now_ms=1)
    revoke_key(path, "shop", 2)
    said = [await refusal_of(Access(keys=KeyRing(path)), None, key) for key in ("cs_wrong", foreign, secret)]
    assert said == 3 * [(401, 'Bearer error="invalid_token"', "the API key is unknown or revoked: ask for another")]


async def test_a_used_up_rate_is_429(path):
    secret = make_key(path, "slow", applications=None, rights=["read"], rate=0.01, now_ms=1)
    access = Access(keys=KeyRing(path))
    await access.identify(None, secret)
    assert (await refusal_of(access, None, secret))[0] == 429


async def test_a_token_says_who_it_is_and_what_that_may_do(by_tokens):
    caller = await by_tokens.identify(f"Bearer {token(scope='openid clipper:predict clipper:read')}", None)
    assert caller == Caller("ada", None, frozenset({"predict", "read"}))
    listed = token(scp=["clipper:operate", "clipper:fly"], clipper_applications=["digits"])
    assert await by_tokens.identify(f"Bearer {listed}", None) == Caller(
        "ada", frozenset({"digits"}), frozenset({"operate"})
    )


async def test_a_token_with_an_empty_list_of_applications_may_use_none(by_tokens):
    caller = await by_tokens.identify(f"Bearer {token(scope='clipper:predict', clipper_applications=[])}", None)
    assert caller.applications == frozenset()


async def test_a_token_is_no_key_and_a_key_is_no_token(by_keys, by_tokens, secret):
    jwt_alone = token()
    assert (await refusal_of(by_keys, f"Bearer {jwt_alone}"))[:2] == (401, 'Bearer error="invalid_token"')
    assert (await refusal_of(by_tokens, None, jwt_alone))[0] == 401
    assert (await refusal_of(by_tokens, f"Bearer {secret}"))[0] == 401


async def test_keys_and_tokens_are_accepted_side_by_side(by_keys, by_tokens, secret):
    both = Access(keys=by_keys.keys, tokens=by_tokens.tokens)
    assert (await both.identify(None, secret)).name == "shop"
    assert (await both.identify(f"Bearer {token()}", None)).name == "ada"


async def test_open_access_lets_anybody_in_but_no_wrong_credentials(secret):
    assert await Access().identify(None, None) is ANYBODY
    assert ANYBODY.rights == frozenset(RIGHTS)
    assert (await refusal_of(Access(), None, secret))[0] == 401
    assert (await refusal_of(Access(), "Bearer x"))[0] == 401


def test_a_caller_may_do_what_its_rights_and_applications_allow():
    caller = Caller("shop", frozenset({"digits"}), frozenset({"predict"}))
    caller.require("predict")
    caller.require("predict", "digits")
    for right, application, said in (
        ("operate", "digits", "'shop' has no right 'operate', has predict"),
        ("predict", "sums", r"'shop' may not use application 'sums', only \['digits'\]"),
    ):
        with pytest.raises(Refusal, match=said) as refused:
            caller.require(right, application)
        assert refused.value.status == 403
    for right in RIGHTS:
        ANYBODY.require(right, "any")


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        (dict(), True),
        (dict(address="127.0.0.2"), True),
        (dict(address="::1"), True),
        (dict(address="localhost"), True),
        (dict(address="0.0.0.0"), False),
        (dict(address="::"), False),
        (dict(address=""), False),
        (dict(address="localhost.example"), False),
        (dict(address="10.0.0.1"), False),
        (dict(address="10.0.0.1", insecure=True), True),
        (dict(address="10.0.0.1", keys_file="keys.json"), True),
        (dict(address="10.0.0.1", keys_file=""), False),
        (dict(address="10.0.0.1", oidc_issuer=ISSUER, oidc_audience=AUDIENCE), True),
    ],
)
def test_other_machines_are_let_in_without_keys_only_on_request(settings, allowed):
    section = GatewaySection(**settings)
    assert may_start(section) == allowed
    if not allowed:
        with pytest.raises(InvalidSetting, match=r"clipper-stream keys create NAME.*--insecure"):
            Access.from_settings(section)


async def test_a_keys_file_that_is_not_there_yet_lets_nobody_in(path):
    access = Access.from_settings(GatewaySection(address="0.0.0.0", keys_file=str(path)))
    assert not access.is_open
    assert (await refusal_of(access))[0] == 401
    assert access.notice() == f"holders of 0 API keys in {path} may ask"


def test_settings_of_an_issuer_give_a_verifier_of_its_tokens():
    access = Access.from_settings(GatewaySection(oidc_issuer=ISSUER, oidc_audience=AUDIENCE))
    assert not access.is_open
    assert access.notice() == f"holders of tokens of {ISSUER} for {AUDIENCE} may ask"
    with pytest.raises(InvalidSetting, match="use https://"):
        Access.from_settings(GatewaySection(oidc_issuer="http://issuer.example", oidc_audience=AUDIENCE))


def test_the_notice_of_open_access_says_for_whom_it_is_open():
    assert Access.from_settings(GatewaySection()).notice() == (
        "anybody on this machine may ask: no keys are configured (127.0.0.1 only)"
    )
    exposed = Access.from_settings(GatewaySection(address="0.0.0.0", insecure=True))
    assert exposed.notice().startswith("anybody who reaches this machine may ask")


async def test_no_refusal_holds_what_was_presented(by_keys, by_tokens, secret):
    forged = token() + "x"
    both = Access(keys=by_keys.keys, tokens=by_tokens.tokens)
    for authorization, api_key in ((f"Bearer {forged}", None), (None, f"{secret}x"), (f"Bearer {secret}x", secret)):
        _, _, text = await refusal_of(both, authorization, api_key)
        assert not any(part in text for part in (secret, forged, *forged.split(".")))
        json.dumps(text)
