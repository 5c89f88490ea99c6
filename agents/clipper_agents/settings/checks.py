"""What must hold between manifests, and between keys of a section. A bound of one value stands in its record.

Each check yields one sentence that states the place, the value and what is allowed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from clipper_agents.settings.sections import GatewaySection, ModelsSection
from clipper_stream.drift.detectors import make_spec
from clipper_stream.errors import SetupError
from clipper_stream.models.allowlist import local_path
from clipper_stream.models.registry import RUNTIMES, check_allowed
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.selection.registry import make_policy
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest


def manifest_problems(applications: Sequence[ApplicationManifest], models: Sequence[ModelManifest]) -> Iterator[str]:
    """Everything that is wrong between the manifests of one deployment, one sentence each."""
    yield from _repeated("application", (application.name for application in applications))
    yield from _repeated("model", (model.ref for model in models))
    known = {model.ref: model for model in models}
    yield from (
        f"model {model.ref!r}: runtime {model.runtime!r}: use one of {', '.join(RUNTIMES)}"
        for model in models
        if model.runtime not in RUNTIMES
    )
    for application in applications:
        place = f"application {application.name!r}"
        if not application.models:
            yield f"{place}: models is empty: name at least one model, as name:version"
        yield from _repeated(f"{place}: model", application.models)
        yield from _reference_problems(place, application, known)
        yield from _policy_problems(place, application)
        yield from _drift_problems(place, application)


def declared_code(models: Iterable[ModelManifest]) -> Iterator[str]:
    """What these models load: exact modules, exact files, the types in them that are trusted by name, and `prepare`."""
    for model in models:
        if model.runtime == "python":
            yield f"{model.uri.partition(':')[0]}:"
            continue
        path = local_path(model.uri)
        yield str(Path(path).resolve()) if path is not None else model.uri
        trusted, prepare = model.parameters.get("trusted"), model.parameters.get("prepare")
        yield from (str(name) for name in trusted) if isinstance(trusted, list) else ()
        yield from [f"{prepare.partition(':')[0]}:"] if isinstance(prepare, str) else ()


def outside_problems(
    models: Iterable[ModelManifest], allowed: Sequence[str], files: FileRules = STRICT
) -> Iterator[str]:
    """Models that a process with this configuration could not load."""
    for model in models:
        try:
            check_allowed(model.runtime, model.uri, model.parameters, allowed, files)
        except SetupError as error:
            yield f"model {model.ref!r}: {error}"


def section_problems(loading: ModelsSection, gateway: GatewaySection) -> Iterator[str]:
    """Keys that cannot be, and keys of which one is nothing without the other."""
    for entry in loading.allowed_modules or ():
        if "/" in entry:
            yield f"models.allowed_modules: {entry!r} is no module: put it into models.allowed_locations"
    pairs = ("tls_certfile", "tls_keyfile"), ("oidc_issuer", "oidc_audience")
    for given, missing in [*pairs, *(pair[::-1] for pair in pairs), ("oidc_jwks_url", "oidc_issuer")]:
        if getattr(gateway, given) and not getattr(gateway, missing):
            yield f"gateway.{given} is given without gateway.{missing}: give both, or none of them"
    if gateway.port and gateway.port == gateway.grpc_port:
        yield f"gateway.port = gateway.grpc_port = {gateway.port}: give each server a port of its own, or 0"


def _reference_problems(
    place: str, application: ApplicationManifest, known: Mapping[str, ModelManifest]
) -> Iterator[str]:
    for ref in application.refs:
        if ref not in known:
            yield f"{place}: model {ref!r} is not declared; declared: {', '.join(known) or 'none, add a [[model]]'}"
        elif known[ref].input != application.input:
            expected, found = (_spec_text(spec) for spec in (application.input, known[ref].input))
            what = f"{place}: model {ref!r} takes input {found}, the application takes {expected}"
            yield f"{what}: make them equal, or leave out the model's, which is then that of the application"


def _policy_problems(place: str, application: ApplicationManifest) -> Iterator[str]:
    try:
        make_policy(application.policy.name, application.policy.parameters)
    except SetupError as error:
        yield f"{place}: {error}"


def _drift_problems(place: str, application: ApplicationManifest) -> Iterator[str]:
    """Names and parameters; whether the library is there is the steward's affair, who may run elsewhere."""
    if application.drift is None:
        return
    try:
        make_spec(application.drift.detector, application.drift.parameters)
    except SetupError as error:
        yield f"{place}: drift: {error}"


def _spec_text(spec: InputSpec) -> str:
    columns = ", ".join(f"{column.name} {column.dtype}" for column in spec.columns)
    missing = " with missing values" if spec.missing else ""
    return f"{spec.dtype}{spec.shape or ''}{f' ({columns})' if columns else ''}{missing}"


def _repeated(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place} {name!r} is given {count} times: keep one"
