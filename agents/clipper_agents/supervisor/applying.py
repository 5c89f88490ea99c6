"""Publish what a configuration declares: only what changed, with the next revision."""

from collections.abc import Sequence

import msgspec

from clipper_agents.admin import publish_manifests, read_manifests
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def revised(declared: ApplicationManifest, published: ApplicationManifest | None) -> ApplicationManifest | None:
    """The manifest to publish, None when nothing changed.

    The revision is logged with each decision, so that two ways of deciding never share one: a changed manifest gets
    the published revision + 1, unless its own is higher.

    >>> old = ApplicationManifest(name="a", models=["m:1"], revision=4)
    >>> revised(ApplicationManifest(name="a", models=["m:1", "m:2"]), old).revision
    5
    """
    if published is None:
        return declared
    if msgspec.structs.replace(declared, revision=published.revision) == published:
        return None
    return msgspec.structs.replace(declared, revision=max(declared.revision, published.revision + 1))


async def apply_manifests(
    connection: KafkaConnection,
    catalogue: Catalogue,
    applications: Sequence[ApplicationManifest],
    models: Sequence[ModelManifest],
) -> list[ApplicationManifest | ModelManifest]:
    """Publish the manifests that differ from those on the control topic; the ones that were published.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    before = await read_manifests(connection, catalogue)
    changed_models = [model for model in models if before.models.get(model.ref) != model]
    candidates = (revised(each, before.applications.get(each.name)) for each in applications)
    changed: list[ApplicationManifest | ModelManifest] = [*changed_models, *(each for each in candidates if each)]
    await publish_manifests(connection, catalogue, changed)
    return changed
