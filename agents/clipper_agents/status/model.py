"""What an operator sees of a deployment at one moment: records, which `build` and `collect` make of what was read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["live", "canary", "shadow", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Mean loss of a version over the feedback about it.

    Attributes:
        count: Feedbacks; with a half-life those that still weigh, which is no whole number.
        mean: In [0, 1].
        lower: Lower end of its 95 % interval.
        upper: Upper end of it.
    """

    count: float
    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long answers took.

    Attributes:
        p50_ms: Half of them at most so long.
        p99_ms: 99 % of them at most so long.
        source: `metrics`: batches, or answers, since the processes started. `predictions`: what the log has lately.
    """

    p50_ms: float
    p99_ms: float
    source: Literal["metrics", "predictions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftStatus:
    """A version's loss that has risen, and has not been seen to fall since.

    Attributes:
        at_s: Time of the record that showed it, seconds since the epoch.
        ago_s: How long ago that is, in seconds.
        loss_before: Mean loss before, in [0, 1].
        loss_after: Mean loss from the estimated change to the detection, in [0, 1].
        context: Whose losses; None: all.
        detector: Which detector saw it.
    """

    at_s: float
    ago_s: float
    loss_before: float
    loss_after: float
    context: str | None
    detector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One version of an application.

    Attributes:
        model: `name:version`.
        stage: `live`: one of its models. `retired`: it was, and its manifest is still there.
        declared_share: Of a trial: the share of queries that it is to have.
        weight: The policy's trust in it, in [0, 1]; None when the policy does not choose it.
        loss: None without feedback.
        share: Share of the queries that it answered lately; of a shadow, for which it was asked. None without queries.
        queries: For how many queries it was asked in that time.
        hosts: How many of its hosts are ready; None: it runs in the routers, or nobody said.
        replicas: How many hosts it should have; 0 when it runs in the routers.
        colocated: Whether it runs in the routers.
        declared: Whether its manifest exists.
        starting: Names of hosts that are not ready yet, or not any more.
        failed: Why a host failed, by its name.
        batch_limit: Rows that a batch may have now; None where no metrics are known.
        latency: Of its answers.
        lag: Requests that its hosts have not finished; None when unknown.
        drift: None: no rise of its loss is known that counts still (`build`).
    """

    model: str
    stage: Stage
    declared_share: float | None = None
    weight: float | None = None
    loss: Loss | None = None
    share: float | None = None
    queries: int = 0
    hosts: int | None = None
    replicas: int = 0
    colocated: bool = False
    declared: bool = True
    starting: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    batch_limit: float | None = None
    latency: Latency | None = None
    lag: int | None = None
    drift: DriftStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStatus:
    """How a version on trial compares with the application's models.

    Attributes:
        model: `name:version`.
        feedbacks: About it.
        difference: Its mean loss less theirs.
        lower: Lower end of the interval of the difference.
        upper: Upper end of it.
        source: `steward`: paired, and holds at all times at once. `totals`: of two means, a look at one moment.
        since_s: When it was put into its stage, seconds since the epoch; None when no change says so.
        automatic: Whether the rule moves it.
        waits_for: What has to come before the next step.
    """

    model: str
    feedbacks: int
    difference: float
    lower: float
    upper: float
    source: Literal["steward", "totals"]
    since_s: float | None = None
    automatic: bool = False
    waits_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStatus:
    """A change, without the manifests: the control topic has those.

    Attributes:
        revision: After it.
        at_s: When, seconds since the epoch.
        by: Who.
        command: What.
        model: About which version.
        why: Why.
    """

    revision: int
    at_s: float
    by: str
    command: str
    model: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationStatus:
    """One application.

    Attributes:
        models: Its models, as declared.
        revision: Of its manifest.
        policy: Name of its policy.
        objective_ms: None: no deadline.
        window_s: Seconds that the figures of what flowed are of.
        queries: Answered in that time.
        defaults: Default answers among them, by reason.
        feedback: Feedback records that name the application in that time.
        latency: Of its answers.
        versions: Live ones first, then trials, then what is retired.
        trials: By version.
        contexts: How many contexts have weights of their own; None: not read.
        contexts_whole: Whether there may be more of them, which changed longer ago.
        context: The context whose weights and losses these are; None: of queries without one.
        changes: The last ones, the newest first.
    """

    models: tuple[str, ...]
    revision: int = 1
    policy: str = ""
    objective_ms: int | None = None
    window_s: int = 0
    queries: int = 0
    defaults: Mapping[str, int] = field(default_factory=dict)
    feedback: int = 0
    latency: Latency | None = None
    versions: tuple[VersionStatus, ...] = ()
    trials: tuple[TrialStatus, ...] = ()
    contexts: int | None = None
    contexts_whole: bool = True
    context: str | None = None
    changes: tuple[ChangeStatus, ...] = ()

    @property
    def queries_per_s(self) -> float:
        """Answered queries a second."""
        return self.queries / self.window_s if self.window_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMetrics:
    """What is known of processes besides records.

    Attributes:
        members: Processes in the group of a version's hosts.
        lag: Requests that the hosts of a version have not finished.
        batch_limits: Of a version.
        batches: Latency of a version's batches.
        answers: Latency of an application's answers.
    """

    members: Mapping[str, int] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)
    batch_limits: Mapping[str, float] = field(default_factory=dict)
    batches: Mapping[str, Latency] = field(default_factory=dict)
    answers: Mapping[str, Latency] = field(default_factory=dict)


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
