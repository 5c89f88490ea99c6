import logging

import pytest
from unit.gateway.rig import TOKEN, StubTokens, key_in, refused, refuses

from clipper_gateway.access import Access
from clipper_gateway.callers import ANYBODY, FAILURES, FORGIVEN_S, Shares
from clipper_gateway.console.sessions import LASTS_S, MOST_OF_CALLER, Sessions
from clipper_gateway.keys import CHECK_INTERVAL_S, KeyRing, revoke_key
from clipper_gateway.served_call import ServedCall


@pytest.fixture
def secret(keys_file):
    return key_in(keys_file, "ada", "read", "operate", applications=["digits"], rate=1e-6)


@pytest.fixture
def guest(keys_file):
    return key_in(keys_file, "guest", "read")


@pytest.fixture
def sessions(keys_file, secret, guest, clock):
    return Sessions(Access(keys=KeyRing(keys_file, clock), shares=Shares(clock=clock)), clock=clock)


def call(headers=None, peer="10.0.0.1"):
    return ServedCall(headers=headers or {}, peer=peer)


async def signed_in(sessions, secret):
    """The header that a browser sends after it has signed in."""
    return {"cookie": f"theme=dark; {(await sessions.sign_in(call(), secret)).partition(';')[0]}"}


async def test_a_key_begins_a_session_that_counts_none_of_its_rate(sessions, secret):
    headers = await signed_in(sessions, f" {secret}\n")
    for _ in range(3):
        caller = await sessions.identify(call(headers))
        assert (caller.name, caller.applications, caller.rights) == ("ada", {"digits"}, {"read", "operate"})


@pytest.mark.parametrize(
    ("is_secure", "headers", "secured"),
    [(False, {}, []), (True, {}, ["Secure"]), (False, {"origin": "https://console.example"}, ["Secure"])],
    ids=["without TLS", "with TLS", "behind a proxy with TLS"],
)
async def test_the_cookie_is_for_the_console_alone(keys_file, secret, is_secure, headers, secured):
    made = await Sessions(Access(keys=KeyRing(keys_file)), is_secure=is_secure).sign_in(call(headers), secret)
    name, *rules = made.split("; ")
    assert len(name.partition("=")[2]) >= 43
    assert set(rules) == {f"Max-Age={LASTS_S}", "Path=/console", "HttpOnly", "SameSite=Strict", *secured}


async def test_a_session_ends_after_its_time_and_when_its_holder_signs_out(sessions, guest, clock):
    first, second = [await signed_in(sessions, guest) for _ in range(2)]
    assert "Max-Age=0;" in sessions.sign_out(call(first))
    for ended in (first, {"cookie": "clipper-console="}, {"cookie": "clipper-console=unknown"}, {}):
        await refused(sessions.identify(call(ended)), 401)
    clock.now_s += LASTS_S - 1
    assert (await sessions.identify(call(second))).name == "guest"
    clock.now_s += 1
    await refused(sessions.identify(call(second)), 401, "nobody is signed in")
    assert sessions.csrf_of(second) == ""


async def test_who_signs_out_is_in_the_log(sessions, guest, caplog):
    caplog.set_level(logging.INFO)
    headers = await signed_in(sessions, guest)
    for _ in range(2):
        sessions.sign_out(call(headers))
    said = [record.getMessage() for record in caplog.records if record.fields.get("caller") == "guest"]
    assert said == ["signed in", "signed out"]


async def test_a_revoked_key_ends_its_sessions(sessions, secret, keys_file, clock):
    headers = await signed_in(sessions, secret)
    revoke_key(keys_file, "ada", 1)
    clock.now_s += CHECK_INTERVAL_S
    await refused(sessions.identify(call(headers)), 401, "unknown or revoked")


async def test_a_session_of_a_token_ends_with_the_token():
    tokens = StubTokens(scope="clipper:read clipper:operate")
    sessions = Sessions(Access(tokens=tokens))
    caller = await sessions.identify(call(await signed_in(sessions, TOKEN)))
    assert (caller.name, caller.rights) == ("ada of https://id.example.com", {"read", "operate"})
    tokens.claimed["exp"] = 1.0
    await refused(sessions.sign_in(call(), TOKEN), 401, "time is over")


async def test_headers_with_credentials_need_no_session(sessions, guest):
    for headers in ({"x-api-key": guest}, {"authorization": f"Bearer {guest}"}):
        assert (await sessions.identify(call(headers))).name == "guest"
        sessions.check_forgery(headers, "")
    await refused(sessions.identify(call({"x-api-key": "cs_wrong"})), 401, "unknown or revoked")


async def test_failed_sign_ins_are_bounded_by_address_and_logged_without_keys(sessions, secret, clock, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(FAILURES):
        await refused(sessions.sign_in(call(), "cs_guessed"), 401)
    assert (await refused(sessions.sign_in(call(), secret), 429)).headers["retry-after"] == "6"
    assert await sessions.sign_in(call(peer="10.0.0.2"), secret)
    clock.now_s += FORGIVEN_S
    assert await sessions.sign_in(call(), secret)
    fields = [record.fields for record in caplog.records if record.name.endswith(("access", "sessions"))]
    assert [one["peer"] for one in fields] == ["10.0.0.1"] * FAILURES + ["10.0.0.2", "10.0.0.1"]
    assert not any(key in str(fields) for key in ("cs_guessed", secret, secret[3:]))


async def test_sessions_of_a_caller_are_bounded_and_its_own_oldest_goes_first(sessions, guest, secret):
    """A thousand of one caller ended those of everybody else."""
    others = await signed_in(sessions, secret)
    first, second = [await signed_in(sessions, guest) for _ in range(2)]
    for _ in range(MOST_OF_CALLER - 1):
        await sessions.sign_in(call(), guest)
    await refused(sessions.identify(call(first)), 401)
    assert (await sessions.identify(call(second))).name == "guest"
    assert (await sessions.identify(call(others))).name == "ada"


# --- without keys -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "host", "rights"),
    [
        *(("127.0.0.1", host, ANYBODY.rights) for host in ("localhost:8080", "127.0.0.1:8080")),
        ("::1", "[::1]:8080", ANYBODY.rights),
        ("0.0.0.0", "localhost:8080", {"read"}),
    ],
)
async def test_without_keys_who_uses_this_machine_looks_and_acts(address, host, rights):
    sessions = Sessions(Access(address=address))
    for headers in ({"host": host}, {"host": host, "x-api-key": "cs_any"}):
        assert (await sessions.identify(call(headers))).rights == rights


@pytest.mark.parametrize("host", ["", "rebound.example", "rebound.example:8080", "127.0.0.1.rebound.example:8080"])
async def test_without_keys_another_host_is_refused(host):
    await refused(Sessions(Access()).identify(call({"host": host})), 403, "make a key")


# --- forged requests --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("added", "given"),
    [
        ({}, ""),
        ({}, "another"),
        ({}, "\u00e9" * 43),
        ({"x-csrf-token": "another"}, "$TOKEN"),
        *(({"sec-fetch-site": site}, "$TOKEN") for site in ("cross-site", "same-site", "none")),
    ],
)
@pytest.mark.parametrize("is_open", [True, False], ids=["without keys", "with a session"])
async def test_what_no_page_of_the_console_sent_is_refused(sessions, secret, is_open, added, given):
    if is_open:
        sessions, headers = Sessions(Access()), {"host": "localhost:8080", "x-api-key": "any"}
    else:
        headers = await signed_in(sessions, secret)
    token = sessions.csrf_of(headers)
    with refuses(403):
        sessions.check_forgery(headers | added, given.replace("$TOKEN", token))
    sessions.check_forgery(headers | {"sec-fetch-site": "same-origin"}, token)
    sessions.check_forgery(headers | {"x-csrf-token": token}, "")


async def test_the_token_of_one_session_is_none_of_another(sessions, guest):
    first, second = [await signed_in(sessions, guest) for _ in range(2)]
    with refuses(403, "reload it"):
        sessions.check_forgery(first, sessions.csrf_of(second))
    await refused(sessions.sign_in(call({"sec-fetch-site": "cross-site"}), guest), 403, "another site")
