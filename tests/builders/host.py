"""Models, clocks, senders and frames for the tests of the model host."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from clipper_agents.host.outputs import Reply
from clipper_agents.host.request_rows import RequestRows, rows_of_request
from clipper_topics.frames import OutputFrame, RequestFrame
from clipper_topics.trace_context import TracedRows

ROUTER = b"router-1"


class FunctionOfRow:
    """A model that applies a function to each row."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def predict_batch(self, inputs: Any) -> list[Any]:
        return [self._function(row) for row in inputs]


class CountingModel:
    """A model that remembers the batches it was asked about."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.batches: list[Any] = []

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    def predict_batch(self, inputs: Any) -> Any:
        self.batches.append(inputs)
        return self._model.predict_batch(inputs)


@dataclass
class FakeClock:
    """Seconds that pass when the test says so."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class TickingTimer:
    """A timer on which every reading comes so many seconds after the one before."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += self.step_s
        return self._now_s


class Outputs:
    """A send that holds every call until the test lets it go, and remembers what was sent."""

    def __init__(self, *, held: bool = False) -> None:
        self.sent: list[tuple[int, list[OutputFrame]]] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.held = held
        self._news = asyncio.Condition()

    async def __call__(self, reply: Reply[Any]) -> None:
        async with self._news:
            self.sent.append((reply.partition, reply.pieces))
            self._news.notify_all()
        if self.held:
            acknowledged = asyncio.get_running_loop().create_future()
            self.waiting.append(acknowledged)
            await acknowledged

    async def until(self, calls: int) -> None:
        """Return when there were so many calls."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.sent) >= calls)

    @property
    def pieces(self) -> list[OutputFrame]:
        return [piece for _, pieces in self.sent for piece in pieces]

    def rows(self) -> dict[tuple[int, int], list[Any]]:
        """All answers by (frame, row): the output, or the reason of a failure."""
        return rows_of(self.pieces)


def rows_of(pieces: Iterable[OutputFrame]) -> dict[tuple[int, int], list[Any]]:
    """All answers by (frame, row): the output, or the reason of a failure."""
    answers: dict[tuple[int, int], list[Any]] = {}
    for piece in pieces:
        reasons = {failure.row: failure.reason for failure in piece.failed}
        for row, output in enumerate(piece.outputs, start=piece.row0):
            answers.setdefault((piece.frame, row), []).append(reasons.get(row, output))
    return answers


@dataclass
class Observed:
    """An observer that remembers."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    late_rows: int = 0
    queued_rows: int = 0

    def batch(self, **what: Any) -> None:
        self.batches.append(what)

    def late(self, rows: int) -> None:
        self.late_rows += rows

    def queued(self, rows: int) -> None:
        self.queued_rows = rows


def request(
    rows: Sequence[Any],
    *,
    frame: int = 1,
    dtype: str = "json",
    reply: int = 0,
    deadline_s: float | Sequence[float] = inf,
    router: bytes = ROUTER,
) -> RequestFrame:
    """A request frame for these rows."""
    deadlines_s = np.broadcast_to(np.asarray(deadline_s, "<f8"), (len(rows),)).tobytes()
    common = {"router": router, "frame": frame, "reply": reply, "dtype": dtype, "deadlines": deadlines_s}
    if dtype in {"json", "text", "bytes"}:
        return RequestFrame(**common, shape=[len(rows)], rows=list(rows))
    matrix = np.asarray(rows, dtype)
    return RequestFrame(**common, shape=list(matrix.shape), matrix=matrix.tobytes())


def asked(rows: Sequence[Any], *, traced: tuple[TracedRows, ...] = (), **how: Any) -> RequestRows:
    """The rows of a request frame."""
    return rows_of_request(request(rows, **how), traced)
