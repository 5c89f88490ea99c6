"""Every topic: its name, partitions and retention. Nothing else in the project spells a topic's name."""

from dataclasses import dataclass, field
from functools import cached_property

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TIMESTAMP_TYPE = "message.timestamp.type"
COMPRESSION_TYPE = "compression.type"
LARGEST_RECORD_BYTES = 8 * 1024 * 1024
"""Of the topics that the pipeline itself writes. A query is bounded by its own topic, at the broker's default of 1 MiB;
its matrix, its answer with the output of each model, and its dead letter with headers are larger than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """What a topic is created with."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicCreation:
    """How topics are created: with so many copies, or as many as the brokers' default; or never, by somebody else."""

    replication: int | None = None
    is_allowed: bool = True


BY_DEFAULT = TopicCreation()


_AS_WRITTEN = {COMPRESSION_TYPE: "producer"}
"""Whatever the cluster's default is: brokers would compress each record again."""


def _retained(ms: int) -> dict[str, str]:
    return {**_AS_WRITTEN, "cleanup.policy": "delete", "retention.ms": str(ms)}


def _from_anybody(config: dict[str, str]) -> dict[str, str]:
    """Of topics that applications and operators write.

    Their clients compress as they like, and the broker stores the records plain: so it sees how large they are.
    """
    return {**config, COMPRESSION_TYPE: "uncompressed"}


def _large(ms: int) -> dict[str, str]:
    return {**_retained(ms), "max.message.bytes": str(LARGEST_RECORD_BYTES)}


def _stamped(config: dict[str, str]) -> dict[str, str]:
    """With the broker's clock on each record: that of whoever writes may be wrong by minutes.

    Deadlines, retention and the feedback horizon go by these timestamps.
    """
    return {**config, TIMESTAMP_TYPE: "LogAppendTime"}


_COMPACTED = {**_AS_WRITTEN, "cleanup.policy": "compact"}


def _name(suffix: str) -> cached_property[str]:
    """A name of the deployment: its prefix, and what follows."""
    return cached_property(lambda catalogue: f"{catalogue.prefix}{suffix}")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The topics of one deployment.

    `queries`, `predictions`, `audits`, `feedback`, `feedback_acks` and `outputs` are co-partitioned: a key has the same
    partition number in each, and that partition has one writer of its state.

    >>> Catalogue().requests("svm", "2")
    'clipper.requests.svm.2'
    """

    prefix: str = "clipper"
    partitions: int = 4

    queries = _name(".queries")
    """Written by applications, read by routers."""
    predictions = _name(".predictions")
    """Written by routers, read by applications; the decision log."""
    audits = _name(".audits")
    """Written by routers: what models said that were asked for the log only."""
    hosts = _name(".hosts")
    """Written by hosts and their supervisors: which of them are ready."""
    feedback = _name(".feedback")
    """Written by applications, read by routers."""
    feedback_acks = _name(".feedback-acks")
    """Written by routers, read by applications: what became of feedback that asked to be told."""
    outputs = _name(".outputs")
    """Written by hosts, read by the router that asked."""
    comparisons = _name(".comparisons")
    """Written by the steward: how versions compare."""
    selection = _name(".selection")
    """Totals of each partition's selection state, followed by every router."""
    control = _name(".control")
    """Manifests, followed by every router and host."""
    control_writer = _name(".control-writer")
    """Transactional id of whoever writes to the control topic: there is one at a time."""
    dead_letters = _name(".dead-letters")
    """Records that could not be used, with the reason."""
    router_group = _name(".router")
    """Consumer group, and Faust app id, of the routers."""
    machines_group = _name(".host.machines")
    """Consumer group of the machines that run hosts; that of a version's hosts has a dot more in its name."""
    selection_changelog = _name(".router-selection-changelog")
    """Changelog of the routers' selection table."""

    @property
    def logs(self) -> tuple[str, ...]:
        """Topics whose records are referred to by offset and id: made anew together, or not at all."""
        return self.queries, self.predictions, self.audits, self.feedback

    def requests(self, model: str, version: str) -> str:
        """Written by routers, read by the hosts of this model version; a partition a replica."""
        return f"{self.prefix}.requests.{model}.{version}"

    def host_group(self, model: str, version: str) -> str:
        """Consumer group, and Faust app id, of the hosts of this model version."""
        return f"{self.prefix}.host.{model}.{version}"

    def fixed_topics(self) -> list[TopicSpec]:
        """The topics that exist whatever models there are."""
        shared = self.partitions
        return [
            TopicSpec(name=self.queries, partitions=shared, config=_stamped(_from_anybody(_retained(7 * DAY_MS)))),
            TopicSpec(name=self.predictions, partitions=shared, config=_stamped(_large(7 * DAY_MS))),
            TopicSpec(name=self.audits, partitions=shared, config=_stamped(_large(7 * DAY_MS))),
            TopicSpec(name=self.feedback, partitions=shared, config=_stamped(_from_anybody(_retained(7 * DAY_MS)))),
            TopicSpec(name=self.feedback_acks, partitions=shared, config=_stamped(_large(7 * DAY_MS))),
            TopicSpec(name=self.outputs, partitions=shared, config=_large(HOUR_MS)),
            TopicSpec(name=self.selection, partitions=1, config=_COMPACTED),
            TopicSpec(name=self.control, partitions=1, config=_from_anybody(_COMPACTED)),
            TopicSpec(name=self.hosts, partitions=1, config=_COMPACTED),
            TopicSpec(name=self.comparisons, partitions=1, config=_stamped(_retained(7 * DAY_MS))),
            TopicSpec(name=self.dead_letters, partitions=1, config=_large(7 * DAY_MS)),
            TopicSpec(name=self.selection_changelog, partitions=shared, config=_COMPACTED),
        ]

    def requests_topic(self, model: str, version: str, replicas: int) -> TopicSpec:
        return TopicSpec(name=self.requests(model, version), partitions=replicas, config=_large(HOUR_MS))
