"""What must hold between manifests: uniqueness and references. A bound of one value stands in its record.

Each check yields one sentence that states the place, the value and what is allowed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest


def manifest_problems(applications: Sequence[ApplicationManifest], models: Sequence[ModelManifest]) -> Iterator[str]:
    """Everything that is wrong between the manifests of one deployment, one sentence each."""
    yield from _repeated("application", (application.name for application in applications))
    yield from _repeated("model", (model.ref for model in models))
    known = {model.ref: model for model in models}
    for application in applications:
        place = f"application {application.name!r}"
        if not application.models:
            yield f"{place}: models is empty: name at least one model, as name:version"
        yield from _repeated(f"{place}: model", application.models)
        yield from _reference_problems(place, application, known)


def _reference_problems(
    place: str, application: ApplicationManifest, known: Mapping[str, ModelManifest]
) -> Iterator[str]:
    for ref in application.models:
        if ref not in known:
            yield f"{place}: model {ref!r} is not declared; declared: {', '.join(known) or 'none, add a [[model]]'}"
        elif known[ref].input != application.input:
            expected, found = (_spec_text(spec) for spec in (application.input, known[ref].input))
            yield f"{place}: model {ref!r} takes input {found}, the application takes {expected}: make them equal"


def _spec_text(spec: InputSpec) -> str:
    return spec.dtype if spec.shape is None else f"{spec.dtype}{spec.shape}"


def _repeated(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place} {name!r} is given {count} times: keep one"
