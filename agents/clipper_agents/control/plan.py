"""Plans of changes: applications before and after, and the models that change with them."""

from dataclasses import dataclass
from typing import Any

import msgspec

from clipper_topics.change import Command
from clipper_topics.manifests import ApplicationManifest, ModelManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One application before and after a command; its revision is given when it is written.

    Attributes:
        model: The version that the command is about.
        before: None: there is none.
        after: None: it is deleted.
    """

    application: str
    command: Command
    model: str | None = None
    before: ApplicationManifest | None = None
    after: ApplicationManifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that one command writes in one transaction; an empty plan changes nothing.

    Attributes:
        edits: At most one an application.
        models: Manifests to publish.
        withdrawn: References of the models whose manifests are withdrawn.

    >>> bool(Plan()), bool(Plan(withdrawn=("svm:1",)))
    (False, True)
    """

    edits: tuple[Edit, ...] = ()
    models: tuple[ModelManifest, ...] = ()
    withdrawn: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edits or self.models or self.withdrawn)


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
    return 0 if model.colocated or model.retired else model.replicas


def refs_of(application: ApplicationManifest | None) -> list[str]:
    """Return every version that an application names, candidates first.

    >>> refs_of(ApplicationManifest(name="a", models=["m:1"]))
    ['m:1']
    """
    return [] if application is None else application.refs
