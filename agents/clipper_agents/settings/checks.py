"""What must hold between manifests. A bound of one value stands in its record.

Each check yields one sentence that states the place, the value and what is allowed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipper_stream.errors import SetupError
from clipper_stream.models.allowlist import local_path
from clipper_stream.models.registry import check_allowed, runtime_of
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.selection.policies.cascade import Cascade
from clipper_stream.selection.registry import make_policy
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest


def manifest_problems(applications: Sequence[ApplicationManifest], models: Sequence[ModelManifest]) -> Iterator[str]:
    """Everything that is wrong between the manifests of one deployment, one sentence each."""
    yield from _repeated("application", (application.name for application in applications))
    yield from _repeated("model", (model.ref for model in models))
    known = {model.ref: model for model in models}
    for model in models:
        yield from _refusal(f"model {model.ref!r}", runtime_of, model.runtime)
    for application in applications:
        place = f"application {application.name!r}"
        if not application.models:
            yield f"{place}: models is empty: name at least one model, as name:version"
        yield from _repeated(f"{place}: model", application.models)
        yield from _reference_problems(place, application, known)
        yield from _refusal(place, make_policy, application.policy.name, application.policy.parameters)
        if application.policy.name == Cascade.name:
            yield from (f"{place}: a cascade {why}" for why in _cascade_problems(application, known))


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
        declared = model.runtime, model.uri, model.parameters
        yield from _refusal(f"model {model.ref!r}", check_allowed, *declared, allowed, files)


def _reference_problems(
    place: str, application: ApplicationManifest, known: Mapping[str, ModelManifest]
) -> Iterator[str]:
    for ref in application.refs:
        if ref not in known:
            yield f"{place}: model {ref!r} is not declared; declared: {', '.join(known) or 'none, add a [[model]]'}"
        elif known[ref].input != application.input:
            expected, found = (_spec_text(spec) for spec in (application.input, known[ref].input))
            yield f"{place}: model {ref!r} takes input {found}, the application takes {expected}: make them equal"


def _cascade_problems(application: ApplicationManifest, known: Mapping[str, ModelManifest]) -> Iterator[str]:
    """What a cascade cannot be combined with. Whether a `python` model gives a confidence, nobody knows here."""
    for first in (known[ref] for ref in application.models[:1] if ref in known):
        if not first.parameters.get("confidence", first.runtime in ("python", "oip", "mlflow")):
            yield f"goes by the confidence of {first.ref}, which gives none: give its parameters confidence = true"
    if application.audit_ratio > 0.0:
        yield "explores by itself, and its propensities are without audits: leave audit_ratio out"
    if application.keep_best is not None:
        yield "needs its first model, though that is worse: leave keep_best out"
    for trial in application.trials:
        if trial.stage == "canary" or trial.automatic:
            why = "nobody knows what it had answered where a canary did"
            yield f"tries {trial.model} as a shadow, not automatic: {why}"


def _refusal(place: str, check: Callable[..., object], *arguments: Any) -> Iterator[str]:
    try:
        check(*arguments)
    except SetupError as error:
        yield f"{place}: {error}"


def _spec_text(spec: InputSpec) -> str:
    columns = ", ".join(f"{column.name} {column.dtype}" for column in spec.columns)
    missing = " with missing values" if spec.missing else ""
    return f"{spec.dtype}{spec.shape or ''}{f' ({columns})' if columns else ''}{missing}"


def _repeated(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place} {name!r} is given {count} times: keep one"
