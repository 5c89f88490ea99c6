"""Create a deployment's topics, once and as the catalogue says.

Rules of this file:
- Every operation can be repeated, and by several processes at once.
- A topic that exists is never changed, except that a requests topic grows with its model's replicas: another partition
  count of a co-partitioned topic would send keys to other partitions than before.
- A topic of the wrong clock or compression is reported, with the command that alters it, and left as it is: aiokafka's
  only request to alter a topic would reset everything else that an operator has set there.
- Metadata is asked for all topics, never by name: a broker that creates topics on demand would create a missing one.
- Errors are those of `clients.translated_errors`, and `TopicRefused` where a broker does not do what it is asked for.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest

from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.errors import KafkaUnreachable, TopicMismatch, TopicRefused, wrong_partitions
from clipper_agents.kafka.retry import POLL_S, TIMEOUT_S
from clipper_topics.catalogue import BY_DEFAULT, COMPRESSION_TYPE, TIMESTAMP_TYPE, Catalogue, TopicCreation, TopicSpec
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

POLICY = "cleanup.policy"
ADVISED = {
    TIMESTAMP_TYPE: "so a wrong clock of an application makes its queries late and its feedback count wrongly",
    COMPRESSION_TYPE: "so brokers compress what they should not, or take records that are larger than they look",
}
"""Settings that a topic can do without, and what it costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicsReport:
    """What `ensure_topics` did, by topic name, and what somebody should change by hand, a line each."""

    created: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


async def ensure_topics(
    connection: KafkaConnection,
    catalogue: Catalogue,
    models: Iterable[ModelManifest] = (),
    creation: TopicCreation = BY_DEFAULT,
) -> TopicsReport:
    """Create what is missing and wait until every partition has a leader, and every broker knows it.

    That are the fixed topics of the catalogue, and a requests topic, with a partition a replica, of each model that has
    hosts (not colocated, not retired).

    Raises:
        TopicMismatch: a topic exists with other partitions or another cleanup policy; all of them are named.
        TopicRefused: one is missing, and may not be created; all of them are named.
    """
    hosted = (model for model in models if model.is_hosted)
    requests = [catalogue.requests_topic(model.name, model.version, model.replicas) for model in hosted]
    return await ensure_specs(connection, catalogue.fixed_topics(), requests, creation)


async def ensure_specs(
    connection: KafkaConnection, specs: Iterable[TopicSpec], growing: Iterable[TopicSpec], creation: TopicCreation
) -> TopicsReport:
    """Do as `ensure_topics` for these topics; those that are `growing` may have fewer partitions, and get more."""
    fixed, requests = ({spec.name: spec for spec in some} for some in (specs, growing))
    wanted = fixed | requests
    async with administration(connection) as admin:
        before = await _partition_counts(admin)
        await _check(admin, connection, fixed, before)
        missing = [spec for name, spec in wanted.items() if name not in before]
        short = [f"{name} has {before[name]} of {spec.partitions} partitions" for name, spec in requests.items()
                 if before.get(name, spec.partitions) < spec.partitions]  # fmt: skip
        if not creation.is_allowed and (missing or short):
            absent = [f"{spec.name} ({spec.partitions} partitions)" for spec in missing]
            raise TopicRefused(f"missing on Kafka, and kafka.create_topics is false: {', '.join(absent + short)}")
        created = await _create(admin, missing, creation.replication)
        after = await _until_led(admin, wanted, {})
        if created:
            await _until_known(admin, created)
        advice = await _check(admin, connection, wanted, after, requests)  # another process may have created some
        grown = {name: spec.partitions for name, spec in requests.items() if after[name] < spec.partitions}
        if grown:
            await _grow(admin, grown)
            await _until_led(admin, wanted, grown)
    untouched = [name for name in wanted if name not in created and name not in grown]
    return TopicsReport(created=tuple(created), grown=tuple(grown), existing=tuple(untouched), advice=tuple(advice))


async def try_topic(
    admin: AIOKafkaAdminClient, connection: KafkaConnection, spec: TopicSpec, creation: TopicCreation
) -> list[str]:
    """Return what a topic would lack, or lacks if it is there; without creating it.

    Raises:
        TopicMismatch, TopicRefused: it could not be used, or not be created.
    """
    counts = await _partition_counts(admin)
    if spec.name in counts:
        return await _check(admin, connection, {spec.name: spec}, counts)
    if not creation.is_allowed:
        raise TopicRefused(f"it is missing ({spec.partitions} partitions), and kafka.create_topics is false")
    if not (await _request(admin, [spec], creation.replication, validate_only=True))[1]:
        return []
    _, refused = await _request(admin, [without_compression(spec)], creation.replication, validate_only=True)
    if refused:
        raise TopicRefused(f"the broker would not create it: {refused[spec.name]}")
    return [f"Kafka decides about {COMPRESSION_TYPE}, {ADVISED[COMPRESSION_TYPE]}"]


async def existing_topics(connection: KafkaConnection, prefix: str | None = None) -> dict[str, int]:
    """Partition counts by topic name; with a prefix only the topics of that deployment, Faust's own included."""
    async with administration(connection) as admin:
        counts = await _partition_counts(admin)
    return {name: count for name, count in counts.items() if prefix is None or name.startswith(f"{prefix}.")}


async def delete_topics(connection: KafkaConnection, names: Sequence[str]) -> None:
    """Delete these topics and wait until they are gone; one that does not exist is fine."""
    if not names:
        return
    async with administration(connection) as admin:
        response = await admin.delete_topics(list(names))
        for result in response.to_object()["topic_error_codes"]:
            name, code = result["topic"], result["error_code"]
            if code not in (0, UnknownTopicOrPartitionError.errno):
                raise TopicRefused(f"topic {name}: the broker does not delete it: {for_code(code).__name__}")
        await _until(admin, "topics to be deleted", lambda counts: counts.keys().isdisjoint(names))


async def _partition_counts(admin: AIOKafkaAdminClient, *, led: bool = False) -> dict[str, int]:
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in await admin.describe_topics()
        if not led or all(partition["leader"] >= 0 for partition in topic["partitions"])
    }


async def _until(
    admin: AIOKafkaAdminClient, what: str, holds: Callable[[Mapping[str, int]], bool], *, led: bool = False
) -> dict[str, int]:
    """Wait up to `TIMEOUT_S` for partition counts for which a condition holds; metadata spreads after a change."""
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        counts = await _partition_counts(admin, led=led)
        if holds(counts):
            return counts
        await asyncio.sleep(POLL_S)
    raise KafkaUnreachable(f"waited {TIMEOUT_S:.0f} s for {what}: look at the brokers' logs")


async def _until_led(admin: AIOKafkaAdminClient, names: Iterable[str], least: Mapping[str, int]) -> dict[str, int]:
    wanted = dict.fromkeys(names, 1) | dict(least)
    return await _until(
        admin,
        f"leaders of {', '.join(wanted)}",
        lambda counts: all(counts.get(name, 0) >= count for name, count in wanted.items()),
        led=True,
    )


async def _until_known(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Wait until each broker knows these topics: they hear of them one after another, and anyone may be asked next.

    A broker that cannot be asked is left out; who asks it next is told so.
    """

    async def known_to(node: int) -> set[str]:
        response = await admin._send_request_to_node(node, MetadataRequest(None))
        return {topic["topic"] for topic in response.to_object()["topics"] if topic["error_code"] == 0}

    for broker in admin._client.cluster.brokers():
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                while not {*names} <= await known_to(broker.nodeId):  # noqa: ASYNC110 - a broker has no events
                    await asyncio.sleep(POLL_S)


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int | None) -> list[str]:
    """Create topics, and return the names of those that were not there; a refused compression is the broker's own."""
    created, refused = await _request(admin, specs, replication)
    plainer = [without_compression(spec) for spec in specs if spec.name in refused]
    others, still = await _request(admin, plainer, replication)
    if still:
        raise TopicRefused(
            "\n".join(f"topic {name}: the broker does not create it: {why}" for name, why in still.items())
        )
    return [*created, *others]


async def _request(
    admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int | None, *, validate_only: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Ask for topics; return the names of those that were made, and why others are refused that are not there."""
    if not specs:
        return [], {}
    topics = [_new_topic(spec, replication) for spec in specs]
    response = await admin.create_topics(topics, validate_only=validate_only)
    results = [(one["topic"], one["error_code"], one["error_message"]) for one in response.to_object()["topic_errors"]]
    fine = 0, TopicAlreadyExistsError.errno
    refused = {name: message or for_code(code).__name__ for name, code, message in results if code not in fine}
    return [name for name, code, _ in results if code == 0], refused


def without_compression(spec: TopicSpec) -> TopicSpec:
    """The topic as a provider takes it that decides on compression itself."""
    return replace(spec, config={key: value for key, value in spec.config.items() if key != COMPRESSION_TYPE})


def _new_topic(spec: TopicSpec, replication: int | None) -> NewTopic:
    # aiokafka takes -1 only beside an assignment, of which an empty one is sent as none
    assignments: dict[int, list[int]] | None = {} if replication is None else None
    return NewTopic(spec.name, spec.partitions, replication or -1, assignments, topic_configs=spec.config)


async def _grow(admin: AIOKafkaAdminClient, partitions: Mapping[str, int]) -> None:
    try:
        await admin.create_partitions({name: NewPartitions(count) for name, count in partitions.items()})
    except KafkaError as error:
        raise TopicRefused(f"topics {', '.join(partitions)}: the broker does not grow them: {error}") from error


async def _check(
    admin: AIOKafkaAdminClient,
    connection: KafkaConnection,
    specs: Mapping[str, TopicSpec],
    found: Mapping[str, int],
    growing: Container[str] = (),
) -> list[str]:
    """Compare the topics that exist with their specs; return a sentence for each setting to be altered by hand.

    Raises:
        TopicMismatch: one cannot be used as it is; it names every difference.
    """
    existing = [spec for name, spec in specs.items() if name in found]
    other = [spec for spec in existing if found[spec.name] != spec.partitions and spec.name not in growing]
    problems, advice = [wrong_partitions(spec.name, found[spec.name], spec.partitions) for spec in other], list[str]()
    for spec, key, value in await _differing(admin, existing):
        if key in ADVISED:
            advice.append(
                f"topic {spec.name} has {key}={value}, {ADVISED[key]}: "
                f"kafka-configs.sh --bootstrap-server {connection.bootstrap} --alter "
                f"--entity-type topics --entity-name {spec.name} --add-config {key}={spec.config[key]}"
            )
        else:
            problems.append(
                f"topic {spec.name} has {key}={value}, it must be {spec.config[key]}: "
                f"alter it, or delete the topic (was it created on demand by the broker?)"
            )
    if problems:
        raise TopicMismatch("\n".join(problems))
    return advice


async def _differing(admin: AIOKafkaAdminClient, specs: Iterable[TopicSpec]) -> list[tuple[TopicSpec, str, str]]:
    """Return the settings in `POLICY` and `ADVISED` that have another value than their spec says, and that value."""
    by_name = {spec.name: spec for spec in specs}
    if not by_name:
        return []
    wanted = dict.fromkeys((POLICY, *ADVISED), "")
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, dict(wanted)) for name in by_name]
    (response,) = await admin.describe_configs(asked)
    resources = response.to_object()["resources"]
    refused = [each["resource_name"] for each in resources if each["error_code"] == TopicAuthorizationFailedError.errno]
    if refused:
        raise TopicAuthorizationFailedError(f"{', '.join(refused)} (DescribeConfigs)")
    return [
        (spec, key, value)
        for resource in resources  # one that was made just now may not be known yet, and has no entries
        for spec in (by_name[resource["resource_name"]],)
        for key, value in ((entry["config_names"], entry["config_value"]) for entry in resource["config_entries"])
        if key in wanted and spec.config.get(key, value) != value
    ]
