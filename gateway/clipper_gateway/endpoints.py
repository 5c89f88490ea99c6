"""The table of the HTTP API: every path with what answers it. `docs/openapi_document.py` describes each."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from clipper_gateway.api import OwnApi
from clipper_gateway.oip_rest import InferenceEndpoints
from clipper_gateway.rest import Admit, Endpoints, Handler

DOCUMENT = Path(__file__).with_name("openapi.json")


class Endpoint(NamedTuple):
    """One path with its parameters in braces; `is_admitted`: an application's calls are refused while too many wait."""

    path: str
    handler: Callable[[OwnApi, InferenceEndpoints], Handler]
    method: str = "GET"
    is_admitted: bool = False
    is_public: bool = False


_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
ENDPOINTS = (
    Endpoint("/v1/applications/{name}/predict", lambda own, _: own.predict, "POST", is_admitted=True),
    Endpoint("/v1/feedback", lambda own, _: own.feedback, "POST"),
    Endpoint("/v1/queries/{query_id:text}", lambda own, _: own.query),
    Endpoint("/v1/applications", lambda own, _: own.applications),
    Endpoint("/v1/models", lambda own, _: own.models),
    Endpoint(f"{_MODEL}/infer", lambda _, v2: v2.infer, "POST", is_admitted=True),
    Endpoint(f"{_VERSION}/infer", lambda _, v2: v2.infer, "POST", is_admitted=True),
    Endpoint("/v2/health/live", lambda own, _: own.live, is_public=True),
    Endpoint("/v2/health/ready", lambda own, _: own.ready, is_public=True),
    Endpoint(f"{_MODEL}/ready", lambda _, v2: v2.model_ready),
    Endpoint(f"{_VERSION}/ready", lambda _, v2: v2.model_ready),
    Endpoint(_MODEL, lambda _, v2: v2.model),
    Endpoint(_VERSION, lambda _, v2: v2.model),
    Endpoint("/v2", lambda _, v2: v2.server),
    Endpoint("/v2/", lambda _, v2: v2.server),  # as the protocol's own document has it
    Endpoint("/livez", lambda own, _: own.live, is_public=True),
    Endpoint("/readyz", lambda own, _: own.ready, is_public=True),
)
"""The most frequent ones first, as they are tried in order."""


def routes_of(own: OwnApi, inference: InferenceEndpoints, endpoints: Endpoints, admit: Admit) -> list[Route]:
    """Return the routes, and that of the OpenAPI document, which anybody may read."""
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    document = Response(DOCUMENT.read_bytes(), headers=headers, media_type="application/json")
    routes: list[Route] = []
    for one in ENDPOINTS:
        handler, of = one.handler(own, inference), admit if one.is_admitted else None
        routes.append(endpoints.route(one.path, handler, method=one.method, public=one.is_public, admit=of))
    return [*routes, Route("/openapi.json", document, methods=["GET"])]
