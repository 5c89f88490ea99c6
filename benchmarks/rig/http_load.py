"""Requests over HTTP, at a fixed rate or so many at once, with latencies from the intended send time."""

import asyncio
import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

CONNECTIONS = 1_000
TIMEOUT_S = 30.0

Request = tuple[bytes, list[int]]
"""Body, and the right labels, one a row."""
Labels = Callable[[Any], list[int]]
"""Labels in a response."""

WRK = shutil.which("wrk")
WRK_SCRIPT = """
wrk.headers["content-type"] = "application/json"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  requests, asked, right = {}, 0, 0
  for body in io.lines(args[1]) do requests[#requests + 1] = wrk.format("POST", nil, nil, body) end
end
function request()
  asked = asked + 1
  return requests[(asked - 1) % #requests + 1]
end
function response(status, _, body)
  if status == 200 and not body:find('"default":true', 1, true) then right = right + 1 end
end
function done(summary, latency, _)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '\\n{"answers": %d, "right": %d, "failed": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f}\\n',
    summary.requests, threads[1]:get("right"), failed, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""
"""Sends the bodies of a file, a line each, in turn; an answer is right when its status is 200 and it is no default."""


class WrkFailed(RuntimeError):
    """The client could not connect, or ended otherwise than it should."""


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
    url: str, requests: Iterable[Request], labels_of: Labels, outstanding: int, most_s: float
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


def write_lines(path: Path, bodies: Iterable[bytes]) -> None:
    """Write bodies, none with a line break, as `saturated_by_wrk` reads them."""
    with path.open("wb") as file:
        file.writelines(body + b"\n" for body in bodies)


def saturated_by_wrk(url: str, lines: Path, outstanding: int, seconds: float) -> dict[str, Any]:
    """Figures of a closed loop of `wrk`, which takes less CPU than the one above, and does not look at labels.

    Args:
        url: Where the requests go.
        lines: Their bodies, which are sent in turn, and again when all were sent.
        outstanding: Connections, each with one request at a time.
        seconds: How long, rounded up to whole ones.

    Raises:
        WrkFailed: nobody answered it.
    """
    script = lines.with_suffix(".lua")
    script.write_text(WRK_SCRIPT)
    words = ["-t1", f"-c{outstanding}", f"-d{math.ceil(seconds)}s", f"--timeout={TIMEOUT_S:.0f}s", "-s", str(script)]
    done = subprocess.run([str(WRK), *words, url, "--", str(lines)], capture_output=True, text=True, check=False)
    said = done.stdout.strip().rpartition("\n")[2]
    if done.returncode or not said.startswith("{"):
        raise WrkFailed(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    found = json.loads(said)
    queries = found["answers"] + found["failed"]
    return {
        "queries": queries,
        "missing": queries - found["right"],
        "throughput_per_s": round(found["right"] / found["seconds"], 1),
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "client": f"wrk {wrk_version()}",
    }


def wrk_version() -> str:
    """Of the wrk that is installed."""
    said = subprocess.run([str(WRK), "-v"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "of an unknown version"


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=aiohttp.ClientTimeout(TIMEOUT_S),
        headers={"content-type": "application/json"},
    )


async def _asked(client: aiohttp.ClientSession, url: str, request: Request, labels_of: Labels) -> bool:
    """Whether the answer came and was right."""
    body, labels = request
    try:
        async with client.post(url, data=body) as response:
            return response.status == 200 and labels_of(await response.json()) == labels
    except (aiohttp.ClientError, TimeoutError):
        return False


def _figures(latencies: list[float], count: int, took_s: float) -> dict[str, Any]:
    """A missing or wrong answer is late for ever, as in the load generator's report."""
    known = np.array(latencies + [np.inf] * (count - len(latencies))) * 1_000
    p50, p99 = (float(value) for value in np.percentile(known, [50, 99], method="higher"))
    return {
        "queries": count,
        "client": "python",
        "missing": count - len(latencies),
        "throughput_per_s": round(len(latencies) / took_s, 1),
        "p50_ms": round(p50, 3) if np.isfinite(p50) else None,
        "p99_ms": round(p99, 3) if np.isfinite(p99) else None,
    }
