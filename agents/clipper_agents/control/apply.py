"""Publishes the manifests of a configuration: those that changed, with the next revision."""

from collections.abc import Iterable, Sequence

import msgspec

from clipper_agents.control.change_records import Signature
from clipper_agents.control.plan import Edit, Plan, same
from clipper_agents.control.state import ControlState, Manifests
from clipper_agents.control.writer import change_control
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.registry import file_digest
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Command
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key, model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def with_digests(models: Iterable[ModelManifest]) -> list[ModelManifest]:
    """Return the models as they are published: a model file without a digest gets the one that it has now.

    Raises:
        InvalidSetting: a file cannot be read here, so its digest is unknown.
    """
    return [model if model.sha256 else _with_digest(model) for model in models]


def _with_digest(model: ModelManifest) -> ModelManifest:
    try:
        return msgspec.structs.replace(model, sha256=file_digest(model.runtime, model.uri))
    except ModelNotLoaded as error:
        what = f"model {model.ref!r} has no sha256, and its file cannot be read here ({error})"
        raise InvalidSetting(f"{what}: state the digest in its manifest, `sha256sum FILE` prints it") from error


async def apply_manifests(
    connection: KafkaConnection,
    catalogue: Catalogue,
    applications: Sequence[ApplicationManifest],
    models: Sequence[ModelManifest],
    signature: Signature | None = None,
    *,
    prune: bool = False,
) -> list[ApplicationManifest | ModelManifest]:
    """Publish the manifests that differ from those on the control topic, and return them; errors as `change_control`.

    With `prune`, manifests that are not among them are withdrawn.
    """

    def decide(state: ControlState) -> Plan:
        return plan_declared(state.manifests, applications, models, prune=prune)

    written = await change_control(connection, catalogue, decide, signature)
    return [*written.plan.models, *(edit.after for edit in written.plan.edits if edit.after is not None)]


def plan_declared(
    manifests: Manifests,
    applications: Iterable[ApplicationManifest],
    models: Iterable[ModelManifest],
    *,
    prune: bool = False,
) -> Plan:
    """Return the changes that put the given manifests in force, and with `prune` withdraw all others.

    A revision above the published one is kept. A record that everybody refuses is replaced, though what was there
    before it is in force and the same.
    """
    wanted, by_ref = {each.name: each for each in applications}, {each.ref: each for each in models}
    there, broken = manifests.applications, manifests.unreadable.keys()
    edits = [
        _edit(there.get(name), each)
        for name, each in wanted.items()
        if not same(there.get(name), each) or application_key(name).decode() in broken
    ]
    changed = [
        each for ref, each in by_ref.items() if manifests.models.get(ref) != each or model_key(ref).decode() in broken
    ]
    if not prune:
        return Plan(edits=tuple(edits), models=tuple(changed))
    edits += [
        Edit(application=name, command="delete", before=each)
        for name, each in manifests.applications.items()
        if name not in wanted
    ]
    gone = tuple(ref for ref in manifests.models if ref not in by_ref)
    return Plan(edits=tuple(edits), models=tuple(changed), withdrawn=gone)


def _edit(before: ApplicationManifest | None, after: ApplicationManifest) -> Edit:
    command: Command = "create" if before is None else "update"
    return Edit(application=after.name, command=command, before=before, after=after)
