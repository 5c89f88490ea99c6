"""Starlette on uvicorn with the gateway's own settings and protocol class, without a pipeline: a constant answer.

bare_http.py PORT
"""

import sys

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from clipper_gateway.http_protocol import UVICORN, BoundedHttpProtocol

ANSWER = (
    b'{"query_id":"0-0123456789abcdef","application":"digits","output":0,"confidence":1.0,"policy":{"name":"single"},'
    b'"models":[{"model":"digits","version":"1","propensity":1.0,"output":0,"latency_ms":0.5}],'
    b'"queried_at_ms":1700000000000,"predicted_at_ms":1700000000003,"latency_ms":3}'
)
"""As long as one of the gateway."""


async def predict(request: Request) -> Response:
    """Read the body, and do nothing with it."""
    await request.body()
    return Response(ANSWER, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        Router([Route("/predict", predict, methods=["POST"])]),
        port=int(sys.argv[1]),
        http=BoundedHttpProtocol,
        loop="uvloop",
        **UVICORN,
    )
