"""The board of health: what all applications of a deployment share, a figure each, and whether it is as it should be.

A figure is good only where it is known to be: what brokers do not say, or said too long ago, is unknown.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from clipper_agents.status.model import ApplicationStatus, GroupStatus, Status
from clipper_agents.status.problems import CLUSTER_AGE_S, MISSED_RATIO, MOST_DEAD_LETTERS, MOST_LAG
from clipper_agents.status.traffic_window import LONGEST_S, WINDOW_S

Health = Literal["good", "warn", "bad", "unknown"]
WORST_FIRST: Sequence[Health] = ("bad", "unknown", "warn", "good")


class Gauge(NamedTuple):
    """One figure of the board."""

    label: str
    value: str
    note: str
    health: Health


def board(status: Status, applications: Sequence[ApplicationStatus]) -> Sequence[Gauge]:
    """The figures; those of brokers and routers, on which every answer depends, come first."""
    per_s, ratio = sum(one.queries_per_s for one in applications), unanswered_ratio(applications)
    share: Health = "bad" if ratio > MISSED_RATIO else "good"
    of = f"of {per_s:,.1f} queries/s, last {WINDOW_S} to {LONGEST_S} s"
    unanswered = Gauge("Unanswered", f"{ratio:.1%}", of, share)
    cluster = status.cluster
    if status.stale or cluster is None or status.at_s - cluster.at_s > CLUSTER_AGE_S:
        unknown = (Gauge(label, "?", "not known", "unknown") for label in ("Routers", "Hosts", "Lag", "Dead letters"))
        silent = Gauge("Brokers", "?", "not heard of", "bad" if status.stale else "unknown")
        return [silent, *unknown, unanswered._replace(health="unknown")]
    routers = next((group for group in cluster.groups if group.model is None), GroupStatus(group="", state="Dead"))
    members = {one.instance for one in routers.members}
    hosted = [one for one in status.models.values() if one.replicas]
    waiting = sum(one.records for group in cluster.groups for one in group.waiting)
    lag, letters = sum(sum(group.lag.values()) for group in cluster.groups), cluster.dead_letters
    late: Health = "bad" if waiting else "warn" if lag > MOST_LAG else "good"
    unread: Health = "bad" if letters > MOST_DEAD_LETTERS else "warn" if letters else "good"
    return [
        _share("Brokers", sum(one.reachable for one in cluster.brokers), len(cluster.brokers), "answer"),
        _share("Routers", len(members - _frozen(routers)), len(members | {*status.routers}), "serve"),
        _share("Hosts", sum(one.hosts or 0 for one in hosted), sum(one.replicas for one in hosted), "serve", least=0),
        Gauge("Lag", f"{lag:,}", f"{waiting:,} wait too long" if waiting else "records", late),
        Gauge("Dead letters", f"{letters:,}", "in the last hour", unread),
        unanswered,
    ]


def _frozen(group: GroupStatus) -> set[str]:
    stuck = {(one.topic, one.partition) for one in group.waiting if one.stands_still}
    owned = {(one.instance, topic, at) for one in group.members for topic, of in one.partitions.items() for at in of}
    return {instance for instance, *place in owned if (*place,) in stuck}


def _share(label: str, found: int, wanted: int, does: str, least: int = 1) -> Gauge:
    health: Health = "bad" if found < least else "warn" if found < wanted else "good"
    return Gauge(label, f"{found} of {wanted}", does, health)


def worst(gauges: Iterable[Gauge]) -> Health:
    """The health of several figures together."""
    found: list[Health] = [gauge.health for gauge in gauges]
    return min(found, key=WORST_FIRST.index)


def unanswered_ratio(applications: Iterable[ApplicationStatus]) -> float:
    """The share of the applications' queries of the last seconds that got a default for want of an output."""
    counts = [(sum(one.unanswered.values()), one.queries) for one in applications]
    return sum(count for count, _ in counts) / max(1, sum(queries for _, queries in counts))
