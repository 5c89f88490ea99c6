"""OpenAPI document of the HTTP API.

`python -m clipper_gateway.openapi > gateway/clipper_gateway/openapi.json` writes the packaged document; a test fails
while it differs from what would be written.

Source: OpenAPI 3.1.1; RFC 9457 (problems); Open Inference Protocol, "HTTP/REST".
"""

import json
import re
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from clipper_gateway import http_messages
from clipper_gateway.api import MOST_FEEDBACK, MOST_WAIT_S
from clipper_gateway.endpoints import ENDPOINTS, Endpoint
from clipper_gateway.inference import QueryParameters
from clipper_gateway.request_log import TRACEPARENT
from clipper_stream.http.query_status import QueryStatus
from clipper_topics.feedback import Feedback
from clipper_topics.json_schema import components
from clipper_topics.manifests import NAME_PATTERN, ApplicationManifest
from clipper_topics.query import Query

Json: TypeAlias = dict[str, Any]
_TEXT: Json = {"type": "string"}
FILE = Path(__file__).with_name("openapi.json")
API_VERSION = "1.0.0"
"""Minor: a path, a field or a status was added. Major: an old client would misunderstand."""

REFUSALS = {
    400: "The request is not what it should be: `error` has the field, its value and its bound.",
    401: "There are no credentials, or they are not valid.",
    403: "The caller lacks the right, or may not use the application; or a page of another site has sent this.",
    404: "There is no such application, version or query.",
    413: "The body, or a record that it becomes, is too large.",
    415: "The body has another content type, or a content encoding.",
    422: "The query's id stands for another query already.",
    429: "Too many calls of the application wait, or the key's rate is used up.",
    500: "A defect of the gateway: its log has it under the request's id.",
    503: "Kafka or the token issuer does not answer now, or a `strict` query would have had the default output.",
    504: "No answer came in time. It may still come: ask for it by `query_id`.",
}
ALL, WITH_CREDENTIALS, WITH_BODY = (400, 403, 431, 500), (401, 429, 503), (413, 415)
CONTENT = {"Events": "text/event-stream", "Binary": "application/octet-stream", "Problem": "application/problem+json"}
RESPONSE_HEADERS = {
    "X-Request-Id": ("", "The request's own id, or a new one; the gateway's log has it."),
    "Retry-After": ("429 503", "Seconds after which to try again."),
    "WWW-Authenticate": ("401", "`Bearer`, and what is wrong with a token."),
    "Inference-Header-Content-Length": ("Binary", "Of a binary response: the bytes of its JSON."),
}
"""In which responses a header may be, by status or content ("": in all), and what it says."""


PATHS = {one.path.replace(":text}", "}"): one for one in ENDPOINTS}


def document() -> Json:
    """Return the whole document."""
    schemas = _schemas()
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "clipper-stream",
            "version": API_VERSION,
            "description": "Errors are problems (RFC 9457), those of an unknown path or method (404, 405) too. What is "
            "no HTTP (400) and too many connections (503) are told in plain text. Ignore fields that you do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "security": [{}, {"apiKey": []}, {"bearer": []}],
        "paths": {path: {"post" if of.body else "get": _described(path, of)} for path, of in PATHS.items()},
        "components": {
            "schemas": schemas,
            "parameters": _parameters(schemas["PredictBody"]["properties"]),
            "responses": {str(status): _response(status, text, "Problem") for status, text in REFUSALS.items()}
            | {"431": {"description": "The headers are too large or too many; this response has no body."}},
            "headers": {name: {"description": text, "schema": _TEXT} for name, (_, text) in RESPONSE_HEADERS.items()},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer."},
            },
        },
    }


def _described(path: str, of: Endpoint) -> Json:
    statuses = {*ALL, *of.refusals, *(WITH_BODY if of.body else ()), *(() if of.is_public else WITH_CREDENTIALS)}
    responses: Json = {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}
    for status, content in of.answers.items():
        responses[str(status)] = _response(status, HTTPStatus(status).phrase, content)
    names = [*re.findall(r"{(\w+)}", path), *of.parameters.split(), "X-Request-Id", *["traceparent"] * bool(of.body)]
    return {
        "operationId": of.operation_id,
        "summary": of.summary,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names],
        **({"requestBody": {"required": True, "content": _content(of.body)}} if of.body else {}),
        "responses": dict(sorted(responses.items())),
        **({"security": []} if of.is_public else {}),
    }


def _response(status: int, description: str, names: str) -> Json:
    of = {"", str(status), *names.split()}
    headers = [name for name, (where, _) in RESPONSE_HEADERS.items() if of & {*(where.split() or [""])}]
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": _content(names),
    }


def _content(names: str) -> Json:
    return {CONTENT.get(name, "application/json"): {"schema": _ref(name)} for name in names.split()}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Json:
    bodies = [one for one in vars(http_messages).values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    records: list[type[msgspec.Struct]] = [Feedback, QueryStatus, *bodies, QueryParameters, ApplicationManifest, Query]
    found = components(records, _ref("{name}")["$ref"])
    asked = found.pop("Query")
    for name in ("PredictBody", "QueryParameters"):
        for field, described in found[name]["properties"].items():
            bounds = {one.get("type", "number"): one for one in asked["properties"].get(field, {}).get("anyOf", ())}
            if "anyOf" in described:
                described["anyOf"] = [bounds.get(one["type"], one) for one in described["anyOf"]]
    found["PredictBody"]["oneOf"] = asked["oneOf"]
    found["FeedbackReport"]["properties"] |= found["Feedback"]["properties"]
    found["InferenceRequest"]["properties"]["parameters"] |= _ref("QueryParameters")
    for name, example in http_messages.EXAMPLES.items():
        found[name]["examples"] = [example]
    several = {"type": "array", "items": _ref("Feedback"), "minItems": 1, "maxItems": MOST_FEEDBACK}
    return found | {
        "FeedbackBody": {"anyOf": [_ref("Feedback"), several]},
        "Applications": {"type": "array", "items": _ref("ApplicationManifest")},
        "Models": {"type": "array", "items": _ref("ModelSummary")},
        "Events": _TEXT | {"description": "Server-sent events, whose data is JSON."},
        "Binary": {"description": "JSON, and the values of its tensor behind it, little-endian."},
    }


def _parameters(asked: Json) -> Json:
    application, seconds = _text(NAME_PATTERN), {"type": "number", "minimum": 0, "maximum": MOST_WAIT_S}
    query_id, context = (asked[field]["anyOf"][0] for field in ("query_id", "context"))
    rows = (
        ("path", "name", application, "The application."),
        ("path", "version", _TEXT, "The application's revision."),
        ("path", "query_id", query_id, "The query's id."),
        ("query", "application", application, "The query's application."),
        ("query", "context", context, "The query's context, if it has one."),
        ("query", "wait_s", seconds, "Wait so long for the answer."),
        ("header", "Idempotency-Key", query_id | _text("^[!-~]+$"), "The query's id, if the body has none."),
        ("header", "Inference-Header-Content-Length", _text("^[0-9]{1,12}$"), "Bytes of a binary body's JSON."),
        ("header", "X-Request-Id", _text("^[!-~]{1,128}$"), "For logs and records; ignored in another form."),
        ("header", "traceparent", _text(f"^{TRACEPARENT.pattern}$"), "For records; ignored in another form."),
    )
    return {
        name: {"in": where, "name": name, "description": text, "schema": schema}
        | ({"required": True} if where == "path" or name == "application" else {})
        for where, name, schema, text in rows
    }


def _text(pattern: str) -> Json:
    return _TEXT | {"pattern": pattern}


def openapi_route() -> Route:
    """Return the route of the document, which anybody may read."""
    served = Response(FILE.read_bytes(), headers={"cache-control": "no-cache"}, media_type="application/json")
    return Route("/openapi.json", served, methods=["GET"])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2, ensure_ascii=False) + "\n")
