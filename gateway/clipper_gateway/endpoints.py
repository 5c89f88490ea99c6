"""The table of the HTTP API: every path with what answers it. `docs/openapi_document.py` describes each."""

from pathlib import Path

from starlette.responses import Response
from starlette.routing import Route

from clipper_gateway.api import OwnApi
from clipper_gateway.oip_rest import InferenceEndpoints
from clipper_gateway.rest import Admit, Endpoints

DOCUMENT = Path(__file__).with_name("openapi.json")
_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"


def routes_of(endpoints: Endpoints, own: OwnApi, v2: InferenceEndpoints, admit: Admit) -> list[Route]:
    """Return the routes, the most frequent ones first, as they are tried in order; anybody may read the document."""
    of, headers = endpoints.route, {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    document = Response(DOCUMENT.read_bytes(), headers=headers, media_type="application/json")
    return [
        of("/v1/applications/{name}/predict", own.predict, admit=admit),
        of("/v1/feedback", own.feedback),
        of("/v1/queries/{query_id:text}", own.query, method="GET"),
        of("/v1/applications", own.applications, method="GET"),
        of("/v1/models", own.models, method="GET"),
        of(f"{_MODEL}/infer", v2.infer, admit=admit),
        of(f"{_VERSION}/infer", v2.infer, admit=admit),
        of("/v2/health/live", own.live, method="GET", public=True),
        of("/v2/health/ready", own.ready, method="GET", public=True),
        of(f"{_MODEL}/ready", v2.model_ready, method="GET"),
        of(f"{_VERSION}/ready", v2.model_ready, method="GET"),
        of(_MODEL, v2.model, method="GET"),
        of(_VERSION, v2.model, method="GET"),
        of("/v2", v2.server, method="GET"),
        of("/v2/", v2.server, method="GET"),  # as the protocol's own document has it
        of("/livez", own.live, method="GET", public=True),
        of("/readyz", own.ready, method="GET", public=True),
        Route("/openapi.json", document, methods=["GET"]),
    ]
