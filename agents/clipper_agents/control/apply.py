"""Publishes the manifests of a configuration: those that changed, with the next revision."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from clipper_agents.control.change_records import Signature
from clipper_agents.control.plan import Plan, refs_of, same, unsigned
from clipper_agents.control.state import ControlState, Manifests
from clipper_agents.control.writer import change_control
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.registry import file_digest
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key, model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest

KEPT = "what is live differs from the configuration and stays: `apply`, or `up --apply`, publishes the configuration"


def with_digests(
    models: Iterable[ModelManifest], published: Mapping[str, ModelManifest] = MappingProxyType({})
) -> list[ModelManifest]:
    """Return the models as they are published: a model file without a digest gets the one that it has now.

    A file that cannot be read here has the digest that is `published` of its version.
    """
    return [model if model.sha256 else _with_digest(model, published.get(model.ref)) for model in models]


def _with_digest(model: ModelManifest, published: ModelManifest | None) -> ModelManifest:
    try:
        return msgspec.structs.replace(model, sha256=file_digest(model.runtime, model.uri))
    except ModelNotLoaded as error:
        if published is not None:
            return msgspec.structs.replace(model, sha256=published.sha256)
        what = f"model {model.ref!r} has no sha256, and its file cannot be read here ({error})"
        raise InvalidSetting(f"{what}: state the digest in its manifest, `sha256sum FILE` prints it") from error


async def apply_manifests(
    connection: KafkaConnection,
    catalogue: Catalogue,
    applications: Sequence[ApplicationManifest],
    models: Sequence[ModelManifest],
    signature: Signature | None = None,
    *,
    overwrite: bool = True,
) -> tuple[ControlState, Plan, Plan]:
    """Publish the manifests that differ from those on the control topic; errors as of `change_control`.

    Without `overwrite` only manifests that the topic never knew are published. Returned is what the topic said, what
    was written, and what publishing the rest would change.
    """
    found, kept = ControlState(), Plan()

    def decide(state: ControlState) -> Plan:
        nonlocal found, kept
        found, plan = state, plan_declared(state.manifests, applications, models)
        if overwrite:
            return plan
        new, kept = split_known(plan, state)
        return new

    written = await change_control(connection, catalogue, decide, signature)
    return found, written, kept


def split_known(plan: Plan, state: ControlState) -> tuple[Plan, Plan]:
    """Split a plan into manifests that the control topic never knew, and those that it has, or that were taken away."""
    changes = [change for history in state.changes.values() for change in history.values()]
    named = {ref for change in changes for manifest in (change.before, change.after) for ref in refs_of(manifest)}
    known = named | state.manifests.models.keys()
    names = state.manifests.applications.keys() | state.changes.keys()
    new = Plan(
        changes=tuple(each for each in plan.changes if each.application not in names),
        models=tuple(each for each in plan.models if each.ref not in known),
    )
    rest = Plan(
        changes=tuple(each for each in plan.changes if each.application in names),
        models=tuple(each for each in plan.models if each.ref in known),
        withdrawn=plan.withdrawn,
    )
    return new, rest


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
    changes = [
        unsigned(there.get(name), each, "update" if name in there else "create")
        for name, each in wanted.items()
        if not same(there.get(name), each) or application_key(name).decode() in broken
    ]
    changed = [
        each for ref, each in by_ref.items() if manifests.models.get(ref) != each or model_key(ref).decode() in broken
    ]
    if not prune:
        return Plan(changes=tuple(changes), models=tuple(changed))
    changes += [unsigned(each, None, "delete") for name, each in there.items() if name not in wanted]
    gone = tuple(ref for ref in manifests.models if ref not in by_ref)
    return Plan(changes=tuple(changes), models=tuple(changed), withdrawn=gone)
