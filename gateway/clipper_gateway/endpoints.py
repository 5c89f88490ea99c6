"""The table of the HTTP API: every path with what answers it. `docs/openapi_document.py` describes each."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from starlette.responses import Response
from starlette.routing import Route

from clipper_gateway.api import OwnApi
from clipper_gateway.oip_rest import InferenceEndpoints
from clipper_gateway.rest import Admit, Endpoints, Handler

DOCUMENT = Path(__file__).with_name("openapi.json")


class Handlers(Protocol):
    """What has the handlers: a `Gateway`."""

    api: OwnApi
    inference: InferenceEndpoints


class Endpoint(NamedTuple):
    """One path with its parameters in braces; `is_admitted`: an application's calls are refused while too many wait."""

    path: str
    handler: Callable[[Handlers], Handler]
    method: str = "GET"
    is_admitted: bool = False
    is_public: bool = False


_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
ENDPOINTS = (
    Endpoint("/v1/applications/{name}/predict", lambda of: of.api.predict, "POST", is_admitted=True),
    Endpoint("/v1/feedback", lambda of: of.api.feedback, "POST"),
    Endpoint("/v1/queries/{query_id:text}", lambda of: of.api.query),
    Endpoint("/v1/applications", lambda of: of.api.applications),
    Endpoint("/v1/models", lambda of: of.api.models),
    Endpoint(f"{_MODEL}/infer", lambda of: of.inference.infer, "POST", is_admitted=True),
    Endpoint(f"{_VERSION}/infer", lambda of: of.inference.infer, "POST", is_admitted=True),
    Endpoint("/v2/health/live", lambda of: of.api.live, is_public=True),
    Endpoint("/v2/health/ready", lambda of: of.api.ready, is_public=True),
    Endpoint(f"{_MODEL}/ready", lambda of: of.inference.model_ready),
    Endpoint(f"{_VERSION}/ready", lambda of: of.inference.model_ready),
    Endpoint(_MODEL, lambda of: of.inference.model),
    Endpoint(_VERSION, lambda of: of.inference.model),
    Endpoint("/v2", lambda of: of.inference.server),
    Endpoint("/v2/", lambda of: of.inference.server),  # as the protocol's own document has it
    Endpoint("/livez", lambda of: of.api.live, is_public=True),
    Endpoint("/readyz", lambda of: of.api.ready, is_public=True),
)
"""The most frequent ones first, as they are tried in order."""


def routes_of(handlers: Handlers, endpoints: Endpoints, admit: Admit) -> list[Route]:
    """Return the routes, and that of the OpenAPI document, which anybody may read."""
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    document = Response(DOCUMENT.read_bytes(), headers=headers, media_type="application/json")
    routes = [
        endpoints.route(
            one.path,
            one.handler(handlers),
            method=one.method,
            public=one.is_public,
            admit=admit if one.is_admitted else None,
        )
        for one in ENDPOINTS
    ]
    return [*routes, Route("/openapi.json", document, methods=["GET"])]
