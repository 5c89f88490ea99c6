"""Who may look at the console, for how long, and which requests are not its own pages'."""

import logging

import pytest
from starlette.datastructures import QueryParams

from clipper_gateway.access import ANYBODY, NOBODY, Access
from clipper_gateway.console.sessions import FORGIVEN_S, LASTS_S, MOST_FAILURES, MOST_SESSIONS, Sessions
from clipper_gateway.errors import Refusal
from clipper_gateway.keys import CHECK_INTERVAL_S, KeyRing, make_key, revoke_key
from clipper_gateway.rest import HttpCall
from clipper_gateway.tokens import TokenClaims

LOCAL = {"host": "localhost:8080"}


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self):
        self.now_s = 1_000.0

    def __call__(self):
        return self.now_s


class Tokens:
    """One token is good, until a time."""

    def __init__(self, token, until_s):
        self.token, self.until_s = token, until_s

    async def claims(self, token):
        if token != self.token:
            raise Refusal(401, "no such token")
        return TokenClaims(sub="grace", exp=self.until_s, scope="clipper:read clipper:operate")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def secret(file):
    return make_key(file, "ada", applications=["digits"], rights=["read", "operate"], rate=1e-6, now_ms=0)


@pytest.fixture
def sessions(file, secret, clock):
    return Sessions(Access(keys=KeyRing(file, clock)), clock=clock)


def call(headers=None, peer="10.0.0.1"):
    return HttpCall(NOBODY, b"", headers or {}, {}, QueryParams(""), [], peer)


def cookie(set_cookie):
    """The header that a browser sends after this one."""
    return {"cookie": f"theme=dark; {set_cookie.partition(';')[0]}"}


async def test_a_key_begins_a_session_that_counts_none_of_its_rate(sessions, secret):
    headers = cookie(await sessions.sign_in(call(), f" {secret}\n"))
    for _ in range(3):
        caller = await sessions.identify(headers)
        assert (caller.name, caller.applications, caller.rights) == ("ada", {"digits"}, {"read", "operate"})


@pytest.mark.parametrize(
    ("is_secure", "headers", "secured"),
    [
        pytest.param(False, {}, False, id="without TLS"),
        pytest.param(True, {}, True, id="with TLS"),
        pytest.param(False, {"origin": "https://console.example"}, True, id="behind a proxy with TLS"),
    ],
)
async def test_the_cookie_is_for_the_console_alone(file, secret, is_secure, headers, secured):
    made = await Sessions(Access(keys=KeyRing(file)), is_secure=is_secure).sign_in(call(headers), secret)
    name, *rules = made.split("; ")
    assert len(name.partition("=")[2]) >= 43
    wanted = {f"Max-Age={LASTS_S}", "Path=/console", "HttpOnly", "SameSite=Strict", *(["Secure"] if secured else [])}
    assert set(rules) == wanted


async def test_a_session_ends_after_its_time_and_when_its_holder_signs_out(sessions, file, clock):
    secret = make_key(file, "guest", applications=None, rights=["read"], rate=None, now_ms=0)
    clock.now_s += CHECK_INTERVAL_S
    first, second = [cookie(await sessions.sign_in(call(), secret)) for _ in range(2)]
    assert "Max-Age=0;" in sessions.sign_out(call(first))
    for ended in (first, {"cookie": "clipper-console="}, {"cookie": "clipper-console=unknown"}, {}):
        with pytest.raises(Refusal) as refused:
            await sessions.identify(ended)
        assert refused.value.status == 401
    clock.now_s += LASTS_S - 1
    assert (await sessions.identify(second)).name == "guest"
    clock.now_s += 1
    with pytest.raises(Refusal, match="nobody is signed in"):
        await sessions.identify(second)
    assert sessions.csrf_of(second) == ""


async def test_a_revoked_key_ends_its_sessions(sessions, secret, file, clock):
    headers = cookie(await sessions.sign_in(call(), secret))
    revoke_key(file, "ada", 1)
    clock.now_s += CHECK_INTERVAL_S
    with pytest.raises(Refusal, match="unknown or revoked") as refused:
        await sessions.identify(headers)
    assert refused.value.status == 401


async def test_a_session_of_a_token_ends_with_the_token():
    tokens = Tokens("token", 1e12)
    sessions = Sessions(Access(tokens=tokens))
    caller = await sessions.identify(cookie(await sessions.sign_in(call(), "token")))
    assert (caller.name, caller.rights) == ("grace", {"read", "operate"})
    tokens.until_s = 1.0
    with pytest.raises(Refusal, match="time is over") as refused:
        await sessions.sign_in(call(), "token")
    assert refused.value.status == 401


async def test_headers_with_credentials_need_no_session(sessions, file, clock):
    secret = make_key(file, "script", applications=None, rights=["operate"], rate=None, now_ms=0)
    clock.now_s += CHECK_INTERVAL_S
    for headers in ({"x-api-key": secret}, {"authorization": f"Bearer {secret}"}):
        assert (await sessions.identify(headers)).name == "script"
        sessions.check_forgery(headers, "")
    with pytest.raises(Refusal, match="unknown or revoked"):
        await sessions.identify({"x-api-key": "cs_wrong"})


async def test_failed_sign_ins_are_bounded_by_address_and_logged_without_keys(sessions, secret, clock, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(MOST_FAILURES):
        with pytest.raises(Refusal) as refused:
            await sessions.sign_in(call(), "cs_guessed")
        assert refused.value.status == 401
    with pytest.raises(Refusal) as refused:
        await sessions.sign_in(call(), secret)
    assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "60")
    assert await sessions.sign_in(call(peer="10.0.0.2"), secret)
    clock.now_s += FORGIVEN_S + 1e6  # the rate of the key is one in so many seconds
    assert await sessions.sign_in(call(), secret)
    fields = [record.fields for record in caplog.records if record.name.endswith("sessions")]
    assert [one["peer"] for one in fields] == ["10.0.0.1"] * MOST_FAILURES + ["10.0.0.2", "10.0.0.1"]
    assert not any(key in str(fields) for key in ("cs_guessed", secret, secret[3:]))


async def test_sessions_are_bounded_and_the_oldest_goes_first(file, clock):
    secret = make_key(file, "ada", applications=None, rights=["read"], rate=None, now_ms=0)
    sessions = Sessions(Access(keys=KeyRing(file, clock)), clock=clock)
    first, second = [cookie(await sessions.sign_in(call(), secret)) for _ in range(2)]
    for _ in range(MOST_SESSIONS - 1):
        await sessions.sign_in(call(), secret)
    with pytest.raises(Refusal):
        await sessions.identify(first)
    assert (await sessions.identify(second)).name == "ada"


# --- without keys -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "host", "rights"),
    [
        pytest.param("127.0.0.1", "localhost:8080", ANYBODY.rights, id="by name"),
        pytest.param("127.0.0.1", "127.0.0.1:8080", ANYBODY.rights, id="by address"),
        pytest.param("::1", "[::1]:8080", ANYBODY.rights, id="by address of version 6"),
        pytest.param("0.0.0.0", "localhost:8080", {"read"}, id="where others reach it"),
    ],
)
async def test_without_keys_who_uses_this_machine_looks_and_acts(address, host, rights):
    sessions = Sessions(Access(address=address))
    for headers in ({"host": host}, {"host": host, "x-api-key": "cs_any"}):
        assert (await sessions.identify(headers)).rights == rights


@pytest.mark.parametrize("host", ["", "rebound.example", "rebound.example:8080", "127.0.0.1.rebound.example:8080"])
async def test_without_keys_another_host_is_refused(host):
    with pytest.raises(Refusal, match="make a key") as refused:
        await Sessions(Access()).identify({"host": host})
    assert refused.value.status == 403


# --- forged requests --------------------------------------------------------------------------------------------------
FORGED = {
    "no token": ({}, ""),
    "another token": ({}, "another"),
    "a token that is no ASCII": ({}, "\u00e9" * 43),
    "another token in the header": ({"x-csrf-token": "another"}, "$TOKEN"),
    "a page of another site": ({"sec-fetch-site": "cross-site"}, "$TOKEN"),
    "a page of another port or name": ({"sec-fetch-site": "same-site"}, "$TOKEN"),
    "no page at all": ({"sec-fetch-site": "none"}, "$TOKEN"),
}


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize("is_open", [True, False], ids=["without keys", "with a session"])
async def test_what_no_page_of_the_console_sent_is_refused(sessions, secret, case, is_open):
    added, given = FORGED[case]
    if is_open:
        sessions, headers = Sessions(Access()), LOCAL | {"x-api-key": "any"}
    else:
        headers = cookie(await sessions.sign_in(call(), secret))
    token = sessions.csrf_of(headers)
    with pytest.raises(Refusal) as refused:
        sessions.check_forgery(headers | added, given.replace("$TOKEN", token))
    assert refused.value.status == 403
    sessions.check_forgery(headers | {"sec-fetch-site": "same-origin"}, token)
    sessions.check_forgery(headers | {"x-csrf-token": token}, "")


async def test_the_token_of_one_session_is_none_of_another(sessions, file, clock):
    secret = make_key(file, "guest", applications=None, rights=["read"], rate=None, now_ms=0)
    clock.now_s += CHECK_INTERVAL_S
    first, second = [cookie(await sessions.sign_in(call(), secret)) for _ in range(2)]
    with pytest.raises(Refusal, match="reload it"):
        sessions.check_forgery(first, sessions.csrf_of(second))
    with pytest.raises(Refusal, match="another site"):
        await sessions.sign_in(call({"sec-fetch-site": "cross-site"}), secret)
