"""Write the OpenAPI document: `python docs/openapi_document.py > gateway/clipper_gateway/openapi.json`.

Source: OpenAPI 3.1.1; RFC 9457 (problems); Open Inference Protocol, "HTTP/REST".
"""

import json
import re
import sys
from http import HTTPStatus
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from clipper_gateway.api import MOST_FEEDBACK, MOST_WAIT_S, VERDICTS, Accepted, FeedbackBody, OwnApi
from clipper_gateway.calls import PredictBody
from clipper_gateway.errors import STATUSES
from clipper_gateway.inference import PARAMETERS
from clipper_gateway.oip_rest import InferenceEndpoints, InferenceRequest, InputTensor, RequestedOutput
from clipper_gateway.server import routes_of
from clipper_stream.http.query_status import QueryStatus
from clipper_topics.comparison import Comparison
from clipper_topics.feedback import Feedback
from clipper_topics.json_schema import components
from clipper_topics.manifests import NAME_PATTERN, ApplicationManifest, InputSpec
from clipper_topics.prediction import REASONS
from clipper_topics.query import Query
from clipper_topics.trace_context import TRACEPARENT

Json: TypeAlias = dict[str, Any]
_TEXT: Json = {"type": "string"}
API_VERSION = "1.1.0"
"""Minor: a path, a field or a status was added. Major: an old client would misunderstand."""

REFUSALS = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
ALL, WITH_CREDENTIALS, WITH_BODY = (400, 403, 431, 500), (401, 429, 503), (413, 415)
CONTENT = {"Binary": "application/octet-stream", "Problem": "application/problem+json"}
OF_HTTP = {
    "query_id": "An id of your own, as the header Idempotency-Key: the same request again has the same answer.",
    "context": "Whose weights to use: a user, a device.",
    "deadline_ms": "Answer within so many milliseconds; at most the application's objective counts.",
}
"""What fields of a query's record are to who asks over HTTP."""
RESPONSE_HEADERS = {
    "X-Request-Id": ("", "The request's own id, or a new one; the gateway's log has it."),
    "Retry-After": ("429 503", "Seconds after which to try again."),
    "WWW-Authenticate": ("401", "`Bearer`, and what is wrong with a token."),
    "Inference-Header-Content-Length": ("Binary", "Of a binary response: the bytes of its JSON."),
}
"""In which responses a header may be, by status or content ("": in all), and what it says."""


# --- what answers hold ------------------------------------------------------------------------------------------------
_Reason = Annotated[str, Meta(extra_json_schema={"examples": list(REASONS)})]


class ModelSummary(msgspec.Struct, kw_only=True):
    """What callers may know of a version of a model."""

    name: str
    """Name of the model."""
    version: str
    """Version of the model."""
    runtime: str
    """What runs it."""
    input: InputSpec
    """What one row of input looks like."""
    colocated: bool
    """Whether routers run it in their own processes."""
    retired: bool
    """Whether it is served no more."""


class TrialReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a trial stands, or how it ended."""

    application: str
    """The application."""
    model: str
    """The version, `name:version`."""
    verdict: Annotated[str, Meta(extra_json_schema={"examples": sorted(VERDICTS)})]
    """Of a trial: `better`, `not_worse`, `no_difference_that_matters`, `worse` (also by a guardrail) or `undecided`; of
    one that has ended: `promoted`, `aborted` or `retired`. A reader must expect new ones."""
    why: str
    """What it waits for, what is to be done, or why it ended so."""
    stage: str | None = None
    """`shadow` or `canary`; absent: it has ended."""
    share: float | None = None
    """Its share of the queries."""
    evidence: Comparison | None = None
    """Estimate, interval and guardrails; null: none was published lately; absent: it has ended."""
    numbers: dict[str, Any] = {}
    """What the decision was made of that ended it."""


class LiveReport(msgspec.Struct):
    """Answer of a process that lives."""

    live: bool


class ReadyReport(msgspec.Struct):
    """Whether the gateway serves."""

    ready: bool
    reasons: list[str]
    """Why it does not; empty when it does."""


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Why a request was refused or failed (RFC 9457)."""

    type: str
    """Always `about:blank`: the status says which kind of problem this is."""
    title: str
    """The status in words."""
    status: int
    """The response's status."""
    error: str
    """What went wrong, the bound, and what to do next."""
    query_id: str | None = None
    """Of the query, where there is one already."""
    reason: _Reason | None = None
    """Why the default output was given, in a word; a reader must expect new ones."""


class OutputTensor(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The outputs of an answer, rows first."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    """The values, flat in row-major order; absent when they are binary."""
    parameters: dict[str, Any] | None = None
    """`binary_data_size`, and `content_type` `json` where each value is a JSON text."""


class InferenceResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to a question of the protocol."""

    model_name: str
    """Name of the application."""
    model_version: str
    """Its revision."""
    id: str | None = None
    """As in the question."""
    parameters: dict[str, Any]
    """`query_id`, `confidence`, `default`, `models`, `latency_ms`, `policy`, and `reason` of a default output."""
    outputs: list[OutputTensor]
    """One tensor, `output`."""


class TensorMetadata(msgspec.Struct, kw_only=True):
    """What a tensor of an application looks like; -1 for a length that is open."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, kw_only=True):
    """An application, as a model of the protocol."""

    name: str
    versions: list[str]
    """Revision of the application."""
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    """As the last answer of this gateway was; a guess before the first one."""


class ModelReady(msgspec.Struct):
    """Whether a version that may answer for the application is served."""

    name: str
    ready: bool


class ServerMetadata(msgspec.Struct, kw_only=True):
    """The server of the protocol."""

    name: str
    version: str
    extensions: list[str]


EXAMPLES: dict[str, dict[str, Any]] = {
    "PredictBody": {"input": [0.0, 0.5, 1.0], "query_id": "order-7"},
    "Feedback": {"query_id": "order-7", "application": "digits", "label": 3},
    "InferenceRequest": {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [0.0, 0.5, 1.0]}]},
}
"""Of what clients send, by struct."""


# --- paths ------------------------------------------------------------------------------------------------------------
class Description(NamedTuple):
    """What the document says of a path.

    Attributes:
        answers: Names of the schemas of its contents, by status.
        refusals: Statuses that are not of every endpoint of its kind.
        parameters: Of the query and the headers.
        body: Name of the schema.
    """

    path: str
    operation_id: str
    summary: str
    answers: dict[int, str]
    refusals: tuple[int, ...] = ()
    parameters: str = ""
    body: str = ""


_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
_INFER = ("Ask the rows of a tensor as one query.", {200: "InferenceResponse Binary"}, (404, 422, 504))
_INFER_OF = ("Idempotency-Key Inference-Header-Content-Length", "InferenceRequest Binary")
_SERVED = ("Say whether a model is served.", {200: "ModelReady", 503: "ModelReady Problem"}, (404,))
_LIVES = ("Say that the gateway lives.", {200: "LiveReport"})
_SERVES = ("Say whether the gateway serves.", {200: "ReadyReport", 503: "ReadyReport"})
_VERDICT = "/v1/trials/{name}/{model}/verdict"
_JUDGED = {200: "TrialReport", 409: "TrialReport"}, (404,), "expect"
_FOUND = "Read a query's answer and the feedback about it, or wait for it."

DESCRIPTIONS = (
    Description(
        "/v1/applications/{name}/predict", "predict", "Ask an application.",
        {200: "Prediction"}, (404, 422, 504), "Idempotency-Key", "PredictBody",
    ),
    Description(
        "/v1/feedback", "feedback", "Say what was true.", {202: "Accepted"}, (404,),
        body="FeedbackBody",
    ),
    Description(
        "/v1/queries/{query_id:text}", "query", _FOUND,
        {200: "QueryStatus", 202: "QueryStatus"}, (404,), "application context wait_s",
    ),
    Description(_VERDICT, "verdict", "Say how a trial stands.", *_JUDGED),
    Description(_VERDICT, "expectVerdict", "The same, for who only posts; the body is ignored.", *_JUDGED, "Anything"),
    Description(
        "/v1/applications", "applications", "List the applications.",
        {200: "Applications"},
    ),
    Description("/v1/models", "models", "List the versions of models.", {200: "Models"}),
    Description(f"{_MODEL}/infer", "infer", *_INFER, *_INFER_OF),
    Description(f"{_VERSION}/infer", "inferVersion", *_INFER, *_INFER_OF),
    Description("/v2/health/live", "serverLive", *_LIVES),
    Description("/v2/health/ready", "serverReady", *_SERVES),
    Description(f"{_MODEL}/ready", "modelReady", *_SERVED),
    Description(f"{_VERSION}/ready", "versionReady", *_SERVED),
    Description(_MODEL, "model", "Describe a model.", {200: "ModelMetadata"}, (404,)),
    Description(_VERSION, "version", "Describe it.", {200: "ModelMetadata"}, (404,)),
    Description("/v2", "server", "Describe the server.", {200: "ServerMetadata"}),
    Description("/livez", "live", *_LIVES),
    Description("/readyz", "ready", *_SERVES),
)  # fmt: skip


def _served(path: str, _: object, *, public: bool = False, **__: object) -> tuple[str, bool]:
    return path, public


_NOTHING: Any = SimpleNamespace(route=_served), OwnApi, InferenceEndpoints, None
SERVED: dict[str, bool] = dict(routes_of(*_NOTHING)[:-1])  # type: ignore[arg-type]
"""Whether anybody may ask, by path."""
OPERATIONS = [(one.path.replace(":text}", "}"), "post" if one.body else "get", one) for one in DESCRIPTIONS]


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
        "paths": {
            path: {method: _described(path, of) for at, method, of in OPERATIONS if at == path}
            for path, *_ in OPERATIONS
        },
        "components": {
            "schemas": schemas,
            "parameters": _parameters(schemas["PredictBody"]["properties"]),
            "responses": {str(status): _response(status, STATUSES[status][1], "Problem") for status in REFUSALS}
            | {"431": {"description": STATUSES[431][1]}},
            "headers": {name: {"description": text, "schema": _TEXT} for name, (_, text) in RESPONSE_HEADERS.items()},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer."},
            },
        },
    }


def _described(path: str, of: Description) -> Json:
    is_public = SERVED[of.path]
    statuses = {*ALL, *of.refusals, *(WITH_BODY if of.body else ()), *(() if is_public else WITH_CREDENTIALS)}
    responses: Json = {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}
    for status, content in of.answers.items():
        responses[str(status)] = _response(status, HTTPStatus(status).phrase, content)
    traced = of.body not in ("", "Anything")
    names = [*re.findall(r"{(\w+)}", path), *of.parameters.split(), "X-Request-Id", *["traceparent"] * traced]
    return {
        "operationId": of.operation_id,
        "summary": of.summary,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names],
        **({"requestBody": {"required": of.body != "Anything", "content": _content(of.body)}} if of.body else {}),
        "responses": dict(sorted(responses.items())),
        **({"security": []} if is_public else {}),
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
    own = [one for one in globals().values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    told: list[type[msgspec.Struct]] = [Feedback, FeedbackBody, Accepted, QueryStatus]
    bodies = [*told, PredictBody, InputTensor, RequestedOutput, InferenceRequest, *own]
    found = components([*bodies, ApplicationManifest, Query], _ref("{name}")["$ref"])
    asked, given = found.pop("Query"), found.pop("FeedbackBody")
    found["Feedback"]["additionalProperties"] = given["additionalProperties"]
    said = asked["properties"] | {"strict": found["PredictBody"]["properties"]["strict"]}
    del said["application"]
    for field, text in OF_HTTP.items():
        said[field] = said[field] | {"description": text}
    found["PredictBody"] |= {"properties": said, "oneOf": asked["oneOf"]}
    parameters = {field: said[field] for field in PARAMETERS}
    for field in ("models", "features"):
        parameters[field] = parameters[field] | {"anyOf": [_TEXT, *said[field]["anyOf"]]}
    text = "The parameters of a request that this gateway knows, lists as text too; others are ignored."
    found["QueryParameters"] = {"description": text, "type": "object", "properties": parameters}
    found["FeedbackReport"]["properties"] |= found["Feedback"]["properties"]
    found["InferenceRequest"]["properties"]["parameters"] |= _ref("QueryParameters")
    for name, example in EXAMPLES.items():
        found[name]["examples"] = [example]
    several = {"type": "array", "items": _ref("Feedback"), "minItems": 1, "maxItems": MOST_FEEDBACK}
    return found | {
        "Anything": {"description": "What the caller sends with every request."},
        "FeedbackBody": {"anyOf": [_ref("Feedback"), several]},
        "Applications": {"type": "array", "items": _ref("ApplicationManifest")},
        "Models": {"type": "array", "items": _ref("ModelSummary")},
        "Binary": {"description": "JSON, and the values of its tensor behind it, little-endian."},
    }


def _parameters(asked: Json) -> Json:
    application, seconds = _text(NAME_PATTERN), {"type": "number", "minimum": 0, "maximum": MOST_WAIT_S}
    query_id, context = (asked[field]["anyOf"][0] for field in ("query_id", "context"))
    verdict, verdicts = (sign.join(sorted(VERDICTS)) for sign in ("|", ", "))
    some_verdicts = _text(f"^({verdict})(,({verdict}))*$")
    rows = (
        ("path", "name", application, "The application."),
        ("path", "version", _TEXT, "The application's revision."),
        ("path", "model", _TEXT, "The version on trial, `name:version`."),
        ("query", "expect", some_verdicts, f"Answer 409 unless the verdict is one of these ({verdicts})."),
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2, ensure_ascii=False) + "\n")
