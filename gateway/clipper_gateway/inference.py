"""What a request of the Open Inference Protocol V2 asks and an answer says beside its tensors, for HTTP and gRPC alike.

Source: Open Inference Protocol, "Inference Request JSON Object" and "Parameters".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clipper_gateway.access import Caller
from clipper_gateway.calls import AskOptions
from clipper_gateway.errors import Refusal
from clipper_stream.errors import shown
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query


class QueryParameters(msgspec.Struct):
    """The parameters of a request that this gateway knows; others are ignored."""

    context: str | None = None
    """Whose weights to use."""
    deadline_ms: float | None = None
    """Answer within so many milliseconds."""
    query_id: str | None = None
    """The query's id, as the idempotency key: a request that is sent again under its id has the same answer."""
    models: str | list[str] | None = None
    """Models to ask, as a list or separated by commas."""
    features: str | list[float] | None = None
    """Numbers that a policy chooses by, as a list or as the text of a JSON list: gRPC has no lists here."""
    strict: bool | None = None
    """Whether a default output counts as a failure (503)."""


_FEATURES = msgspec.json.Decoder(list[float])
_EXPECTED = "context, query_id, models: text; deadline_ms: a number; features: a list of numbers; strict: true or false"


def query_of(
    application: str,
    rows: Sequence[Any],
    parameters: Mapping[str, Any],
    idempotency_key: str | None = None,
    headers: Iterable[tuple[str, bytes]] = (),
) -> tuple[Query, AskOptions]:
    """Return the query of a V2 request, and how the call is made; bounds are those of `check_query`, in the call."""
    try:
        given = msgspec.convert(parameters, QueryParameters)
        features = _FEATURES.decode(given.features) if isinstance(given.features, str) else given.features
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refusal(
            400, f"the parameters {shown(dict(parameters))} cannot be used ({error}): give {_EXPECTED}"
        ) from error
    models = given.models
    if isinstance(models, str):
        models = [name for part in models.split(",") if (name := part.strip())]
    query = Query(
        application=application,
        query_id=own_id(idempotency_key, given.query_id),
        context=given.context,
        deadline_ms=given.deadline_ms,
        models=models,
        features=features,
    )
    if len(rows) == 1:
        query.input = rows[0]
    else:
        query.inputs = list(rows)
    return query, AskOptions(strict=bool(given.strict), headers=list(headers))


def own_id(in_header: str | None, in_body: str | None) -> str | None:
    """Return the id that a client chose for its query, in a header or metadata, or in the body."""
    if in_header is None or in_body in {None, in_header}:
        found = in_header if in_body is None else in_body
        if found == "":
            raise Refusal(400, "the query's id is empty: give 1 to 256 characters, or leave it out")
        return found
    raise Refusal(400, f"Idempotency-Key {shown(in_header)} and query_id {shown(in_body)} differ: give one of them")


def check_visible(caller: Caller, application: str) -> None:
    """Raise a `Refusal` when a caller may neither read about an application nor ask it."""
    caller.require("read" if "read" in caller.rights else "predict", application)


def check_version(manifest: ApplicationManifest, wanted: str) -> None:
    """Raise a `Refusal` when a request names another version of an application than its revision; "" is any."""
    if wanted not in {"", str(manifest.revision)}:
        what = f"application {manifest.name} has revision {manifest.revision}, not {shown(wanted)}"
        raise Refusal(404, f"{what}: ask for that revision, or for no version")


def outputs_of(prediction: Prediction) -> list[Any]:
    """Return the outputs of a prediction, one a row."""
    return [prediction.output] if isinstance(prediction.outputs, msgspec.UnsetType) else prediction.outputs


def response_parameters(prediction: Prediction) -> dict[str, str | float | bool]:
    """Return the parameters of a response: how the query was decided, in values that gRPC has too."""
    policy = prediction.policy
    named = {"reason": prediction.reason, "policy": None if policy is None else policy.name}
    return {
        "query_id": prediction.query_id,
        "confidence": prediction.confidence,
        "default": prediction.default,
        "models": ",".join(f"{answer.model}:{answer.version}" for answer in prediction.models if answer.served),
        "latency_ms": prediction.latency_ms,
        **{name: text for name, text in named.items() if text is not None},
    }
