"""The table of the HTTP API: every path with what answers it, from which its route and the OpenAPI document follow."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from starlette.routing import Route

from clipper_gateway.api import OwnApi
from clipper_gateway.oip_rest import InferenceEndpoints
from clipper_gateway.rest import Admit, Endpoints, Handler


class Handlers(Protocol):
    """What has the handlers: a `Gateway`."""

    api: OwnApi
    inference: InferenceEndpoints


class Endpoint(NamedTuple):
    """One path; a POST if it takes a body.

    Attributes:
        path: With its parameters in braces.
        answers: Names of the schemas of its contents, by status.
        refusals: Statuses that are not of every endpoint of its kind.
        parameters: Of the query and the headers.
        body: Name of the schema.
        is_admitted: Whether an application's calls are refused while too many of them wait.
        is_public: Whether callers without a key are let in.
    """

    path: str
    operation_id: str
    handler: Callable[[Handlers], Handler]
    summary: str
    answers: dict[int, str]
    refusals: tuple[int, ...] = ()
    parameters: str = ""
    body: str = ""
    is_admitted: bool = False
    is_public: bool = False


_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
_INFER = ("Ask the rows of a tensor as one query.", {200: "InferenceResponse Binary"}, (404, 422, 504))
_INFER_OF = ("Idempotency-Key Inference-Header-Content-Length", "InferenceRequest Binary", True)
_SERVED = ("Say whether a model is served.", {200: "ModelReady", 503: "ModelReady Problem"}, (404,))
_LIVES = ("Say that the gateway lives.", {200: "LiveReport"})
_SERVES = ("Say whether the gateway serves.", {200: "ReadyReport", 503: "ReadyReport"})
_FOUND = "Read a query's answer and the feedback about it, or wait for it. As events: one, `answer` or `unanswered`."

ENDPOINTS = (
    Endpoint(
        "/v1/applications/{name}/predict", "predict", lambda of: of.api.predict, "Ask an application.",
        {200: "Prediction"}, (404, 422, 504), "Idempotency-Key", "PredictBody", is_admitted=True,
    ),
    Endpoint(
        "/v1/feedback", "feedback", lambda of: of.api.feedback, "Say what was true.", {202: "Accepted"}, (404,),
        body="FeedbackBody",
    ),
    Endpoint(
        "/v1/queries/{query_id:text}", "query", lambda of: of.api.query, _FOUND,
        {200: "QueryStatus Events", 202: "QueryStatus"}, (404,), "application context wait_s",
    ),
    Endpoint(
        "/v1/applications", "applications", lambda of: of.api.applications, "List the applications.",
        {200: "Applications"},
    ),
    Endpoint("/v1/models", "models", lambda of: of.api.models, "List the versions of models.", {200: "Models"}),
    Endpoint(f"{_MODEL}/infer", "infer", lambda of: of.inference.infer, *_INFER, *_INFER_OF),
    Endpoint(f"{_VERSION}/infer", "inferVersion", lambda of: of.inference.infer, *_INFER, *_INFER_OF),
    Endpoint("/v2/health/live", "serverLive", lambda of: of.api.live, *_LIVES, is_public=True),
    Endpoint("/v2/health/ready", "serverReady", lambda of: of.api.ready, *_SERVES, is_public=True),
    Endpoint(f"{_MODEL}/ready", "modelReady", lambda of: of.inference.model_ready, *_SERVED),
    Endpoint(f"{_VERSION}/ready", "versionReady", lambda of: of.inference.model_ready, *_SERVED),
    Endpoint(_MODEL, "model", lambda of: of.inference.model, "Describe a model.", {200: "ModelMetadata"}, (404,)),
    Endpoint(_VERSION, "version", lambda of: of.inference.model, "Describe it.", {200: "ModelMetadata"}, (404,)),
    Endpoint("/v2", "server", lambda of: of.inference.server, "Describe the server.", {200: "ServerMetadata"}),
    Endpoint("/livez", "live", lambda of: of.api.live, *_LIVES, is_public=True),
    Endpoint("/readyz", "ready", lambda of: of.api.ready, *_SERVES, is_public=True),
)  # fmt: skip
"""The most frequent ones first, as they are tried in order."""


def routes_of(handlers: Handlers, endpoints: Endpoints, admit: Admit) -> list[Route]:
    """Return the routes; `/v2/` is there as well, as the protocol's own document has it."""
    server = next(one for one in ENDPOINTS if one.path == "/v2")
    return [
        endpoints.route(
            one.path,
            one.handler(handlers),
            method="POST" if one.body else "GET",
            public=one.is_public,
            admit=admit if one.is_admitted else None,
        )
        for one in (*ENDPOINTS, server._replace(path="/v2/"))
    ]
