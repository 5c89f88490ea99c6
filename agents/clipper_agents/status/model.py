"""What an operator sees of a deployment at one moment: read by `status`, its JSON, the console and `up`'s probes.

Times are seconds since the epoch, losses, weights and shares are in [0, 1], a version is `name:version`.
docs/reference/status.md explains the figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clipper_stream.selection.confidence import ExpectedLoss
from clipper_topics.change import Change
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.prediction import LOW_CONFIDENCE, REFUSALS

Stage = Literal["live", "canary", "shadow", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Mean loss of a version with its 95 % interval; with a half-life `count` is no whole number."""

    count: float
    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long answers or batches took lately."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One declared version, whoever uses it.

    Attributes:
        replicas: How many hosts it should have; 0 when it is colocated or retired.
        hosts: How many of them serve: report that they are ready, and are members of their group. None: it is
            colocated, or that is not known.
        unheard: Names of hosts that say that they are ready, and are not in their group.
        starting: Names of hosts that load their model, and began to within the last minutes.
        failed: Why a host failed, by its name.
        target_ms: How long a batch should take at most.
        batch_limit: Rows that a batch may have now; None where no metrics are known, as of `batches`, their latency.
        lag: Requests that its hosts have not finished; None when unknown.
    """

    ref: str
    colocated: bool = False
    retired: bool = False
    replicas: int = 0
    hosts: int | None = None
    unheard: tuple[str, ...] = ()
    starting: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    target_ms: float = 0.0
    batch_limit: float | None = None
    batches: Latency | None = None
    lag: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One version of an application.

    Attributes:
        stage: `live`: one of its models. `retired`: it was, and its manifest is still there.
        declared: What is known of it beside this application; None: it has no manifest.
        declared_share: Share of queries that a trial is to have.
        weight: The policy's trust in it; None when the policy does not choose it.
        expected: What it loses by the confidence of its answers of the last minute, before labels come.
        compared: What the steward wrote of it lately.
        share: Share of the queries that it answered lately; of a shadow, for which it was asked. None without queries.
        queries: For how many queries it was asked in that time.
        unanswered: To how many of these it did not answer in full, by reason (`late`, `error`).
        said: What it said last when it failed.
        latency: Of its answers that came from no cache, `cache_hit_ratio` being the share of the others.
        drift: The detection of the last week that its loss has risen, unless it was seen to fall since.
        since_s: When it was put into its stage of a trial; None when no change says so.
        verdict: Of a trial: what the rule says of it for sure, by the steward's last word.
        waits_for: Of a trial: why the rule decides nothing yet, or what it is about to do.
        plan: Of a trial with a plan: how long it takes at today's traffic, and whether that is enough.
    """

    model: str
    stage: Stage
    declared: ModelStatus | None = None
    declared_share: float | None = None
    weight: float | None = None
    loss: Loss | None = None
    expected: ExpectedLoss | None = None
    compared: Comparison | None = None
    share: float | None = None
    queries: int = 0
    unanswered: Mapping[str, int] = field(default_factory=dict)
    said: str = ""
    latency: Latency | None = None
    cache_hit_ratio: float | None = None
    drift: DriftEvent | None = None
    since_s: float | None = None
    verdict: str | None = None
    waits_for: str = ""
    plan: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationStatus:
    """One application.

    Attributes:
        window_s: Seconds that `queries` (answered ones), `defaults` (by reason), `feedback`, `latency` and `stages` are
            of.
        is_estimate: Whether these are of a sample of the records.
        stages: Where that latency comes from: `wait` for the decision, `models`; and `record`, after it.
        versions: Live ones first, then trials, then what is retired.
        changes: The last ones, the newest first, without their manifests.
    """

    name: str
    models: tuple[str, ...]
    revision: int = 1
    policy: str = ""
    objective_ms: int | None = None
    window_s: int = 0
    is_estimate: bool = False
    queries: int = 0
    defaults: Mapping[str, int] = field(default_factory=dict)
    feedback: int = 0
    latency: Latency | None = None
    stages: Mapping[str, Latency] = field(default_factory=dict)
    versions: tuple[VersionStatus, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def trials(self) -> tuple[VersionStatus, ...]:
        return tuple(one for one in self.versions if one.stage in {"canary", "shadow"})

    @property
    def queries_per_s(self) -> float:
        return self.queries / self.window_s if self.window_s else 0.0

    @property
    def unanswered(self) -> dict[str, int]:
        """Defaults that no query asked for, by reason: neither answers of little confidence nor refused inputs."""
        return {reason: count for reason, count in self.defaults.items() if reason not in {*REFUSALS, LOW_CONFIDENCE}}

    @property
    def feedback_per_s(self) -> float:
        return self.feedback / self.window_s if self.window_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatus:
    """One broker that the cluster knows as alive, and whether it answered a request."""

    node_id: int
    address: str
    reachable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """One topic: partitions that nobody can write or read, and those with too few copies in sync.

    Of a topic that may have any number of partitions, none are `configured`.
    """

    name: str
    partitions: int
    configured: int | None = None
    leaderless: tuple[int, ...] = ()
    under_replicated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One process in a group, the machine from which it is connected, and its partitions by topic."""

    instance: str
    host: str
    partitions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRecords:
    """Records of a partition of which the first should have been finished: that of a query within its objective.

    Attributes:
        records: How many are not finished.
        since_s: Timestamp of the first.
        stands_still: Whether none was finished between two looks; None: it was looked at once.
    """

    topic: str
    partition: int
    records: int
    since_s: float
    stands_still: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """The routers, or the hosts of one model version.

    Attributes:
        waiting: What of its topics should be finished and is not.
        deleted: Records that were deleted from its topics before it had read them.
        model: `name:version` of a host group; None: the routers.
        state: As the coordinator says: `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
        inputs: Partition counts of the topics that it has to read.
        lag: Records that are not finished, by topic.
    """

    group: str
    model: str | None = None
    state: str
    members: tuple[MemberStatus, ...] = ()
    inputs: Mapping[str, int] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)
    waiting: tuple[WaitingRecords, ...] = ()
    deleted: int = 0

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
class ClusterStatus:
    """What the brokers said at one moment.

    Attributes:
        missing_topics: Those that the deployment should have, and has not.
        groups: The routers' first, then those of the hosts.
        dead_letters: How many records were refused within the last hour.
    """

    at_s: float
    brokers: tuple[BrokerStatus, ...] = ()
    topics: tuple[TopicStatus, ...] = ()
    missing_topics: tuple[str, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    dead_letters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A deployment at one moment.

    Attributes:
        stale: Why these are no figures of now; empty: they are.
        models: Every declared version, by `name:version`.
        unreadable: Manifests that this version cannot read, with the reason and what helps, by key.
        unread_topics: Those that were not read to their end in time, so that figures are incomplete.
        refused_topics: Those that this user may not read.
        cluster: None: brokers and groups were not asked, or may not be (`cluster_refused` says which right is missing).
        processes: What processes say is wrong with themselves, by name: their disk, their clock.
        routers: Names of routers that say that they are ready.
        pids: Process ids of routers and hosts, each on its own machine, by name.
    """

    prefix: str
    at_s: float
    stale: str = ""
    applications: Mapping[str, ApplicationStatus] = field(default_factory=dict)
    models: Mapping[str, ModelStatus] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    unread_topics: tuple[str, ...] = ()
    refused_topics: tuple[str, ...] = ()
    cluster: ClusterStatus | None = None
    cluster_refused: str = ""
    processes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routers: tuple[str, ...] = ()
    pids: Mapping[str, int] = field(default_factory=dict)
