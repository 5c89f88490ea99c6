"""An application that sends rows all the time and says a moment later what was true about them."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from clipper_loadgen import Dataset
from clipper_stream.client import Client
from clipper_stream.errors import ClipperError

FEEDBACK_AFTER_S = 0.3


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
        rate: Queries a second, as a number or as a function of the seconds since `start`.
        contexts: Of each row; none: queries have none.
    """

    def __init__(
        self,
        client: Client,
        application: str,
        rows: Dataset,
        rate: float | Callable[[float], float],
        contexts: Sequence[str] = (),
    ) -> None:
        self._client, self._application, self._rows, self._contexts = client, application, rows, contexts
        self._rate = rate if callable(rate) else lambda _: rate
        self._open: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.seconds: dict[int, TrafficSecond] = defaultdict(TrafficSecond)
        self.sent = self.answered = self.fed_back = 0

    def start(self) -> None:
        """Begin to send."""
        self._sending = asyncio.create_task(self._send_all())

    async def stop(self) -> None:
        """Send no more; returns when every query that was sent is answered and fed back."""
        self._stopping.set()
        await self._sending
        while self._open:
            await asyncio.wait(self._open)

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
            due_s += 1.0 / self._rate(due_s)
            task = asyncio.create_task(self._send(number % len(self._rows.labels)))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _send(self, row: int) -> None:
        label, context = self._rows.label(row), self._contexts[row] if self._contexts else None
        second = self.seconds[int(time.time())]
        self.sent += 1
        try:
            answer = await self._client.predict(self._application, self._rows.row(row), context=context)
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
