"""Publish what a configuration declares: only what changed, with the next revision."""

from collections.abc import Iterable, Sequence

import msgspec

from clipper_agents.control.change_records import Signature
from clipper_agents.control.declared import declared
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import ControlState
from clipper_agents.control.writer import change_control
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.registry import file_digest
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def pinned(models: Iterable[ModelManifest]) -> list[ModelManifest]:
    """The models as they are published: one of a file states the digest that the file has here and now.

    Raises:
        InvalidSetting: a file is not here, so that nobody knows its digest.
    """
    return [model if model.sha256 else _pinned(model) for model in models]


def _pinned(model: ModelManifest) -> ModelManifest:
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
    """Publish the manifests that differ from those on the control topic; the ones that were published.

    Args:
        connection: How to reach the brokers.
        catalogue: Of the deployment.
        applications: As they shall be.
        models: As they shall be.
        signature: Of the changes.
        prune: Take away what is not among them.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    written = await change_control(
        connection, catalogue, lambda state: wanted(state, applications, models, prune=prune), signature
    )
    return [*written.plan.models, *(edit.after for edit in written.plan.edits if edit.after is not None)]


def wanted(
    state: ControlState,
    applications: Sequence[ApplicationManifest],
    models: Sequence[ModelManifest],
    *,
    prune: bool = False,
) -> Plan:
    """What has to be written for the manifests to be in force.

    A record that everybody refuses is replaced, though what was there before it is in force and the same.
    """
    published = state.manifests
    return declared(published, applications, models, broken=published.unreadable.keys(), prune=prune)
