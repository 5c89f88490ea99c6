"""Who asks, what a caller may do, and how much each may take of what all share: for HTTP, gRPC and the console alike.

    caller --> right, application --> rate --> share of what the call needs --> work
                     403              429       429 503, some after a wait

Rules of this file:
- One caller at its worst leaves some of everything to others: its share is less than there is.
- Where no credentials say who asks, an address is the caller; of IPv6 its /64, of which one host has every address.
- Of several callers who wait, each has a turn before one of them has its second.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, Self, TypeVar, get_args

from clipper_gateway.errors import Refusal
from clipper_stream.errors import InvalidSetting, shown

Right = Literal["predict", "feedback", "read", "operate"]
RIGHTS: tuple[str, ...] = get_args(Right)
MOST_CONNECTIONS = 8_000
MOST_TURNS = 1_000
"""That one caller may wait for at once."""
MOST_HOLDERS = 10_000
"""Whose rates and failures are remembered."""
FAILURES, FORGIVEN_S = 10, 60.0
"""Wrong credentials of an address in so many seconds, after which it may not sign in."""
K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, with rights of `RIGHTS`.

    Attributes:
        name: Of a key, `ada`, or of a token, `ada of https://id.example.com`: no token has a key's name, nor one of
            another issuer.
        applications: That the caller may use; None: all.
        rate: Rows and feedbacks a second; None: without bound.
        address: Of who is not known by credentials.
    """

    name: str
    applications: frozenset[str] | None
    rights: frozenset[str]
    rate: float | None = None
    address: str = field(default="", compare=False)

    @property
    def holder(self) -> str:
        return holder_of(self.address) or self.name

    def sees(self, application: str | None) -> bool:
        """Return whether an application is one of the caller's; None is for who may use all."""
        return self.applications is None or application in self.applications

    def require(self, right: str, application: str | None = None) -> None:
        """Check that the caller has a right, to an application where one is given."""
        if right not in self.rights:
            has = ", ".join(sorted(self.rights)) or "none"
            raise Refusal(403, f"{shown(self.name)} has no right {right!r}, has {has}: ask the operator for it")
        if application is not None and not self.sees(application):
            what = f"{shown(self.name)} may not use application {shown(application)}"
            raise Refusal(403, f"{what}, only {shown(sorted(self.applications or ()))}: ask the operator for it")


ANYBODY = Caller("no sign-in", None, frozenset(RIGHTS))


@lru_cache  # of few: an address of IPv6 may be as long as a header
def anybody_at(address: str) -> Caller:
    """Return who asks from an address without credentials."""
    return replace(ANYBODY, address=address)


NOBODY = Caller("", frozenset(), frozenset())
"""Of a request that was refused before anybody was asked for."""


class Share:
    """One thing that callers share: `most` of it may be held at once, of which one caller holds `of_caller`.

    >>> pages = Share("open pages", most=3, of_caller=2)
    >>> with pages.held("ada"), pages.held("ada"), pages.held("grace"):
    ...     pages.fits("ada"), pages.fits("grace")
    (False, False)
    """

    def __init__(self, what: str, most: int, of_caller: int, patience_s: float = 1.0) -> None:
        self.what, self.most, self.of_caller, self._patience_s = what, most, of_caller, patience_s
        self._holders: Counter[str] = Counter()
        self._total = 0
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        """Whose turn is next stands first."""

    def fits(self, holder: str, amount: int = 1) -> bool:
        return self._total + amount <= self.most and self._holders[holder] + amount <= self.of_caller

    def check(self, holder: str, amount: int = 1) -> None:
        if not self.fits(holder, amount):
            raise self._refusal(holder, amount)

    def take(self, holder: str, amount: int = 1) -> None:
        """Take without a wait; whoever takes calls `give_back`."""
        self.check(holder, amount)
        self._count(holder, amount)

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Give back what was taken, to those who wait."""
        self._count(holder, -amount)
        for waiting in [*self._waiting]:
            needed, turn = self._waiting[waiting][0]
            if not turn.done() and self.fits(waiting, needed):  # one that is given up goes by itself
                self._leave(waiting, needed, turn)
                self._count(waiting, needed)
                turn.set_result(None)

    @contextmanager
    def held(self, holder: str, amount: int = 1) -> Iterator[None]:
        """Take for a block, without a wait."""
        self.take(holder, amount)
        try:
            yield
        finally:
            self.give_back(holder, amount)

    def turn(self, holder: str, amount: int = 1) -> "Turn":
        """Take for an `async with` block, after a wait of at most `patience_s` seconds."""
        return Turn(self, holder, amount)

    async def take_in_turn(self, holder: str, amount: int) -> None:
        """Take after a wait of at most `patience_s` seconds; whoever takes calls `give_back`."""
        if amount and (holder in self._waiting or not self.fits(holder, amount)):
            await self._wait(holder, amount)
        else:
            self._count(holder, amount)

    async def _wait(self, holder: str, amount: int) -> None:
        if len(self._waiting.get(holder, ())) >= MOST_TURNS:
            raise Refusal(
                429, f"{MOST_TURNS} of your calls wait for {self.what} already", retry_after_s=self._patience_s
            )
        place = amount, asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(place)
        try:
            async with asyncio.timeout(self._patience_s):
                await place[1]
        except BaseException as error:
            if place[1].done() and not place[1].cancelled():
                self.give_back(holder, amount)
            else:
                self._leave(holder, *place)
                self.give_back(holder, 0)
            if isinstance(error, TimeoutError):
                raise self._refusal(holder, amount) from error
            raise

    def _refusal(self, holder: str, amount: int) -> Refusal:
        is_own = self._total + amount <= self.most or self._holders[holder] + amount > self.of_caller
        whose = f"a caller's share is {self.of_caller}" if is_own else "others hold the rest"
        text = f"there are {self.most} {self.what} for all, and {whose}: wait until some have ended"
        return Refusal(429 if is_own else 503, text, retry_after_s=self._patience_s)

    def _leave(self, holder: str, *place: object) -> None:
        """Take a place out of the queue of its holder, who goes behind the others."""
        queue = self._waiting.pop(holder)
        queue.remove(place)  # type: ignore[arg-type]
        if queue:
            self._waiting[holder] = queue

    def _count(self, holder: str, amount: int) -> None:
        self._total += amount
        self._holders[holder] += amount
        if not self._holders[holder]:
            del self._holders[holder]


class Turn:
    """What a block holds of a share."""

    __slots__ = ("_amount", "_holder", "_share")

    def __init__(self, share: Share, holder: str, amount: int) -> None:
        self._share, self._holder, self._amount = share, holder, amount

    async def __aenter__(self) -> Self:
        await self._share.take_in_turn(self._holder, self._amount)
        return self

    def settle(self, actual: int) -> None:
        """Hold so much from now on, once that is known."""
        self._share.give_back(self._holder, self._amount - actual)
        self._amount = actual

    async def __aexit__(self, *_: object) -> None:
        self._share.give_back(self._holder, self._amount)


class TokenBuckets:
    """Levels of token buckets, by holder: full at first, and for whoever was not heard of for long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def wait_s(self, holder: str, rate: float, burst: float, least: float = 1.0) -> float:
        """Return the seconds until the bucket holds `least`; 0 when it does."""
        return max(0.0, (least - self._level(holder, rate, burst)) / rate)

    def spend(self, holder: str, rate: float, burst: float, cost: float = 1.0) -> None:
        """Take so much out, whatever is in it: what is missing has to come before there is any more."""
        level = self._level(holder, rate, burst) - cost
        self._levels.pop(holder, None)
        bounded(self._levels, MOST_HOLDERS)[holder] = level, self._clock()

    def _level(self, holder: str, rate: float, burst: float) -> float:
        level, at_s = self._levels.get(holder, (burst, 0.0))
        return min(burst, level + (self._clock() - at_s) * rate)


class Shares:
    """Everything that the callers of one gateway share."""

    def __init__(
        self, max_body_bytes: int = 2**22, proxies: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        of_caller = max(2**24, max_body_bytes)
        self.connections = Share("connections", MOST_CONNECTIONS, MOST_CONNECTIONS // 4)
        self.unstated_bytes = max_body_bytes // 4
        """Taken for a body that does not say how large it is, until it is there."""
        self.bodies = Share("bytes of requests", 3 * of_caller, of_caller, patience_s=5.0)
        self.unread = Share("bytes of answers that nobody has read", 2**26, 2**24)
        self.searches = Share("searches of the logs", 4, 2, patience_s=8.0)
        self.polls = Share("open waits for answers", 1_000, 250)
        self.pages = Share("open live pages", 100, 25)
        self.watches = Share("watches of health", 64, 16)
        self.readers = Share("readers of Kafka", 4, 2, patience_s=8.0)
        self.actions = Share("actions", 2, 1, patience_s=60.0)
        self._rates, self._failures = TokenBuckets(clock), TokenBuckets(clock)
        try:
            self._proxies = [ip_network(one) for one in proxies]
        except ValueError as error:
            raise InvalidSetting(f"gateway.trusted_proxies: {error}; give addresses or networks") from error

    def is_proxy(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._proxies)

    def address_of(self, peer: str, forwarded: str | None) -> str:
        """Return for whom a peer asks: itself, or the nearest address of `X-Forwarded-For` that is no trusted proxy's.

        >>> Shares(proxies=["10.0.0.0/8"]).address_of("10.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.2")
        '192.0.2.7'
        >>> Shares().address_of("10.0.0.1", "192.0.2.7")
        '10.0.0.1'
        """
        hops = (forwarded or "").split(",")
        while hops and self.is_proxy(peer) and _address(hop := hops.pop().strip()):
            peer = hop
        return peer

    def spend(self, caller: Caller, cost: float = 1.0, *, least: float = 1.0) -> None:
        """Count a request, or its rows and feedbacks beyond the first, and check the caller's rate.

        Who has `least` left may go beyond its rate by the rows of one request, and then waits for as long.
        """
        if caller.rate is None:
            return
        bucket = caller.holder, caller.rate, max(1.0, caller.rate)
        if wait_s := self._rates.wait_s(*bucket, least):
            what = f"{shown(caller.name)} may send {caller.rate:g} rows and feedbacks a second"
            raise Refusal(429, f"{what}: wait {wait_s:.3f} s", retry_after_s=wait_s)
        self._rates.spend(*bucket, cost)

    def failures_wait_s(self, of: str) -> float:
        """Return for how long no further failure of this kind and address is taken; 0 when one is."""
        return self._failures.wait_s(of, FAILURES / FORGIVEN_S, FAILURES)

    def failed(self, of: str) -> None:
        self._failures.spend(of, FAILURES / FORGIVEN_S, FAILURES)


@lru_cache
def holder_of(address: str) -> str:
    """Return whose shares an address takes: its own, or those of its /64.

    >>> holder_of("192.0.2.7"), holder_of("2001:db8::7")
    ('192.0.2.7', '2001:db8::/64')
    """
    found = _address(address)
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address


@lru_cache
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def bounded(table: dict[K, T], most: int) -> dict[K, T]:
    """Take the oldest entries out of a table until there is room for one more, and return it."""
    while len(table) >= most:
        del table[next(iter(table))]
    return table
