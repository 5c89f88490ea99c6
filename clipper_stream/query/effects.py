"""What the router wants done: rows to ask for, answers to send; and what comes back: pieces of output frames."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.query.answer import QueryAnswer

Rows = NDArray[Any] | list[Any]
"""A matrix, one row an input; or a list of texts, bytes or JSON values."""


@dataclass(frozen=True, slots=True)
class Request:
    """Rows for one model version, of one dtype and shape.

    Attributes:
        ref: Of the model version.
        frame: Number of the request, unique for this router.
        rows: The inputs.
        deadlines_s: When each output is of no more use, seconds since the epoch; `inf` for never.
    """

    ref: str
    frame: int
    rows: Rows
    deadlines_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Outputs of consecutive rows of one request.

    Attributes:
        frame: Number of the request.
        row0: Index of the first row.
        outputs: One a row; anything where the row failed.
        failed: Reason (`late` or `error`) and explanation of each row without an output, by index in the request.
    """

    frame: int
    row0: int
    outputs: list[Any]
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(slots=True)
class Effects:
    """What one call of the router asks its caller to carry out.

    Attributes:
        now_s: When the call was made, seconds since the epoch.
        requests: Rows to send to model versions.
        answers: Answers to record and send.
        audits: What was asked for the log only, to record once the query's answer is.
        lookups: Rows looked up in the cache, by model reference.
        hits: Rows found there.
        coalesced: Rows that joined an identical row in flight.
        forgotten: Numbers of requests whose answer is awaited no more.
        queries: Queries that were new, by application; None: it is not registered.
    """

    now_s: float
    requests: list[Request] = field(default_factory=list)
    answers: list[QueryAnswer] = field(default_factory=list)
    audits: list[QueryAnswer] = field(default_factory=list)
    lookups: dict[str, int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    coalesced: int = 0
    forgotten: list[int] = field(default_factory=list)
    queries: dict[str | None, int] = field(default_factory=dict)

    def count_queries(self, application: str | None, count: int) -> None:
        """So many queries were new."""
        self.queries[application] = self.queries.get(application, 0) + count

    def count_lookups(self, ref: str, rows: int, hits: int, coalesced: int) -> None:
        """So many rows were looked up in the cache; some were there, some are in flight already."""
        self.lookups[ref] = self.lookups.get(ref, 0) + rows
        self.hits[ref] = self.hits.get(ref, 0) + hits
        self.coalesced += coalesced
