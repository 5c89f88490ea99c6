"""A call that the gateway serves, from its first line to its last, whichever protocol it came by."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from clipper_gateway.callers import NOBODY, Caller
from clipper_gateway.errors import Refusal
from clipper_topics.query_ids import random_hex
from clipper_topics.trace_context import context_in

CLIENT_GONE = 499
"""Nobody was there any more to read the answer."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
SINGLE = {
    *("authorization", "content-encoding", "content-length", "content-type", "cookie", "host", "idempotency-key"),
    *("inference-header-content-length", "origin", "sec-fetch-site", "x-api-key", "x-csrf-token"),
}
"""Headers that decide something stand once in a call: two proxies would each believe another one."""


@dataclass(slots=True, kw_only=True)
class ServedCall:
    """A call as handlers, the log and spans see it.

    Attributes:
        method: Of HTTP, or `gRPC`.
        route: The path with its parameters in braces, or the method of gRPC.
        headers: Of the request, or its metadata, by their names in lower case.
        peer: Address of who asks: of who is connected, or for whom a trusted proxy is.
        caller: `NOBODY` until it is known who asks.
        application: That the call names.
        timeout_s: The client's own, where it said one.
        status: How it ended, as of HTTP.
    """

    method: str = "gRPC"
    route: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    peer: str = ""
    caller: Caller = NOBODY
    application: str = ""
    timeout_s: float | None = None
    status: int = CLIENT_GONE
    started_s: float = field(default_factory=time.perf_counter)
    request_id: str = field(init=False)

    def __post_init__(self) -> None:
        given = self.headers.get("x-request-id")
        self.request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else random_hex()

    @property
    def record_headers(self) -> list[tuple[str, bytes]]:
        """Headers of the records that are written because of the call.

        >>> ServedCall(headers={"traceparent": "of another form", "x-request-id": "order-7"}).record_headers
        [('correlation-id', b'order-7')]
        """
        trace, own = self.headers.get("traceparent"), [("correlation-id", self.request_id.encode())]
        return [("traceparent", trace.encode()), *own] if trace and context_in(trace).is_valid else own


def check_single(headers: Iterable[tuple[str, object]]) -> None:
    """Raise a `Refusal` where one of `SINGLE` stands twice."""
    names = [name for name, _ in headers if name in SINGLE]
    if len(names) > len({*names}):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(400, f"header {twice} stands twice: send it once")
