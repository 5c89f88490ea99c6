"""An application that sends rows all the time and says a moment later what was true about them."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from clipper_agents.demo import MOST_DEFAULTS
from clipper_loadgen import Dataset
from clipper_stream.client import Answer, Client
from clipper_stream.errors import ClipperError

FEEDBACK_AFTER_S = 0.3
MEASURED_S, AT_ONCE = 3.0, 16
"""So long, with so many queries open, it is measured what a machine answers at most."""
CALM_RATIO = 0.4
"""So much of that is sent: twice as much at noon is still answered in time."""


@dataclass(slots=True)
class TrafficSecond:
    """The queries that were sent within one second: answers and wrong ones by version, defaults, latencies."""

    answers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wrong: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    defaults: int = 0
    latencies_s: list[float] = field(default_factory=list)


class LabelledTraffic:
    """Queries to one application, each with its feedback, from `start` until `stop`.

    Args:
        client: Sends them.
        application: Name of the application.
        rows: What is sent, in turn, with its labels.
        rate: Queries a second on average; fewer where the machine is slow.
        contexts: Of each row; none: queries have none.
        shape: Multiple of the rate, at most 2, by the seconds since `start`.

    Attributes:
        rate: Queries a second on average, since `start` those that the machine can answer.
    """

    def __init__(
        self,
        client: Client,
        application: str,
        rows: Dataset,
        rate: float,
        contexts: Sequence[str] = (),
        shape: Callable[[float], float] = lambda _: 1.0,
    ) -> None:
        self._client, self._application, self._rows, self._contexts = client, application, rows, contexts
        self.rate, self._shape = rate, shape
        self._open: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.seconds: dict[int, TrafficSecond] = defaultdict(TrafficSecond)
        self.sent = self.answered = self.fed_back = 0

    async def start(self) -> None:
        """Measure what the machine answers, say so, and begin to send.

        Raises:
            SystemExit: it answers nothing.
        """
        measured = await self._measured_per_s()
        self.rate = min(self.rate, CALM_RATIO * measured)
        if not measured:
            raise SystemExit(f"this machine answered no query of {MEASURED_S:.0f} s in time: it is too slow, or busy")
        print(f"this machine answers {measured:.0f} queries a second: {self.rate:.0f} a second are sent", flush=True)
        self._sending = asyncio.create_task(self._send_all())

    async def stop(self) -> None:
        """Send no more; returns when every query that was sent is answered and fed back."""
        self._stopping.set()
        await self._sending
        while self._open:
            await asyncio.wait(self._open)

    def failure(self) -> str:
        """Why these answers show nothing, in a sentence; empty where they do. Every answer counts, defaults too."""
        defaults = sum(second.defaults for second in self.seconds.values())
        if lost := self.sent - self.answered:
            return f"{lost} of {self.sent} queries were not answered"
        if untold := self.answered - self.fed_back:
            return f"{untold} of {self.answered} feedbacks could not be sent"
        if defaults > MOST_DEFAULTS * self.answered:
            return f"{defaults} of {self.answered} answers were default outputs: this machine is too slow, or busy"
        return ""

    async def _measured_per_s(self) -> float:
        """Queries a second that models answer in time, each with its feedback; rows from the last one on backwards."""
        end_s, found = time.monotonic() + MEASURED_S, list[bool]()
        rows = itertools.cycle(reversed(range(len(self._rows.labels))))

        async def ask() -> None:
            while time.monotonic() < end_s:
                row = next(rows)
                with suppress(ClipperError):
                    answer = await self._predict(row)
                    await self._client.feedback(answer, label=self._rows.label(row))
                    found.append(not answer.default)

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return sum(found) / MEASURED_S

    async def _predict(self, row: int) -> Answer:
        context = self._contexts[row] if self._contexts else None
        return await self._client.predict(self._application, self._rows.row(row), context=context)

    def p99_ms(self, counts: Callable[[int], bool]) -> float:
        """99th percentile of the latencies of queries sent in the seconds since the epoch that count, milliseconds."""
        seconds = [second for at_s, second in self.seconds.items() if counts(at_s)]
        found = [latency_s for second in seconds for latency_s in second.latencies_s]
        return float(np.percentile(found, 99)) * 1e3 if found else float("nan")

    async def _send_all(self) -> None:
        began_s, due_s = time.monotonic(), 0.0
        for number in itertools.count():
            wait_s = began_s + due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if self._stopping.is_set():
                return
            due_s += 1.0 / (self.rate * self._shape(due_s))
            task = asyncio.create_task(self._send(number % len(self._rows.labels)))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _send(self, row: int) -> None:
        label, second = self._rows.label(row), self.seconds[int(time.time())]
        self.sent += 1
        try:
            answer = await self._predict(row)
        except ClipperError:
            return  # counted by `sent - answered`
        self.answered += 1
        second.latencies_s.append(answer.latency_s)
        second.defaults += answer.default
        for ref in [f"{one.model}:{one.version}" for one in answer.models if one.served]:
            second.answers[ref] += 1
            second.wrong[ref] += answer.output != label
        await asyncio.sleep(FEEDBACK_AFTER_S)
        with suppress(ClipperError):  # counted by `answered - fed_back`
            await self._client.feedback(answer, label=label)
            self.fed_back += 1
