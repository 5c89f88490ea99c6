"""Whether the gateway lives, and whether it should be sent anything."""

import time
from collections.abc import Callable

from starlette.responses import Response
from starlette.routing import Route

from clipper_gateway.pipeline import Pipeline
from clipper_gateway.rest import Endpoints, HttpCall, json_response

PROBED_S = 15.0
NOTICE_S = 1.5
"""A balancer that probes each second has seen then that nothing should come any more."""


class Readiness:
    """What probes are told; a missing broker makes a gateway unready, never dead."""

    def __init__(self, pipeline: Pipeline, clock: Callable[[], float] = time.monotonic) -> None:
        self._pipeline, self._clock = pipeline, clock
        self._probed_s: float | None = None

    def reasons(self) -> list[str]:
        """Return why the gateway does not serve now, empty when it does."""
        self._probed_s = self._clock()
        return self._pipeline.reasons()

    def notice_s(self) -> float:
        """Return how long somebody who probes needs to see a change: nothing where nobody has asked lately."""
        is_probed = self._probed_s is not None and self._clock() - self._probed_s < PROBED_S
        return NOTICE_S if is_probed else 0.0

    def routes(self, endpoints: Endpoints) -> list[Route]:
        """Return the routes of the probes."""
        return [
            endpoints.route("/livez", self.live, method="GET", public=True),
            endpoints.route("/readyz", self.ready, method="GET", public=True),
        ]

    async def live(self, _: HttpCall) -> Response:
        """Answer: who answers lives."""
        return json_response({"live": True})

    async def ready(self, _: HttpCall) -> Response:
        """Answer 200, or 503 with the reasons."""
        reasons = self.reasons()
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
