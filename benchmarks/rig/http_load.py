"""Requests over HTTP, at a fixed rate or so many at once, with latencies from the intended send time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import numpy as np

CONNECTIONS = 1_000
TIMEOUT_S = 30.0

Request = tuple[bytes, int]
"""Body, and the right label."""
Labels = Callable[[Any], list[int]]
"""Labels in a response."""


async def answering(url: str, request: Request, labels_of: Labels, limit_s: float) -> bool:
    """Ask until the answer is right; False: it was not within the limit."""
    give_up_s = time.monotonic() + limit_s
    async with _client() as client:
        while time.monotonic() < give_up_s:
            if await _asked(client, url, request, labels_of):
                return True
            await asyncio.sleep(0.2)
    return False


async def paced(url: str, requests: list[Request], labels_of: Labels, rate_per_s: float) -> dict[str, Any]:
    """Figures of an open loop: what is sent when does not depend on the answers."""
    latencies: list[float] = []

    async def one(client: aiohttp.ClientSession, request: Request, due_s: float) -> None:
        if await _asked(client, url, request, labels_of):
            latencies.append(time.monotonic() - due_s)

    began_s = time.monotonic()
    async with _client() as client, asyncio.TaskGroup() as tasks:
        for number, request in enumerate(requests):
            due_s = began_s + number / rate_per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            tasks.create_task(one(client, request, due_s))
    return _figures(latencies, len(requests), time.monotonic() - began_s)


async def saturated(
    url: str, requests: list[Request], labels_of: Labels, outstanding: int, most_s: float
) -> dict[str, Any]:
    """Figures of a closed loop with so many requests at once, until all are sent or the time is over."""
    latencies: list[float] = []
    left = iter(requests)
    sent = 0

    async def worker(client: aiohttp.ClientSession) -> None:
        nonlocal sent
        for request in left:
            if (sent_s := time.monotonic()) > began_s + most_s:
                return
            sent += 1
            if await _asked(client, url, request, labels_of):
                latencies.append(time.monotonic() - sent_s)

    began_s = time.monotonic()
    async with _client() as client, asyncio.TaskGroup() as tasks:
        for _ in range(outstanding):
            tasks.create_task(worker(client))
    return _figures(latencies, sent, time.monotonic() - began_s)


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=aiohttp.ClientTimeout(TIMEOUT_S),
        headers={"content-type": "application/json"},
    )


async def _asked(client: aiohttp.ClientSession, url: str, request: Request, labels_of: Labels) -> bool:
    """Whether the answer came and was right."""
    body, label = request
    try:
        async with client.post(url, data=body) as response:
            return response.status == 200 and labels_of(await response.json()) == [label]
    except (aiohttp.ClientError, TimeoutError):
        return False


def _figures(latencies: list[float], count: int, took_s: float) -> dict[str, Any]:
    """A missing or wrong answer is late for ever, as in the load generator's report."""
    known = np.array(latencies + [np.inf] * (count - len(latencies))) * 1_000
    p50, p99 = (float(value) for value in np.percentile(known, [50, 99], method="higher"))
    return {
        "queries": count,
        "missing": count - len(latencies),
        "throughput_per_s": round(len(latencies) / took_s, 1),
        "p50_ms": round(p50, 3) if np.isfinite(p50) else None,
        "p99_ms": round(p99, 3) if np.isfinite(p99) else None,
    }
