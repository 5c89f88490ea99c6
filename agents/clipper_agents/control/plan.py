"""Plans of changes: what one command writes."""

from dataclasses import dataclass
from typing import Any

import msgspec

from clipper_topics.change import Change, Command
from clipper_topics.manifests import ApplicationManifest, ModelManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that one command writes in one transaction; an empty plan changes nothing.

    Attributes:
        changes: At most one an application, as `unsigned` makes them; `change_records.sign` does the rest.
        models: Manifests to publish.
        withdrawn: References of the models whose manifests are withdrawn.

    >>> bool(Plan()), bool(Plan(withdrawn=("svm:1",)))
    (False, True)
    """

    changes: tuple[Change, ...] = ()
    models: tuple[ModelManifest, ...] = ()
    withdrawn: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.models or self.withdrawn)


def unsigned(
    before: ApplicationManifest | None, after: ApplicationManifest | None, command: Command, model: str | None = None
) -> Change:
    """Return the change of an application, which has no revision, time or author yet; one of the manifests is given."""
    name = next(each.name for each in (after, before) if each is not None)
    return Change(
        application=name, revision=0, command=command, model=model, at_ms=0, by="", before=before, after=after
    )


def same(one: ApplicationManifest | None, other: ApplicationManifest | None) -> bool:
    """Return whether two manifests are equal apart from their revisions."""
    if one is None or other is None:
        return one is other
    return msgspec.structs.replace(one, revision=other.revision) == other


def stated(manifest: ApplicationManifest | ModelManifest) -> dict[str, Any]:
    """Return the fields of a manifest that differ from their defaults, as plain values.

    >>> stated(ModelManifest(name="svm", uri="m:f"))
    {'name': 'svm', 'uri': 'm:f'}
    """
    content: dict[str, Any] = msgspec.to_builtins(manifest)
    default = {
        name for name, value in content.items() if value == {} and isinstance(getattr(manifest, name), msgspec.Struct)
    }
    return {name: value for name, value in content.items() if name not in default}


def wanted_hosts(model: ModelManifest) -> int:
    """Return how many hosts a version should have."""
    return model.replicas if model.is_hosted else 0


def refs_of(application: ApplicationManifest | None) -> list[str]:
    """Return every version that an application names, candidates first; none of no application."""
    return [] if application is None else application.refs
