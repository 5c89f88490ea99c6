"""Who is let in by which headers, what a caller may do, and when everybody is."""

import time

import pytest
from joserfc import jwt
from joserfc.jwk import generate_key
from stub_server import Answer, StubServer, serving
from unit.gateway.rig import refused, refuses

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.access import ANYBODY, RIGHTS, Access, Caller, may_start
from clipper_gateway.keys import KeyRing, make_key, revoke_key
from clipper_gateway.tokens import TokenVerifier
from clipper_stream.errors import InvalidSetting

ISSUER, AUDIENCE = "https://issuer.example", "clipper"
KEY = generate_key("EC", "P-256", {"kid": "one"})
SHOP = Caller("shop", frozenset({"digits"}), frozenset({"predict"}))
INVALID = 'Bearer error="invalid_token"'


def token(**claims):
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60, **claims}
    return jwt.encode({"alg": "ES256", "kid": "one"}, given, KEY)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def credentials(path, tmp_path):
    """Values that a header may have, by their names."""
    made = {
        name: make_key(path, name, applications=["digits"], rights=["predict"], rate=rate, now_ms=1)
        for name, rate in (("shop", None), ("slow", 0.01), ("gone", None))
    }
    revoke_key(path, "gone", 2)
    made["foreign"] = make_key(tmp_path / "other.json", "shop", applications=None, rights=["read"], rate=None, now_ms=1)
    return made | {"wrong": "cs_wrong", "token": token(), "forged": f"{token()}x"}


@pytest.fixture
def doors(path, credentials):
    """Access by keys, by tokens, by both and by nothing."""
    with serving(StubServer(metadata=Answer({"keys": [KEY.as_dict(private=False)]}))) as server:
        keys, tokens = KeyRing(path), TokenVerifier(ISSUER, AUDIENCE, f"{server.root}/jwks")
        yield {
            "keys": Access(keys=keys),
            "tokens": Access(tokens=tokens),
            "both": Access(keys=keys, tokens=tokens),
            "open": Access(),
        }


@pytest.mark.parametrize(
    ("door", "authorization", "api_key", "name"),
    [
        ("keys", None, "shop", "shop"),
        ("keys", "Bearer shop", None, "shop"),
        ("keys", "bearer shop", "shop", "shop"),
        ("both", None, "shop", "shop"),
        ("both", "Bearer token", None, "ada"),
        ("tokens", "Bearer token", None, "ada"),
        ("open", None, None, "anybody"),
    ],
)
async def test_credentials_are_taken_from_either_header(doors, credentials, door, authorization, api_key, name):
    caller = await identified(doors[door], credentials, authorization, api_key)
    assert caller == {"shop": SHOP, "ada": Caller("ada", None, frozenset()), "anybody": ANYBODY}[name]


def identified(access, credentials, authorization, api_key):
    """The caller of headers in which credentials stand by their names."""
    scheme, gap, name = (authorization or "").partition(" ")
    bearer = authorization and f"{scheme}{gap}{credentials.get(name, name)}"
    return access.identify(bearer, credentials.get(api_key, api_key))


@pytest.mark.parametrize(
    ("door", "authorization", "api_key", "status", "challenge"),
    [
        ("keys", "Bearer wrong", "shop", 400, None),
        ("keys", None, None, 401, "Bearer"),
        ("keys", "", "", 401, "Bearer"),
        ("keys", None, "", 401, "Bearer"),
        *(
            ("keys", authorization, None, 401, "Bearer")
            for authorization in ("Basic YTpi", "Bearer", "Bearer ", "cs_a")
        ),
        *(("keys", None, api_key, 401, INVALID) for api_key in ("wrong", "foreign", "gone")),
        ("keys", "Bearer token", None, 401, INVALID),
        ("tokens", None, "token", 401, INVALID),
        ("tokens", "Bearer shop", None, 401, INVALID),
        ("both", "Bearer forged", None, 401, INVALID),
        ("open", None, "shop", 401, INVALID),
        ("open", "Bearer x", None, 401, INVALID),
    ],
)
async def test_other_credentials_are_refused_without_a_word_of_them(
    doors, credentials, door, authorization, api_key, status, challenge
):
    found = await refused(identified(doors[door], credentials, authorization, api_key), status)
    assert found.headers.get("www-authenticate") == challenge
    said = str(found)
    assert not any(part in said for secret in credentials.values() for part in ("YTpi", *secret.split(".")))
    if api_key in {"wrong", "foreign", "gone"}:
        assert said == "the API key is unknown or revoked: ask for another"


async def test_a_used_up_rate_is_429(doors, credentials):
    await identified(doors["keys"], credentials, None, "slow")
    await refused(identified(doors["keys"], credentials, None, "slow"), 429)


@pytest.mark.parametrize(
    ("claims", "applications", "rights"),
    [
        ({"scope": "openid clipper:predict clipper:read"}, None, {"predict", "read"}),
        ({"scp": ["clipper:operate", "clipper:fly"], "clipper_applications": ["digits"]}, {"digits"}, {"operate"}),
        ({"scope": "clipper:predict", "clipper_applications": []}, set(), {"predict"}),
    ],
)
async def test_a_token_says_who_it_is_and_what_that_may_do(doors, claims, applications, rights):
    caller = await doors["tokens"].identify(f"Bearer {token(**claims)}", None)
    assert (caller.name, caller.applications, caller.rights) == ("ada", applications, rights)


def test_a_caller_may_do_what_its_rights_and_applications_allow():
    SHOP.require("predict")
    SHOP.require("predict", "digits")
    for right, application, said in (("operate", "digits", "has predict"), ("predict", "sums", r"only \['digits'\]")):
        with refuses(403, said):
            SHOP.require(right, application)
    assert ANYBODY.rights == frozenset(RIGHTS)
    for right in RIGHTS:
        ANYBODY.require(right, "any")


# --- settings -------------------------------------------------------------------------------------------------------
OF_ISSUER = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE}
HERE = "anybody on this machine may ask: no keys are configured (127.0.0.1 only)"


@pytest.mark.parametrize(
    ("settings", "notice"),
    [
        (dict(), HERE),
        (dict(address="127.0.0.2"), HERE.replace("127.0.0.1", "127.0.0.2")),
        (dict(address="::1"), HERE.replace("127.0.0.1", "::1")),
        (dict(address="localhost"), HERE.replace("127.0.0.1", "localhost")),
        *((dict(address=address), None) for address in ("0.0.0.0", "::", "", "localhost.example", "10.0.0.1")),
        (dict(address="10.0.0.1", insecure=True), "anybody who reaches this machine may ask"),
        (dict(address="10.0.0.1", keys_file="$PATH"), "holders of 0 API keys in $PATH may ask"),
        (dict(address="10.0.0.1", keys_file=""), None),
        (dict(address="10.0.0.1") | OF_ISSUER, f"holders of tokens of {ISSUER} for {AUDIENCE} may ask"),
    ],
)
async def test_other_machines_are_let_in_without_keys_only_on_request_and_the_notice_says_who_is(
    path, settings, notice
):
    settings = {name: str(path) if value == "$PATH" else value for name, value in settings.items()}
    section = GatewaySection(**settings)
    assert may_start(section) == (notice is not None)
    if notice is None:
        with pytest.raises(InvalidSetting, match=r"clipper-stream keys create NAME.*--insecure"):
            Access.from_settings(section)
        return
    access = Access.from_settings(section)
    assert access.notice().startswith(notice.replace("$PATH", str(path)))
    assert access.is_open == notice.startswith("anybody")
    if not access.is_open:
        await refused(access.identify(None, None), 401)


def test_an_issuer_has_a_url_that_nobody_forges():
    with pytest.raises(InvalidSetting, match="use https://"):
        Access.from_settings(GatewaySection(oidc_issuer="http://issuer.example", oidc_audience=AUDIENCE))
