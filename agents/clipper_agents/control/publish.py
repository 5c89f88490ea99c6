"""Publish and withdraw whole manifests, as programs do; every change of an application goes into its history."""

from collections.abc import Iterable

from clipper_agents.control.change_records import Signature
from clipper_agents.control.declared import as_they_are
from clipper_agents.control.plan import Edit, Plan
from clipper_agents.control.state import ControlState
from clipper_agents.control.writer import change_control
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import Manifest, parse_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest


async def publish_manifests(
    connection: KafkaConnection,
    catalogue: Catalogue,
    manifests: Iterable[Manifest],
    signature: Signature | None = None,
) -> None:
    """Publish manifests, models before the applications that name them; done when the brokers have them.

    What is there already is not written again. A changed application gets the next revision, unless its own is higher.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    given = list(manifests)
    applications = [each for each in given if isinstance(each, ApplicationManifest)]
    models = [each for each in given if isinstance(each, ModelManifest)]
    await change_control(
        connection, catalogue, lambda state: as_they_are(state.manifests, applications, models), signature
    )


async def withdraw_manifests(
    connection: KafkaConnection, catalogue: Catalogue, keys: Iterable[bytes], signature: Signature | None = None
) -> None:
    """Take manifests away: `application_key(name)` or `model_key(ref)` each.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
        UnknownControlKey: a key is of neither kind.
    """
    named = [parse_key(key) for key in keys]

    def decide(state: ControlState) -> Plan:
        there = state.manifests.applications
        edits = (
            Edit(application=name, command="delete", before=there[name])
            for kind, name in named
            if kind == "application" and name in there
        )
        gone = tuple(name for kind, name in named if kind == "model" and name in state.manifests.models)
        return Plan(edits=tuple(edits), withdrawn=gone)

    await change_control(connection, catalogue, decide, signature)
