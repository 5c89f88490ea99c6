"""The whole status, of what records, brokers and processes say: for whoever asks once, and for whoever looks on."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.status.build import StatusBuilder, is_known
from clipper_agents.status.cluster import ClusterStatus
from clipper_agents.status.deployment_view import one_line
from clipper_agents.status.model import ApplicationStatus, GroupStatus, ModelStatus, Status, WorkerMetrics


def workers_of_groups(cluster: ClusterStatus | None, served: WorkerMetrics) -> WorkerMetrics:
    """What workers serve, with what their groups say; None: nobody asked the groups."""
    if cluster is None:
        return served
    of_hosts = {group.model: group for group in cluster.groups if group.model is not None}
    return replace(
        served,
        members={ref: frozenset(member.instance for member in group.members) for ref, group in of_hosts.items()},
        members_at_s=cluster.at_s,
        lag={ref: sum(group.lag.values()) for ref, group in of_hosts.items()},
    )


def status_of(
    builder: StatusBuilder,
    prefix: str,
    applications: Mapping[str, ApplicationStatus],
    cluster: ClusterStatus | None,
    unread: Iterable[str],
    refused: Iterable[str],
    cluster_refused: str = "",
) -> Status:
    """The deployment, for `problems`.

    Args:
        builder: What the records say.
        prefix: Of the deployment's topics.
        applications: Those that are looked at, some of which may have been deleted since.
        cluster: What the brokers say; None: they were not asked yet.
        unread: Topics that were not read to their end in time.
        refused: Topics that this user may not read.
        cluster_refused: Why this user may not ask the brokers.
    """
    manifests, reports = builder.facts.declared.manifests, builder.facts.hosts.reports.values()
    asked_s = math.inf if cluster is None else cluster.at_s
    status = Status(
        prefix=prefix,
        at_s=builder.now_s,
        applications={name: applications[name] for name in sorted(manifests.applications.keys() & applications.keys())},
        models=tuple(_models(builder, () if cluster is None else cluster.groups)),
        unreadable={key: found.advice for key, found in manifests.unreadable.items()},
        unread_topics=tuple(unread),
        refused_topics=tuple(sorted(refused)),
        processes={one.instance: tuple(map(one_line, one.problems)) for one in reports if one.problems},
        routers=tuple(sorted(one.instance for one in reports if not one.model and is_known(one, asked_s))),
        cluster_refused=cluster_refused,
        pids={one.instance: one.pid for one in reports if one.pid is not None},
    )
    if cluster is None:
        return status
    return replace(
        status,
        cluster_at_s=cluster.at_s,
        brokers=cluster.brokers,
        controller=cluster.controller,
        silent_addresses=cluster.silent_addresses,
        topics=cluster.topics,
        missing_topics=cluster.missing_topics,
        replaced_topics=cluster.replaced_topics,
        groups=cluster.groups,
        dead_letters=cluster.dead_letters,
    )


def _models(builder: StatusBuilder, groups: Iterable[GroupStatus]) -> Iterable[ModelStatus]:
    routers = next((len(group.members) for group in groups if group.model is None), 0)
    for ref, model in sorted(builder.facts.declared.manifests.models.items()):
        ready = builder.ready_hosts(ref)
        yield ModelStatus(
            ref=ref,
            colocated=model.colocated,
            replicas=wanted_hosts(model),
            live=routers if model.colocated and not model.retired else len(ready),
            retired=model.retired,
            unheard=() if model.retired else tuple(sorted(builder.unheard_hosts(ref))),
        )
