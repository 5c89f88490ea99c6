"""Publish what a configuration declares: only what changed, with the next revision."""

from collections.abc import Iterable, Sequence

import msgspec

from clipper_agents.admin import publish_manifests, read_manifests
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.loading import file_digest
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control import application_key, model_key
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
) -> list[ApplicationManifest | ModelManifest]:
    """Publish the manifests that differ from those on the control topic; the ones that were published.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    before = await read_manifests(connection, catalogue)
    # a record that everybody refuses is replaced, though what was there before it is in force and the same
    broken = before.unreadable.keys()
    changed_models = [
        model for model in models if before.models.get(model.ref) != model or model_key(model.ref).decode() in broken
    ]
    candidates = (
        revised(each, before.applications.get(each.name))
        or (each if application_key(each.name).decode() in broken else None)
        for each in applications
    )
    changed: list[ApplicationManifest | ModelManifest] = [*changed_models, *(each for each in candidates if each)]
    await publish_manifests(connection, catalogue, changed)
    return changed
