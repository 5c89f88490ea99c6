"""What an operator sees of a deployment at one moment, and what of it is wrong: records and rules, without Kafka."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipper_agents.status.application_problems import application_reasons, refused_reason
from clipper_agents.status.model import ApplicationStatus

MOST_LAG = 10_000
"""Unread records of a group beyond which it does not keep up: a router clears as many in about a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatus:
    """One broker that the cluster knows as alive.

    Attributes:
        node_id: Its id.
        address: `host:port`, as clients are told.
        reachable: Whether it answered a request.
    """

    node_id: int
    address: str
    reachable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """One topic of the deployment.

    Attributes:
        name: Its name.
        partitions: How many it has.
        leaderless: Partitions that nobody can write or read.
        under_replicated: Partitions with fewer copies in sync than they should have.
    """

    name: str
    partitions: int
    leaderless: tuple[int, ...] = ()
    under_replicated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One process in a group.

    Attributes:
        instance: Its `--instance`.
        host: The machine from which it is connected.
        partitions: Those that it owns, by topic.
    """

    instance: str
    host: str
    partitions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """The routers, or the hosts of one model version.

    Attributes:
        group: Id of the consumer group.
        model: `name:version` of a host group; None: the routers.
        state: As the coordinator says: `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
        members: Its processes.
        inputs: Partition counts of the topics that it has to read.
        lag: Records that are not finished, by topic.
    """

    group: str
    model: str | None = None
    state: str
    members: tuple[MemberStatus, ...] = ()
    inputs: Mapping[str, int] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)

    @property
    def unowned(self) -> dict[str, tuple[int, ...]]:
        """Partitions that none of its processes reads, by topic."""
        owned = {(topic, one) for each in self.members for topic, found in each.partitions.items() for one in found}
        free = {
            topic: tuple(one for one in range(count) if (topic, one) not in owned)
            for topic, count in self.inputs.items()
        }
        return {topic: partitions for topic, partitions in free.items() if partitions}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model version that is declared.

    Attributes:
        ref: `name:version`.
        colocated: Whether the routers run it themselves.
        replicas: How many hosts it should have; 0 when it is colocated or retired.
        live: How many it has.
        retired: Whether it waits for a rollback, without hosts.
    """

    ref: str
    colocated: bool
    replicas: int
    live: int
    retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A deployment at one moment.

    Attributes:
        prefix: Of its topics.
        at_s: When it was read, seconds since the epoch.
        brokers: Those that the cluster knows as alive.
        controller: Whether the cluster has one; without it nothing can be created or moved.
        silent_addresses: Addresses of the connection at which nobody takes a connection.
        topics: Those of the deployment.
        missing_topics: Those that it should have, and has not.
        groups: The routers' first, then those of the hosts.
        applications: By name.
        models: All that are declared.
        unreadable: Manifests that this version cannot read, with the reason, by key.
        dead_letters: How many records were refused within the last hour.
        unread_topics: Those that were not read to their end in time, so that figures are incomplete.
        refused_topics: Those that this user may not read.
    """

    prefix: str
    at_s: float
    brokers: tuple[BrokerStatus, ...] = ()
    controller: bool = True
    silent_addresses: tuple[str, ...] = ()
    topics: tuple[TopicStatus, ...] = ()
    missing_topics: tuple[str, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    applications: Mapping[str, ApplicationStatus] = field(default_factory=dict)
    models: tuple[ModelStatus, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    dead_letters: int = 0
    unread_topics: tuple[str, ...] = ()
    refused_topics: tuple[str, ...] = ()

    def reasons(self, most_lag: int = MOST_LAG) -> list[str]:
        """What is wrong, a line each with what to do; empty when nothing is.

        Args:
            most_lag: Unread records of one group that are still fine.
        """
        return [
            *self._of_brokers(),
            *self._of_topics(),
            *(line for group in self.groups for line in _of_group(group, most_lag)),
            *self._of_manifests(),
            *application_reasons(self.applications, self.at_s, told=[one.ref for one in self._few() if not one.live]),
        ]

    def _of_brokers(self) -> list[str]:
        silent = [f"address {one}: nobody takes a connection: start the broker, or correct the address"
                  for one in self.silent_addresses]  # fmt: skip
        frozen = [
            f"broker {one.node_id} at {one.address} does not answer: look at its log"
            for one in self.brokers
            if not one.reachable
        ]
        headless = [] if self.controller else ["the cluster has no controller: start the missing nodes"]
        return silent + frozen + headless

    def _of_topics(self) -> list[str]:
        missing = [f"topic {one} does not exist: run `clipper-stream topics create`" for one in self.missing_topics]
        leaderless = [
            f"topic {one.name}: partitions {_listed(one.leaderless)} have no leader: start the brokers that hold them"
            for one in self.topics
            if one.leaderless
        ]
        thin = [one for one in self.topics if one.under_replicated]
        unread = [
            *(f"topic {one}: not read to its end in time, so figures are incomplete: look again, is a broker slow?"
              for one in self.unread_topics),
            *map(refused_reason, self.refused_topics),
        ]  # fmt: skip
        if not thin:
            return missing + leaderless + unread
        count = sum(len(one.under_replicated) for one in thin)
        names = ", ".join(one.name for one in thin)
        line = f"{count} partitions have fewer copies than they should ({names}): is a broker down, or catching up?"
        return [*missing, *leaderless, line, *unread]

    def _of_manifests(self) -> list[str]:
        unknown = [
            f"application {name}: model {ref} is not declared: run `clipper-stream apply`"
            for name, application in self.applications.items()
            for ref in (version.model for version in application.versions if version.stage != "retired")
            if ref not in {model.ref for model in self.models}
        ]
        few = [
            f"model {one.ref} has {one.live} of {one.replicas} hosts: "
            f"run `clipper-stream worker host {one.ref} --instance NAME`, or look at the log of `up`"
            for one in self._few()
        ]
        return unknown + few + [f"manifest {key} cannot be read: {why}" for key, why in self.unreadable.items()]

    def _few(self) -> list[ModelStatus]:
        """Versions with fewer processes than they should have."""
        return [one for one in self.models if one.live < one.replicas]


def _of_group(group: GroupStatus, most_lag: int) -> list[str]:
    lines = []
    if not group.members:
        if group.model is None:
            lines.append(
                "no router runs: run `clipper-stream worker router --instance NAME`, or look at the log of `up`"
            )
    elif group.state != "Stable":
        lines.append(f"group {group.group} is in state {group.state}: if it stays so, do two processes have one name?")
    else:
        lines += [
            f"group {group.group}: nobody reads partitions {_listed(partitions)} of {topic}: restart its processes"
            for topic, partitions in group.unowned.items()
        ]
    lag = sum(group.lag.values())
    if lag > most_lag:
        lines.append(f"group {group.group} is {lag} records behind, more than {most_lag}: add processes, or ask less")
    return lines


def _listed(partitions: tuple[int, ...]) -> str:
    return ",".join(map(str, partitions))
