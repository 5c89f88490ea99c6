import asyncio
from dataclasses import replace

import pytest
from unit.gateway.rig import TOKEN, StubTokens, key_in, refused, refuses, sent

from clipper_gateway.access import Access
from clipper_gateway.callers import ANYBODY, Caller, Share, Shares
from clipper_gateway.keys import KeyRing
from clipper_stream.errors import InvalidSetting

ADA, GRACE = (Caller(name, None, frozenset()) for name in ("ada", "grace"))


# --- shares ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name, one in vars(Shares()).items() if isinstance(one, Share)])
def test_one_caller_leaves_some_of_everything_to_others(name):
    share = getattr(Shares(), name)
    share.take("ada", share.of_caller)
    with refuses(429, f"a caller's share is {share.of_caller}"):
        share.take("ada")
    left, others = share.most - share.of_caller, 0
    while left:
        share.take(f"other-{others}", amount := min(left, share.of_caller))
        left, others = left - amount, others + 1
    with refuses(503, "others hold the rest"):
        share.take("grace")
    share.give_back("ada")
    share.take("grace")


async def turns(share, holder, count, ended):
    async def one():
        async with share.turn(holder):
            await asyncio.sleep(0)
            ended.append(holder)

    return [asyncio.ensure_future(one()) for _ in range(count)]


async def test_who_waits_has_a_turn_before_another_has_a_second():
    share, ended = Share("things", most=1, of_caller=1, patience_s=30.0), []
    with share.held("linus"):
        waiting = await turns(share, "ada", 50, ended)
        await asyncio.sleep(0)
        waiting += await turns(share, "grace", 2, ended)
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert ended[:4] == ["ada", "grace", "ada", "grace"]
    assert (len(ended), share.fits("linus")) == (52, True)


async def test_a_wait_that_ends_without_a_turn_leaves_nothing_behind():
    share = Share("things", most=2, of_caller=1, patience_s=0.01)
    with share.held("ada"):
        await refused(share.turn("ada").__aenter__(), 429, "a caller's share is 1")
        share._patience_s = 30.0
        given_up, waits = await turns(share, "ada", 2, [])
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
    await waits
    assert share.fits("ada")


async def test_a_turn_that_comes_with_a_cancellation_is_given_back():
    share = Share("things", most=1, of_caller=1, patience_s=30.0)
    share.take("ada")
    (waits,) = await turns(share, "grace", 1, [])
    await asyncio.sleep(0)
    share.give_back("ada")
    waits.cancel()
    await asyncio.wait([waits])
    assert (waits.cancelled(), share.fits("ada")) == (True, True)


async def test_a_turn_that_comes_after_a_cancellation_is_the_next_ones():
    share, ended = Share("things", most=1, of_caller=1, patience_s=30.0), []
    share.take("ada")
    gives_up, waits = await turns(share, "grace", 2, ended)
    await asyncio.sleep(0)
    gives_up.cancel()
    share.give_back("ada")
    await waits
    assert (gives_up.cancelled(), ended, share.fits("ada")) == (True, ["grace"], True)


async def test_what_was_taken_is_settled_once_it_is_known():
    share = Share("bytes", most=10, of_caller=10)
    async with share.turn("ada", 8) as held:
        held.settle(3)
        assert (share.fits("ada", 7), share.fits("ada", 8)) == (True, False)
        held.settle(12)
        assert not share.fits("ada")
    assert share.fits("ada", 10)


async def test_a_caller_without_credentials_is_its_address():
    addresses = {"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "::ffff:10.0.0.1", "2001:db8:2:3::7": "2001:db8:2:3::/64"}
    for address, holder in addresses.items():
        caller = await Access().identify(sent(None, None, address))
        assert (caller, caller.address, caller.holder) == (ANYBODY, address, holder)


# --- proxies --------------------------------------------------------------------------------------------------------
PROXIES = ["10.0.0.0/8", "2001:db8:1::/48"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("10.0.0.1", "192.0.2.7", [], "10.0.0.1"),
        ("192.0.2.1", "192.0.2.7", PROXIES, "192.0.2.1"),
        ("10.0.0.1", "192.0.2.7", PROXIES, "192.0.2.7"),
        ("::ffff:10.0.0.1", "192.0.2.7", PROXIES, "192.0.2.7"),
        ("10.0.0.1", "6.6.6.6, 192.0.2.7, 10.9.9.9", PROXIES, "192.0.2.7"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", PROXIES, "10.0.0.3"),
        ("10.0.0.1", None, PROXIES, "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, unknown", PROXIES, "10.0.0.1"),
        ("2001:db8:1::5", "2001:db8:2:3:4:5:6:7", PROXIES, "2001:db8:2:3:4:5:6:7"),
        ("", "192.0.2.7", PROXIES, ""),
    ],
)
def test_only_a_trusted_proxy_says_for_whom_it_asks(peer, forwarded, proxies, address):
    assert Shares(proxies=proxies).address_of(peer, forwarded) == address


def test_a_proxy_that_is_no_address_is_refused():
    with pytest.raises(InvalidSetting, match="trusted_proxies: 'balancer'"):
        Shares(proxies=["balancer"])


# --- rates ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rate", "at_once", "wait_s", "retry_after"), [(2.0, 2, 0.5, "1"), (0.1, 1, 10.0, "10"), (1.0, 1, 1.0, "1")]
)
def test_a_caller_sends_as_many_requests_a_second_as_its_rate_says(clock, rate, at_once, wait_s, retry_after):
    shares, caller = Shares(clock=clock), replace(ADA, rate=rate)

    def sends(requests):
        for _ in range(requests):
            shares.spend(caller)
        with refuses(429, rf"{rate:g} rows and feedbacks a second: wait {wait_s:.3f} s") as refused:
            shares.spend(caller)
        assert refused.value.headers == {"retry-after": retry_after}

    sends(at_once)
    shares.spend(replace(GRACE, rate=rate))
    clock.now_s += wait_s
    sends(1)
    clock.now_s += 3600.0
    sends(at_once)


def test_the_rows_of_a_request_are_waited_for_before_the_next_one(clock):
    shares, caller = Shares(clock=clock), replace(ADA, rate=10.0)
    shares.spend(caller)
    shares.spend(caller, 999, least=0.0)
    with refuses(429):
        shares.spend(caller, 999, least=0.0)
    clock.now_s += 99.0
    with refuses(429):
        shares.spend(caller)
    clock.now_s += 0.2
    shares.spend(caller)


@pytest.mark.parametrize(
    ("claimed", "default", "rate"), [({"clipper_rate": 5}, 9.0, 5), ({}, 9.0, 9.0), ({}, None, None)]
)
async def test_keys_and_tokens_have_rates_alike(keys_file, claimed, default, rate):
    secret = key_in(keys_file, rate=claimed.get("clipper_rate"))
    access = Access(keys=KeyRing(keys_file), tokens=StubTokens(**claimed), rate=default)
    for credentials in (secret, TOKEN):
        assert (await access.identify(sent(f"Bearer {credentials}", None))).rate == rate
