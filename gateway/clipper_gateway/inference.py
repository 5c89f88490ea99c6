"""What a request of the Open Inference Protocol V2 asks and an answer says beside its tensors, for HTTP and gRPC alike.

Source: Open Inference Protocol, "Inference Request JSON Object" and "Parameters".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clipper_gateway.callers import Caller
from clipper_gateway.calls import Calls
from clipper_gateway.errors import Refusal
from clipper_gateway.served_call import ServedCall
from clipper_gateway.tensors import OUTPUT, Tensor, input_metadata, output_metadata, output_tensor, rows_of
from clipper_stream.errors import shown
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query

QUERY_SHARE = 0.9
"""Of the time that a client leaves, for the query; the rest is for its answer's way back."""


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


class Inference:
    """What both wires ask of an application: its metadata, and answers."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def manifest(self, caller: Caller, name: str, version: str) -> ApplicationManifest:
        """Return an application that the caller may read about or ask; a version is its revision, or empty."""
        caller.require("read" if "read" in caller.rights else "predict", name)
        manifest = self._calls.applications.manifest(name)
        if version not in {"", str(manifest.revision)}:
            what = f"application {manifest.name} has revision {manifest.revision}, not {shown(version)}"
            raise Refusal(404, f"{what}: ask for that revision, or for no version")
        return manifest

    def metadata(self, caller: Caller, name: str, version: str) -> dict[str, Any]:
        """Return the metadata of an application, as of `manifest`."""
        manifest = self.manifest(caller, name, version)
        return {
            "name": manifest.name,
            "versions": [str(manifest.revision)],
            "platform": "clipper-stream",
            "inputs": input_metadata(manifest),
            "outputs": output_metadata(manifest, self._calls.answered.get(manifest.name)),
        }

    def is_ready(self, caller: Caller, name: str, version: str) -> bool:
        """Return whether a version that may answer for the application is served."""
        return self._calls.applications.is_ready(self.manifest(caller, name, version).name)

    async def infer(
        self, call: ServedCall, manifest: ApplicationManifest, tensor: Tensor, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, str | float | bool], Tensor]:
        """Ask the rows of a tensor as one query, within the time that the client leaves.

        Returns the parameters of the response, in values that gRPC has too, and the outputs as a tensor.
        """
        own = call.headers.get("idempotency-key")
        query, is_strict = query_of(manifest.name, rows_of(tensor, manifest.input), parameters, own)
        if call.timeout_s is not None and query.deadline_ms is None:
            query.deadline_ms = max(1.0, call.timeout_s * 1000 * QUERY_SHARE)
        prediction = await self._calls.predict(call, query, is_strict=is_strict)
        several = prediction.outputs
        outputs = [prediction.output] if isinstance(several, msgspec.UnsetType) else several
        return response_parameters(prediction), output_tensor(OUTPUT, outputs)


def check_outputs(names: Iterable[str]) -> None:
    """Raise a `Refusal` where another output is asked for than there is."""
    if wrong := [name for name in names if name != OUTPUT]:
        raise Refusal(400, f"output {shown(wrong[0])}: the only one is {OUTPUT!r}, ask for it or for none")


def query_of(
    application: str, rows: Sequence[Any], parameters: Mapping[str, Any], idempotency_key: str | None = None
) -> tuple[Query, bool]:
    """Return the query of a V2 request, and whether it is strict; bounds are those of `check_query`, in the call."""
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
    return query, bool(given.strict)


def own_id(in_header: str | None, in_body: str | None) -> str | None:
    """Return the id that a client chose for its query, in a header or metadata, or in the body."""
    if in_header is not None and not re.fullmatch("[!-~]*", in_header):
        raise Refusal(400, f"Idempotency-Key {shown(in_header)} is not visible ASCII: give such an id as query_id")
    if in_header is None or in_body in {None, in_header}:
        found = in_header if in_body is None else in_body
        if found in {"", ".", ".."}:
            raise Refusal(400, f"the query's id is {shown(found)}, which no path can have: give another, or none")
        return found
    raise Refusal(400, f"Idempotency-Key {shown(in_header)} and query_id {shown(in_body)} differ: give one of them")


def response_parameters(prediction: Prediction) -> dict[str, str | float | bool]:
    """Return how a query was decided."""
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
