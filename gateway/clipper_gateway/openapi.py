"""OpenAPI document of the HTTP API, and the page that shows it.

`python -m clipper_gateway.openapi > gateway/clipper_gateway/openapi.json` writes the packaged document; a test fails
while it differs from what would be written.

Source: OpenAPI 3.1.1; RFC 9457 (problems), RFC 7240 (`Prefer`); Open Inference Protocol, "HTTP/REST".
"""

import json
import re
import sys
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from clipper_gateway.api import MOST_FEEDBACK, MOST_WAIT_S
from clipper_gateway.inference import QueryParameters
from clipper_gateway.request_log import TRACEPARENT
from clipper_gateway.rest import BODY_S
from clipper_gateway.tensors import BF16, BYTES, MOST_DIMENSIONS, MOST_ELEMENTS, OUTPUT
from clipper_stream.models.runtimes.oip_tensors import DATATYPES
from clipper_topics.http_messages import Accepted, ClipperQuery, ClipperUpdate, PredictBody, QueryAnswer
from clipper_topics.json_schema import components
from clipper_topics.manifests import NAME_PATTERN, ApplicationManifest
from clipper_topics.prediction import REASONS
from clipper_topics.query import Query

Json: TypeAlias = dict[str, Any]

FILE = Path(__file__).with_name("openapi.json")
API_VERSION = "1.0.0"
"""Minor: a path, a field or a status was added. Major: an old client would misunderstand."""

REFUSALS = {
    400: "The request is not what it should be: `error` has the field, its value and its bound.",
    401: "There are no credentials, or they are not valid.",
    403: "The caller lacks the right, or may not use the application; or a page of another site has sent this.",
    404: "There is no such application, version or query.",
    408: f"The body was not there within {BODY_S:g} s.",
    413: "The body, or a record that it becomes, is too large.",
    415: "The body has another content type, or a content encoding.",
    422: "The query's id stands for another query already.",
    429: "Too many calls of the application wait, or the key's rate is used up.",
    431: "The headers are too large or too many; this response has no body.",
    500: "A defect of the gateway: its log has it under the request's id.",
    503: "Kafka or the token issuer does not answer now, or a `strict` query would have had the default output.",
    504: "No answer came in time. It may still come: ask for it by `query_id`.",
}
ALL, WITH_CREDENTIALS, WITH_BODY = (400, 403, 431, 500), (401, 429, 503), (408, 413, 415)
CONTENT = {"events": "text/event-stream", "binary": "application/octet-stream", "Problem": "application/problem+json"}
"""Content types by what is in a response or body; of everything else it is JSON."""
RESPONSE_HEADERS = {
    "X-Request-Id": "The request's own id, or a new one; the gateway's log has it.",
    "Retry-After": "Seconds after which to try again.",
    "WWW-Authenticate": "`Bearer`, and what is wrong with a token.",
    "Location": "Of an accepted query: where its answer will be.",
    "Preference-Applied": "`respond-async`, where a query was accepted.",
    "Inference-Header-Content-Length": "Of a binary response: the bytes of its JSON.",
}
HEADERS_OF = {
    "401": ["WWW-Authenticate"],
    "429": ["Retry-After"],
    "503": ["Retry-After"],
    "Accepted": ["Location", "Preference-Applied"],
    "InferenceResponse binary": ["Inference-Header-Content-Length"],
}
"""Headers beside the request's id, by status or content of a response."""


class Operation(NamedTuple):
    """What a path does; a body makes it a POST, and contents are names of schemas or of `CONTENT`."""

    operation_id: str
    summary: str
    answers: dict[int, str]
    refusals: tuple[int, ...] = ()
    parameters: str = ""
    body: str = ""
    is_public: bool = False


ASKED, NAMED = (404, 422, 504), (404,)
_INFER = ("Ask the rows of a tensor as one query.", {200: "InferenceResponse binary"}, ASKED)
_INFER_FROM = ("idempotencyKey headerLength", "InferenceRequest binary")
_MODEL_READY = ("Say whether a model is served.", {200: "ModelReady", 503: "ModelReady Problem"}, NAMED)
_READY = {200: "Ready", 503: "Ready"}

OPERATIONS = {
    "/v1/applications/{name}/predict": Operation(
        "predict",
        "Ask an application's models.",
        {200: "Prediction", 202: "Accepted"},
        ASKED,
        "idempotencyKey prefer",
        "PredictBody",
    ),
    "/v1/feedback": Operation(
        "giveFeedback", "Say what was true about queries.", {202: "Accepted"}, NAMED, body="FeedbackBody"
    ),
    "/v1/queries/{query_id}": Operation(
        "getQuery",
        "Read the answer to a query and the feedback about it, or wait for the answer. As events: one, `answer` or, "
        "when the wait ends without it, `unanswered`.",
        {200: "QueryAnswer events", 202: "QueryAnswer"},
        NAMED,
        "application context waitS",
    ),
    "/v1/answers": Operation(
        "followAnswers", "Follow the answers of your queries that this gateway has accepted.", {200: "events"}
    ),
    "/v1/applications": Operation("listApplications", "List the applications.", {200: "Applications"}),
    "/v1/models": Operation("listModels", "List the versions of models.", {200: "Models"}),
    "/v2/models/{name}/infer": Operation("infer", *_INFER, *_INFER_FROM),
    "/v2/models/{name}/versions/{version}/infer": Operation("inferVersion", *_INFER, *_INFER_FROM),
    "/v2/models/{name}/ready": Operation("modelReady", *_MODEL_READY),
    "/v2/models/{name}/versions/{version}/ready": Operation("versionReady", *_MODEL_READY),
    "/v2/models/{name}": Operation("model", "Describe a model.", {200: "ModelMetadata"}, NAMED),
    "/v2/models/{name}/versions/{version}": Operation("version", "Describe it.", {200: "ModelMetadata"}, NAMED),
    "/v2": Operation("server", "Describe the server.", {200: "ServerMetadata"}),
    "/v2/health/live": Operation("serverLive", "Say that the gateway lives.", {200: "Live"}, is_public=True),
    "/v2/health/ready": Operation("serverReady", "Say whether the gateway serves.", _READY, is_public=True),
    "/livez": Operation("live", "Say that the gateway lives.", {200: "Live"}, is_public=True),
    "/readyz": Operation("ready", "Say whether the gateway serves, and if not, why.", _READY, is_public=True),
    "/{name}/predict": Operation(
        "clipperPredict", "Ask as Clipper is asked.", {200: "ClipperAnswer"}, (404, 504), body="ClipperQuery"
    ),
    "/{name}/update": Operation(
        "clipperUpdate", "Say the label of an input.", {200: "ClipperUpdated"}, (404, 504), body="ClipperUpdate"
    ),
}


def document() -> Json:
    """Return the whole document."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "clipper-stream",
            "version": API_VERSION,
            "description": "Queries, predictions and feedback over HTTP. An error is a problem (RFC 9457), that of an "
            "unknown path (404) or method (405) too. What is no HTTP is answered by 400, and what comes beyond the "
            "most connections by 503, both in plain text. Ignore fields and headers that you do not know.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "security": [{}, {"apiKey": []}, {"bearer": []}],
        "paths": {
            path: {"post" if operation.body else "get": _described(path, operation)}
            for path, operation in OPERATIONS.items()
        },
        "components": {
            "schemas": _schemas(),
            "parameters": _parameters(),
            "responses": {
                str(status): {
                    "description": text,
                    "headers": _headers(str(status)),
                    **({} if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE else {"content": _content("Problem")}),
                }
                for status, text in REFUSALS.items()
            },
            "headers": {
                name: {"description": text, "schema": {"type": "integer" if name == "Retry-After" else "string"}}
                for name, text in RESPONSE_HEADERS.items()
            },
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer."},
            },
        },
    }


def _described(path: str, operation: Operation) -> Json:
    statuses = (*ALL, *operation.refusals)
    statuses += () if operation.is_public else WITH_CREDENTIALS
    statuses += WITH_BODY if operation.body else ()
    responses: Json = {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}
    for status, content in operation.answers.items():
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _headers(str(status), content),
            "content": _content(content),
        }
    parameters = [*re.findall(r"{(\w+)}", path), *operation.parameters.split(), "requestId"]
    parameters += ["traceparent"] if operation.body else []
    return {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in parameters],
        **({"requestBody": {"required": True, "content": _content(operation.body)}} if operation.body else {}),
        "responses": dict(sorted(responses.items())),
        **({"security": []} if operation.is_public else {}),
    }


def _content(names: str) -> Json:
    described = {
        "events": {"type": "string", "description": "Server-sent events, whose data is JSON."},
        "binary": {"description": "JSON, and the values of its tensor behind it, little-endian."},
    }
    return {
        CONTENT.get(name, "application/json"): {"schema": described.get(name) or _ref(name)} for name in names.split()
    }


def _headers(*of: str) -> Json:
    names = ["X-Request-Id", *(name for one in of for name in HEADERS_OF.get(one, []))]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
