import pytest
from unit.gateway.rig import TOKEN, StubTokens, key_in, refused, refuses, sent

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.access import Access
from clipper_gateway.callers import ANYBODY, RIGHTS, Caller
from clipper_gateway.keys import KeyRing, revoke_key
from clipper_gateway.tokens import INVALID_TOKEN
from clipper_stream.errors import InvalidSetting

ISSUER, AUDIENCE = "https://issuer.example", "clipper"
SHOP = Caller("shop", frozenset({"digits"}), frozenset({"predict"}))
INVALID = INVALID_TOKEN["www-authenticate"]


@pytest.fixture
def credentials(keys_file, tmp_path):
    rates = {"shop": None, "slow": 0.01, "gone": None}
    made = {name: key_in(keys_file, name, applications=["digits"], rate=rate) for name, rate in rates.items()}
    revoke_key(keys_file, "gone", 9)
    foreign = key_in(tmp_path / "other.json", "shop", "read")
    return made | {"foreign": foreign, "wrong": "cs_wrong", "token": TOKEN, "forged": f"{TOKEN}x"}


@pytest.fixture
async def doors(keys_file, credentials):
    """Access by keys, of which the slow one was used already, by tokens, by both and by nothing."""
    keys, tokens = KeyRing(keys_file), StubTokens()
    keyed = Access(keys=keys)
    await keyed.identify(sent(None, credentials["slow"]))
    return {
        "keys": keyed,
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
        ("open", None, None, "no sign-in"),
    ],
)
async def test_credentials_are_taken_from_either_header(doors, credentials, door, authorization, api_key, name):
    caller = await identified(doors[door], credentials, authorization, api_key)
    ada = Caller("ada of https://id.example.com", None, frozenset())
    assert caller == {"shop": SHOP, "ada": ada, "no sign-in": ANYBODY}[name]


def identified(access, credentials, authorization, api_key):
    """The caller of headers in which credentials stand by their names."""
    scheme, gap, name = (authorization or "").partition(" ")
    bearer = authorization and f"{scheme}{gap}{credentials.get(name, name)}"
    return access.identify(sent(bearer, credentials.get(api_key, api_key)))


@pytest.mark.parametrize(
    ("door", "authorization", "api_key", "status", "challenge"),
    [
        ("keys", "Bearer wrong", "shop", 400, None),
        ("keys", None, None, 401, "Bearer"),
        ("keys", "", "", 401, "Bearer"),
        ("keys", None, "", 401, "Bearer"),
        *(("keys", header, None, 401, "Bearer") for header in ("Basic YTpi", "Bearer", "Bearer ", "cs_a")),
        *(("keys", None, api_key, 401, INVALID) for api_key in ("wrong", "foreign", "gone")),
        ("keys", None, "slow", 429, None),
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


@pytest.mark.parametrize(
    ("claims", "applications", "rights"),
    [
        ({"scope": "openid clipper:predict clipper:read"}, None, {"predict", "read"}),
        ({"scp": ["clipper:operate", "clipper:fly"], "clipper_applications": ["digits"]}, {"digits"}, {"operate"}),
        ({"scope": "clipper:predict", "clipper_applications": []}, set(), {"predict"}),
    ],
)
async def test_a_token_says_who_it_is_and_what_that_may_do(claims, applications, rights):
    caller = await Access(tokens=StubTokens(**claims)).identify(sent(f"Bearer {TOKEN}", None))
    name = "ada of https://id.example.com"  # no key has this name, whatever its holder's issuer calls him
    assert (caller.name, caller.applications, caller.rights) == (name, applications, rights)


async def test_a_token_is_verified_once_at_a_sign_in():
    tokens, verified = StubTokens(), []
    claims = tokens.claims

    def counted(token):
        verified.append(token)
        return claims(token)

    tokens.claims = counted
    holder = await Access(tokens=tokens).sign_in(TOKEN, "10.0.0.1")
    assert (holder().name, verified) == ("ada of https://id.example.com", [TOKEN])


def test_a_caller_may_do_what_its_rights_and_applications_allow():
    SHOP.require("predict")
    SHOP.require("predict", "digits")
    for right, application, said in (("operate", "digits", "has predict"), ("predict", "sums", r"only \['digits'\]")):
        with refuses(403, said):
            SHOP.require(right, application)
    assert ANYBODY.rights == frozenset(RIGHTS)
    for right in RIGHTS:
        ANYBODY.require(right, "any")


async def test_refused_credentials_are_in_the_log_ten_times_a_minute_of_an_address(doors, credentials, caplog):
    for address in ("10.0.0.1",) * 12 + ("10.0.0.2",):
        await refused(doors["both"].identify(sent(None, credentials["wrong"], address)), 401)
    await refused(doors["both"].identify(sent(None, None, "10.0.0.3")), 401)
    said = [(one.getMessage(), one.fields["peer"]) for one in caplog.records if one.name.endswith("access")]
    assert said == [("credentials refused", "10.0.0.1")] * 10 + [("credentials refused", "10.0.0.2")]
    assert await doors["both"].sign_in(credentials["shop"], "10.0.0.1"), "they lock nobody out"


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
        *((dict(address=address), None) for address in ("0.0.0.0", "::", "", "localhost.example", "127.0.0.1.example")),
        (dict(address="10.0.0.1", insecure=True), "anybody who reaches this machine may ask"),
        (dict(address="10.0.0.1", keys_file="$PATH"), "holders of 0 API keys in $PATH may ask"),
        (dict(address="10.0.0.1", keys_file=""), None),
        (dict(address="10.0.0.1") | OF_ISSUER, f"holders of tokens of {ISSUER} for {AUDIENCE} may ask"),
    ],
)
async def test_other_machines_are_let_in_without_keys_only_on_request_and_the_notice_says_who_is(
    keys_file, settings, notice
):
    settings = {name: str(keys_file) if value == "$PATH" else value for name, value in settings.items()}
    section = GatewaySection(**settings)
    if notice is None:
        with pytest.raises(InvalidSetting, match=r"clipper-stream keys create NAME.*gateway.insecure = true"):
            Access.from_settings(section)
        return
    access = Access.from_settings(section)
    assert access.notice().startswith(notice.replace("$PATH", str(keys_file)))
    assert access.is_open == notice.startswith("anybody")
    if not access.is_open:
        await refused(access.identify(sent(None, None)), 401)
