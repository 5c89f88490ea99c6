"""Models and frames for the tests of the model host."""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

import numpy as np

from clipper_agents.host.batching import RequestRows, read_request
from clipper_topics.codec import OutputFrame, RequestFrame, encode_frame
from clipper_topics.trace_context import TracedRows, traced_rows_header

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


class TickingTimer:
    """A timer on which every reading comes so many seconds after the one before."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += self.step_s
        return self._now_s


def rows_of(pieces: Iterable[OutputFrame]) -> dict[tuple[int, int], list[Any]]:
    """All answers by (frame, row): the output, or the reason of a failure."""
    answers: dict[tuple[int, int], list[Any]] = {}
    for piece in pieces:
        reasons = {failure.row: failure.reason for failure in piece.failed}
        for row, output in enumerate(piece.outputs, start=piece.row0):
            answers.setdefault((piece.frame, row), []).append(reasons.get(row, output))
    return answers


def request(
    rows: Sequence[Any],
    *,
    frame: int = 1,
    dtype: str = "json",
    reply: int = 0,
    deadline_s: float | Sequence[float] = inf,
    router: bytes = ROUTER,
) -> RequestFrame:
    deadlines_s = np.broadcast_to(np.asarray(deadline_s, "<f8"), (len(rows),)).tobytes()
    common = {"router": router, "frame": frame, "reply": reply, "dtype": dtype, "deadlines": deadlines_s}
    if dtype in {"json", "text", "bytes"}:
        return RequestFrame(**common, shape=[len(rows)], rows=list(rows))
    matrix = np.asarray(rows, dtype)
    return RequestFrame(**common, shape=list(matrix.shape), matrix=matrix.tobytes())


def asked(rows: Sequence[Any], *, traced: tuple[TracedRows, ...] = (), origin: Any = None, **how: Any) -> RequestRows:
    headers = traced_rows_header(traced) if traced else ()
    return read_request(encode_frame(request(rows, **how)), 64, headers, origin)


def pieces_of(replies: dict[int, list[Any]]) -> list[OutputFrame]:
    return [frame for pieces in replies.values() for _, frame in pieces]
