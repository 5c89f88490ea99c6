"""A deployment as its records tell it, without a Kafka: one application with each stage of a version."""

from dataclasses import replace
from typing import Any

from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import ApplicationStatus, BrokerStatus, ClusterStatus, GroupStatus, MemberStatus
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.change import Change
from clipper_topics.comparison import Comparison
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest, PolicySpec, RolloutRule, Trial
from clipper_topics.prediction import Missing, ModelAnswer, Prediction
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow, encode_key, encode_row

Losses = dict[str, tuple[Any, ...]]
"""Count and sum of losses by model, and the calibration of one that has some."""
NOW_S = 1_700_000_000.0
"""2023-11-14T22:13:20Z."""
DIGITS = ApplicationManifest(
    name="digits",
    revision=4,
    models=["svm:1", "knn:1"],
    trials=[Trial(model="rf:2", stage="canary", share=0.05, automatic=True), Trial(model="nn:3")],
    rollout=RolloutRule(margin=0.02, steps=[0.05, 0.25], least=50),
    policy=PolicySpec(name="exp3", parameters={"eta": 0.1}),
)
MODELS = (
    ModelManifest(name="svm", uri="shop:svm", replicas=2),
    ModelManifest(name="knn", uri="shop:knn", colocated=True),
    ModelManifest(name="rf", version="2", uri="shop:rf"),
    ModelManifest(name="nn", version="3", uri="shop:nn"),
    ModelManifest(name="old", uri="shop:old", retired=True),
    ModelManifest(name="others", uri="shop:others", retired=True),
)
CHANGES = (
    (2, "retire", "old:1", 7200, "ada", "worst of three"),
    (3, "shadow", "nn:3", 1200, "ada", ""),
    (4, "canary", "rf:2", 60, "rollout", "upper end -0.010 below 0.02"),
)
COMPARED = {"application": "digits", "stage": "canary", "difference": -0.1, "lower": -0.2, "upper": -0.01} | {
    "finding": "better", "feedbacks": 60, "loss": 0.2, "loss_lower": 0.1, "loss_upper": 0.3, "scores": 80, "waiting": 3,
    "since_s": 1, "upto_s": 61, "trial_loss": 0.2, "trial_feedbacks": 50, "answer_loss": 0.3, "answer_feedbacks": 40,
}  # fmt: skip


def group(model: str | None, *instances: str) -> GroupStatus:
    """The routers, or the hosts of a version, all on one machine."""
    members = tuple(MemberStatus(instance=instance, host="10.0.0.1") for instance in instances)
    return GroupStatus(group=model or "router", model=model, state="Stable" if members else "Empty", members=members)


CLUSTER = ClusterStatus(
    at_s=NOW_S,
    brokers=(BrokerStatus(node_id=1, address="10.0.0.9:9092", reachable=True),),
    groups=(
        group(None, "router-0"),
        group("svm:1", "host.svm.1.0", "host.svm.1.1"),
        group("rf:2"),
        group("nn:3", "host.nn.3.0"),
    ),
)
"""What its brokers say: the host of `rf:2` has failed, all others are in their groups."""


def facts() -> DeploymentView:
    found = DeploymentView()
    for model in MODELS:
        found.control(key_of(model), codec.models.encode(model))
    found.control(key_of(DIGITS), codec.applications.encode(DIGITS))
    for revision, command, model, ago_s, by, why in CHANGES:
        change = Change(application="digits", revision=revision, command=command, model=model, by=by, why=why, at_ms=0)
        change.at_ms = int(1000 * (NOW_S - ago_s))
        found.control(change_key("digits", revision), codec.changes.encode(change))
    report(found, "svm:1", "host.svm.1.0", "ready")
    report(found, "svm:1", "host.svm.1.1", "ready")
    report(found, "rf:2", "host.rf.2.0", "failed", "no module named shop")
    report(found, "nn:3", "host.nn.3.0", "ready")
    learn(found, 0, {"svm:1": (60.0, 6.0), "knn:1": (60.0, 30.0), "old:1": (10.0, 9.0)})
    learn(found, 1, {"svm:1": (40.0, 4.0), "knn:1": (40.0, 20.0), "rf:2": (30.0, 3.0)})
    return found


def report(found: DeploymentView, model: str, instance: str, state: str, reason: str = "", ago_s: float = 30) -> None:
    at_ms = int(1000 * (NOW_S - ago_s))
    said = HostReport(model=model, instance=instance, state=state, reason=reason or None, at_ms=at_ms)
    found.host(report_key(model, instance), codec.host_reports.encode(said))


def compared(model: str, waits_for: str = "upper end 0.030 is not below 0.02", **fields: Any) -> Comparison:
    """What a steward writes of a version."""
    return Comparison(model=model, waits_for=waits_for, **COMPARED | fields)


def row(
    partition: int, losses: Losses, context: str | None = None, offset: int = 9, application: str = "digits"
) -> tuple[bytes, bytes]:
    totals = [
        ModelTotalsRecord(model, count, loss, loss, count, (), *calibration)
        for model, (count, loss, *calibration) in losses.items()
    ]
    content = SelectionRow(version=ROW_VERSION, offset=offset, applied=9, totals=totals)
    return encode_key(RowKey(application, context, partition)), encode_row(content)


def learn(found: DeploymentView, partition: int, losses: Losses) -> None:
    found.totals(*row(partition, losses))


def looking(found: Any = None, traffic: Any = None, **fields: Any) -> StatusBuilder:
    """Who looks at ten seconds of it."""
    seen = {"facts": found or facts(), "recent": traffic or recent(), "now_s": NOW_S}
    return StatusBuilder(**seen | fields)


def with_lag(ref: str, lag: int, *instances: str) -> ClusterStatus:
    """What brokers say of a deployment whose hosts of one version have so much to do."""
    return ClusterStatus(at_s=NOW_S, groups=(replace(group(ref, *instances), lag={"requests": lag}),))


def digits(found: Any = None, traffic: Any = None, **fields: Any) -> ApplicationStatus:
    """The status of its application, as `looking` sees it."""
    return looking(found, traffic, **fields).applications()["digits"]


def recent() -> TrafficWindow:
    """100 queries of the last ten seconds: 62 by svm, 30 by knn, 5 by rf, 3 defaults; nn was asked about all."""
    found = TrafficWindow()
    for number in range(100):
        at_s = NOW_S - 10 + number / 10
        ref = "svm:1" if number < 62 else "knn:1" if number < 92 else "rf:2" if number < 97 else None
        found.predicted(prediction(number, ref), at_s, NOW_S)
        found.audited(audit(number), at_s, NOW_S)
        if number % 2:
            found.fed_back("digits", at_s, NOW_S)
    return found


def prediction(number: int, ref: str | None, latency_ms: float | None = None) -> Prediction:
    """An answer by one version; None: a default, because it was late."""
    name, _, version = (ref or "svm:1").partition(":")
    of = {"model": name, "version": version, "propensity": 0.5}
    took_ms = 10.0 + number if latency_ms is None else latency_ms
    found = Prediction(query_id=f"0-{number}", application="digits", latency_ms=took_ms)
    if ref:
        found.models = [ModelAnswer(**of, output=1, latency_ms=2.0 + number / 10)]
    else:
        found.default, found.reason, found.missing = True, "late", [Missing(**of, reason="late")]
    return found


def audit(number: int) -> Audit:
    answer = ModelAnswer(model="nn", version="3", propensity=1.0, output=1, latency_ms=80.0, served=False)
    return Audit(query_id=f"0-{number}", application="digits", models=[answer])
