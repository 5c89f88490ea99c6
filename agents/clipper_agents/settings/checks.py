"""What must hold between the parts of a configuration: names, uniqueness, references, bounds.

Each check yields one sentence that states the place, the value and what is allowed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from clipper_topics.manifests import NAME_PATTERN, VERSION_PATTERN, ApplicationManifest, InputSpec, ModelManifest


def manifest_problems(applications: Sequence[ApplicationManifest], models: Sequence[ModelManifest]) -> Iterator[str]:
    """Everything that is wrong with the manifests of one deployment, one sentence each."""
    yield from _repeated("application", (application.name for application in applications))
    yield from _repeated("model", (model.ref for model in models))
    for model in models:
        yield from model_problems(model)
    known = {model.ref: model for model in models}
    for application in applications:
        yield from application_problems(application)
        yield from _reference_problems(application, known)


def model_problems(model: ModelManifest) -> Iterator[str]:
    """What is wrong with one model's manifest by itself."""
    place = f"model {model.ref!r}"
    yield from _unlike(f"{place}: name", model.name, NAME_PATTERN, "lower case letters, digits and dashes, at most 64")
    yield from _unlike(f"{place}: version", model.version, VERSION_PATTERN, "letters, digits and dashes, at most 32")
    yield from _below(f"{place}: replicas", model.replicas, 1)
    yield from _below(f"{place}: batch.max_rows", model.batch.max_rows, 1)
    yield from _below(f"{place}: batch.max_delay_ms", model.batch.max_delay_ms, 0)
    if not model.batch.target_ms > 0:
        yield f"{place}: batch.target_ms = {model.batch.target_ms}: must be above 0"
    if not model.uri:
        yield f"{place}: uri is empty: name a module:attribute (python) or the path of a model file"
    if model.sha256 is not None:
        yield from _unlike(f"{place}: sha256", model.sha256, "^[0-9a-f]{64}$", "64 hexadecimal digits, lower case")


def application_problems(application: ApplicationManifest) -> Iterator[str]:
    """What is wrong with one application's manifest by itself."""
    place = f"application {application.name!r}"
    name_rule = "lower case letters, digits and dashes, at most 64"
    yield from _unlike(f"{place}: name", application.name, NAME_PATTERN, name_rule)
    if not application.models:
        yield f"{place}: models is empty: name at least one model, as name:version"
    yield from _repeated(f"{place}: model", application.models)
    if application.objective_ms is not None:
        yield from _below(f"{place}: objective_ms", application.objective_ms, 1)
    for key in ("confidence_threshold", "audit_ratio"):
        value = getattr(application, key)
        if not 0 <= value <= 1:
            yield f"{place}: {key} = {value}: must be in [0, 1]"


def _reference_problems(application: ApplicationManifest, known: dict[str, ModelManifest]) -> Iterator[str]:
    for ref in application.models:
        place = f"application {application.name!r}: model {ref!r}"
        if ref not in known:
            yield f"{place} is not declared; declared: {', '.join(known) or 'none, add a [[model]]'}"
        elif known[ref].input != application.input:
            expected, found = (_spec_text(spec) for spec in (application.input, known[ref].input))
            yield f"{place} takes input {found}, the application takes {expected}: make them equal"


def _spec_text(spec: InputSpec) -> str:
    return spec.dtype if spec.shape is None else f"{spec.dtype}{spec.shape}"


def _repeated(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place} {name!r} is given {count} times: keep one"


def _unlike(place: str, value: str, pattern: str, allowed: str) -> Iterator[str]:
    if not re.fullmatch(pattern, value):
        yield f"{place} = {value!r}: use {allowed}"


def _below(place: str, value: float, least: float) -> Iterator[str]:
    if not value >= least:
        yield f"{place} = {value}: must be at least {least:g}"
