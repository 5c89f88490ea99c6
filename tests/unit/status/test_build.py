"""Do the status of an application and its figures follow from the records of its deployment, however wrong?"""

from collections.abc import Mapping
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders.messages import DRIFT
from builders.status import (
    DIGITS,
    MODELS,
    NOW_S,
    compared,
    digits,
    facts,
    learn,
    looking,
    prediction,
    recent,
    report,
    row,
)

from clipper_agents.cli.status_view import application_parts, drift_line, line_of
from clipper_agents.status.build import DRIFT_SHOWN_S, StatusBuilder
from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, KEPT_EVENTS, DeploymentView
from clipper_agents.status.figures import ApplicationSummary, application_summaries, point_of, version_summaries
from clipper_agents.status.model import ApplicationStatus, DriftStatus, Latency, Loss, WorkerMetrics
from clipper_agents.status.problems import application_reasons
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_stream.intervals import confidence_sequence, newcombe, wilson
from clipper_stream.models.runner import predict_rows
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.comparison import Comparison, comparison_key
from clipper_topics.control_keys import change_key, drift_key, key_of
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, PolicySpec
from clipper_topics.selection_rows import ROW_VERSION, RowKey, SelectionRow, encode_key, encode_row


def test_totals_of_all_partitions_are_added_and_the_newest_of_one_counts() -> None:
    found = facts()
    assert found.state("digits").of("svm:1").count == 100.0
    learn(found, 1, {"svm:1": (41.0, 5.0)})
    svm = found.state("digits").of("svm:1")
    assert (svm.count, svm.loss, found.state("others").totals) == (101.0, 11.0, {})


def test_the_last_row_of_a_context_counts_and_rows_of_another_topic_or_a_newer_release_are_left_out() -> None:
    found = DeploymentView()
    found.context(*row(0, {"svm:1": (1.0, 0.0)}))
    found.totals(*row(0, {"svm:1": (1.0, 0.0)}, "ada"))
    newer = encode_row(SelectionRow(version=ROW_VERSION + 1, offset=7))
    found.totals(encode_key(RowKey("digits", None, 0)), newer)
    found.context(encode_key(RowKey("digits", "ada", 0)), newer)
    assert (found.published, found.contexts) == ({}, {})
    for offset in (7, 9, 8):
        found.context(*row(0, {"svm:1": (float(offset), 0.0)}, "ada", offset))
    assert (found.state("digits", "ada").of("svm:1").count, found.context_counts()["digits"]) == (8.0, 1)


def test_a_host_that_left_is_forgotten_and_so_is_a_manifest_that_is_withdrawn() -> None:
    found = facts()
    assert [one.state for one in found.hosts_of("svm:1")] == ["ready", "ready"]
    found.host(report_key("svm:1", "host.svm.1.0"), b"", at_s=NOW_S)
    assert [one.instance for one in found.hosts_of("svm:1")] == ["host.svm.1.1"]
    assert found.events[-1].text == "host host.svm.1.0 of svm:1 left"
    found.control(key_of(DIGITS), b"")
    assert found.declared.manifests.applications == {}


def test_the_last_comparison_of_a_version_counts_until_it_is_not_compared_any_more() -> None:
    found, of, key = DeploymentView(), ("digits", "svm:2"), comparison_key("digits", "svm:2")
    for ago_s, waits_for in ((20.0, "more feedback"), (10.0, "nothing")):
        found.comparison(key, codec.comparisons.encode(compared("svm:2", waits_for)), at_s=NOW_S - ago_s)
    assert found.comparisons[of].waits_for == "nothing"
    assert found.fresh_comparison(of, NOW_S) == found.comparisons[of]
    assert found.fresh_comparison(of, NOW_S + COMPARED_WITHIN_S) is None
    found.comparison(comparison_key("digits", "svm:3"), b"", at_s=NOW_S)
    found.comparison(key, b"", at_s=NOW_S)
    assert (found.comparisons, found.compared_at_s, found.fresh_comparison(of, NOW_S)) == ({}, {}, None)


def test_addresses_of_metrics_are_those_that_hosts_report() -> None:
    found = facts()
    for instance, metrics in (("a", "127.0.0.1:1"), ("b", "127.0.0.1:1"), ("c", "10.0.0.2:9100"), ("d", None)):
        said = HostReport(model="svm:1", instance=instance, state="ready", metrics=metrics)
        found.host(report_key("svm:1", instance), codec.host_reports.encode(said))
    found.host(report_key("svm:1", "c"), b"")
    assert found.metrics_addresses == {"127.0.0.1:1"}


def test_changes_are_the_newest_first_also_when_they_are_read_in_another_order() -> None:
    found = DeploymentView()
    known = facts().changes_of("digits")
    for change in sorted(known, key=lambda one: one.revision % 3):
        found.control(change_key("digits", change.revision), codec.changes.encode(change))
    assert [change.revision for change in found.changes_of("digits")] == [4, 3, 2]


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff" * 20, b"[]", b'{"application": 3}'])
def test_a_record_that_cannot_be_read_changes_nothing(value: bytes | None) -> None:
    found = facts()
    before = (found.state("digits"), dict(found.hosts.reports), found.changes_of("digits"))
    found.control(b"change/digits/9", value)
    found.control(b"restore/1", value)
    found.host(b"nobody", value)
    for take, key in ((found.comparison, b"digits/svm:2"), (found.totals, value), (found.context, value)):
        take(key, value)
        take(value, value)
    assert (found.state("digits"), dict(found.hosts.reports), found.changes_of("digits")) == before
    assert list(found.declared.manifests.applications) == ["digits"]


def test_events_are_shown_once_as_plain_text_and_the_last_hundred_kept() -> None:
    found = DeploymentView()
    for number in range(KEPT_EVENTS + 5):
        report(found, "svm:1", f"host-{number}", "ready")
    assert len(found.events_since(0)) == KEPT_EVENTS
    seen = found.seen
    report(found, "svm:1", "host-0", "failed", "bad\x1b[2J\nmodel")
    assert [event.text for event in found.events_since(seen)] == ["host host-0 of svm:1 is failed: bad [2J model"]
    assert found.events_since(found.seen) == []


def test_live_versions_come_first_then_trials_then_retired_ones_each_with_its_hosts_and_share() -> None:
    """A share is of served queries, and that of a shadow of asked ones."""
    found = digits()
    assert [(one.model, one.stage, one.declared_share, one.hosts, one.share) for one in found.versions] == [
        ("svm:1", "live", None, 2, 0.62),
        ("knn:1", "live", None, None, 0.3),
        ("rf:2", "canary", 0.05, 0, 0.05),
        ("nn:3", "shadow", 1.0, 1, 1.0),
        ("old:1", "retired", None, 0, 0.0),
    ]
    assert (found.revision, found.models, found.contexts) == (DIGITS.revision, ("svm:1", "knn:1"), 0)
    assert [(one.revision, one.command, one.by) for one in found.changes] == [
        (4, "canary", "rollout"),
        (3, "shadow", "ada"),
        (2, "retire", "ada"),
    ]
    assert looking().applications(["digits", "nobody"]).keys() == {"digits"}, "the other one is not declared"


@pytest.mark.parametrize(("later_s", "shown"), [(86_400.0 - 7201.0, True), (86_400.0 - 7199.0, False)])
def test_a_retired_version_leaves_the_status_a_day_after_its_application_left_it(later_s: float, shown: bool) -> None:
    assert ("old:1" in {one.model for one in digits(now_s=NOW_S + later_s).versions}) is shown


def test_weights_are_the_policys_of_the_sum_of_all_partitions() -> None:
    weights = make_policy("exp3", {"eta": 0.1}).weights(facts().state("digits"), ["svm:1", "knn:1"])
    trials = dict.fromkeys(("rf:2", "nn:3", "old:1"))
    assert {one.model: one.weight for one in digits().versions} == weights | trials


@pytest.mark.parametrize("policy", [{"name": "nobody"}, {"parameters": {"eta": "much"}}, {"parameters": {"x": 1}}])
def test_weights_of_a_policy_that_routers_refuse_are_unknown_and_the_rest_is_shown(policy: dict[str, Any]) -> None:
    manifest = ApplicationManifest(name="digits", models=["svm:1"], policy=PolicySpec(**policy))
    found = facts()
    found.control(key_of(manifest), codec.applications.encode(manifest))
    version = digits(found).versions[0]
    assert (version.weight, version.share) == (None, 0.62)


def test_without_traffic_reports_or_contexts_shares_hosts_and_contexts_are_unknown() -> None:
    quiet = digits(traffic=TrafficWindow())
    assert ([one.share for one in quiet.versions], quiet.queries_per_s) == ([None] * 5, 0.0)
    silent = facts()
    silent.hosts.reports.clear()
    silent.contexts_read = False
    silent._hosts.clear()
    found = digits(silent, workers=WorkerMetrics(members={"svm:1": frozenset({"host.svm.1.0"})}))
    assert ([one.hosts for one in found.versions][:3], found.contexts) == ([1, None, None], None)
    report(silent, "svm:1", "host.svm.1.0", "draining")
    report(silent, "svm:1", "host.svm.1.1", "starting")
    version = digits(silent).versions[0]
    assert (version.hosts, version.starting) == (0, ("host.svm.1.0", "host.svm.1.1")), "neither is ready"


def interval(wrong: float, count: float) -> Loss:
    lower, upper = wilson(wrong, count)
    return Loss(count=count, mean=wrong / count, lower=lower, upper=upper)


def test_without_a_steward_a_trial_is_compared_with_all_live_versions() -> None:
    found = digits()
    losses, (canary, shadow) = {one.model: one.loss for one in found.versions}, found.trials
    assert (losses["svm:1"], losses["nn:3"]) == (interval(10, 100), None)
    assert (canary.difference, (canary.lower, canary.upper)) == newcombe((3.0, 30.0), (60.0, 200.0))
    assert (canary.source, canary.feedbacks, canary.since_s) == ("totals", 30, NOW_S - 60)
    assert (canary.loss, canary.answers) == (losses["rf:2"], interval(60, 200)), "as the table has it"
    assert (shadow.loss, shadow.answers) == (None, canary.answers)
    assert (shadow.feedbacks, shadow.lower, shadow.upper) == (0, -1.0, 1.0)


def test_the_stewards_comparison_counts_before_totals() -> None:
    others = [compared("rf:2", application="others", feedbacks=1), compared("nn:4", feedbacks=2)]
    canary, shadow = digits(comparisons=[*others, compared("rf:2", "it is to be a canary")]).trials
    assert (canary.source, canary.feedbacks, canary.upper) == ("steward", 60, -0.01)
    assert (canary.scores, canary.waiting, canary.from_s, canary.upto_s) == (80, 3, 1, 61)
    assert canary.waits_for == "it is to be a canary"
    assert [(one.mean, one.count) for one in (canary.loss, canary.answers) if one] == [(0.2, 50), (0.3, 40)]
    assert shadow.source == "totals"
    assert shadow.waits_for == "somebody to decide, it is not automatic; the steward's next report of its evidence"


@pytest.mark.parametrize(("late_s", "waits_for"), [(-1, "a fresh one"), (1, "the logs")])
def test_what_a_steward_wrote_lately_counts_before_what_the_logs_say(late_s: float, waits_for: str) -> None:
    found = facts()
    written = codec.comparisons.encode(compared("rf:2", "a fresh one"))
    found.comparison(comparison_key("digits", "rf:2"), written, at_s=NOW_S - COMPARED_WITHIN_S - late_s)
    assert digits(found, comparisons=[compared("rf:2", "the logs")]).trials[0].waits_for == waits_for


def test_counts_of_a_sample_are_shown_as_whole_numbers() -> None:
    sample = TrafficWindow()
    sample.predicted(prediction(1, "svm:1"), NOW_S - 1, NOW_S, weight=16.67)
    sample.predicted(prediction(2, None), NOW_S - 1, NOW_S, weight=1.3)
    sample.fed_back("digits", NOW_S - 1, NOW_S, weight=7.4)
    found = digits(traffic=sample)
    svm = found.versions[0]
    assert (found.queries, found.defaults, found.feedback) == (18, {"late": 1}, 7)
    assert (svm.queries, svm.unanswered) == (18, {"late": 1})
    assert svm.share == pytest.approx(16.67 / 17.97, abs=1e-3)


def test_metrics_say_the_batch_limit_and_groups_the_lag_and_latencies_are_those_of_the_window() -> None:
    svm, *_ = digits(workers=WorkerMetrics(batch_limits={"svm:1": 64.0}, lag={"svm:1": 7})).versions
    assert (svm.batch_limit, svm.lag, svm.latency) == (64.0, 7, Latency(p50_ms=5.0, p99_ms=8.1))
    assert digits().latency == Latency(p50_ms=59.0, p99_ms=108.0)
    one = TrafficWindow()
    one.predicted(prediction(0, "svm:1", latency_ms=5.0), NOW_S - 1, NOW_S)
    assert digits(traffic=one).latency == Latency(p50_ms=5.0, p99_ms=5.0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda rows: [1, *rows], "ModelFailed: the model gave 2 outputs for 1 rows"),
        (lambda rows: 1 // 0, "ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_a_model_that_raises_or_gives_another_number_of_outputs_is_named_with_why(answer: Any, why: str) -> None:
    outcome = predict_rows(SimpleNamespace(predict_batch=answer), [7])
    found = TrafficWindow()
    for number in range(3):
        failed = prediction(number, None)
        failed.missing[0].reason, failed.missing[0].explanation = "error", outcome.failed[0]
        found.predicted(failed, NOW_S - 1, NOW_S)
    reasons = application_reasons(looking(traffic=found).applications(), NOW_S)
    told = f"application digits: model svm:1 failed 3 of 3 queries in the last 60 s: {why}"
    assert any(told in reason for reason in reasons)


@pytest.mark.parametrize(("first", "second"), [((0, 10), (0, 20)), ((10, 10), (0, 20)), ((3.5, 7.2), (1.5, 30))])
def test_the_interval_of_a_difference_holds_it_and_turns_around_with_it(first, second) -> None:
    difference, (lower, upper) = newcombe(first, second)
    assert -1 <= lower <= difference <= upper <= 1
    turned, ends = newcombe(second, first)
    assert [turned, *ends] == pytest.approx([-difference, -upper, -lower])
    assert newcombe((0.0, 0.0), second) == (0.0, (-1.0, 1.0)), "nothing is known without feedback"


def test_a_version_that_is_learned_of_and_was_never_declared_is_no_retired_one() -> None:
    found = facts()
    learn(found, 0, {"ghost:1": (1.0, 0.0)})
    assert "ghost:1" not in {one.model for one in digits(found).versions}


# --- drift ------------------------------------------------------------------------------------------------------------
def detected(**fields: Any) -> tuple[DeploymentView, ApplicationStatus, dict[str, DriftStatus]]:
    """What is shown after a detection about `svm:1` twelve minutes ago."""
    event = msgspec.structs.replace(DRIFT, **{"at_ms": int(1000 * (NOW_S - 720))} | fields)
    found = facts()
    found.control(drift_key(event.application, event.model), codec.drifts.encode(event))
    status = digits(found)
    return found, status, {one.model: one.drift for one in status.versions if one.drift is not None}


def test_a_rise_is_shown_beside_its_version_and_as_an_event() -> None:
    found, status, drifts = detected()
    assert list(drifts) == ["svm:1"]
    said = drift_line("svm:1", drifts["svm:1"])
    assert said == "drift svm:1: loss 0.040 -> 0.310, 12 min ago (adwin)"
    assert said in [str(part) for part in application_parts("digits", status)]
    assert "drift=0.040->0.310" in line_of("digits", status, NOW_S)
    assert found.events[-1].text == "loss of svm:1 for digits has risen from 0.040 to 0.310 (adwin, 57 losses ago)"


@pytest.mark.parametrize(
    "fields",
    [
        {"loss_before": 0.4},
        {"at_ms": int(1000 * (NOW_S - DRIFT_SHOWN_S - 1))},
        {"model": "old:1"},
        {"application": "x"},
    ],
    ids=["a fall", "a week ago", "retired", "of another application"],
)
def test_a_drift_that_counts_no_longer_is_not_shown(fields: dict[str, Any]) -> None:
    assert detected(**fields)[-1] == {}


def test_text_of_a_drift_cannot_move_a_cursor() -> None:
    *_, drifts = detected(context="a\x1b[2J", detector="ad\nwin")
    assert drift_line("m:1", drifts["svm:1"]).isprintable()


SERVED = Latency(p50_ms=5.0, p99_ms=9.0)
LOSS = ("loss", "loss_lower", "loss_upper")


def builder(*comparisons: Comparison, flows: bool = True) -> StatusBuilder:
    """Ten seconds of the application `digits`."""
    found = facts()
    for one in comparisons:
        found.comparison(comparison_key("digits", one.model), codec.comparisons.encode(one), (), NOW_S - 1)
    workers = WorkerMetrics(batch_limits={"svm:1": 64.0}, batches={"svm:1": SERVED})
    return looking(found, recent() if flows else TrafficWindow(), workers=workers)


QUIET = {"queries_per_s": 0.0, "feedback_per_s": 0.0, "p50_ms": None, "p99_ms": None, "defaults": {}, "problems": 0}
BUSY = {"queries_per_s": 10.0, "feedback_per_s": 5.0, "p50_ms": 59.0, "p99_ms": 108.0, "problems": 2}


@pytest.mark.parametrize("figures", [QUIET, BUSY | {"defaults": {"late": 0.03}}], ids=["no traffic", "traffic"])
def test_a_summary_has_the_rates_shares_and_problems_of_the_application(figures: dict[str, Any]) -> None:
    declared = {"name": "digits", "policy": "exp3", "objective_ms": 100, "revision": 4, "models": 4, "trials": 2}
    flows, problems = bool(figures["queries_per_s"]), figures["problems"]
    found = application_summaries(builder(flows=flows), {"digits": problems} if problems else {})
    assert found == [ApplicationSummary(**declared, **figures, is_estimate=False)]


def test_every_declared_version_is_summed_up_with_its_hosts_and_uses() -> None:
    known = builder()
    report(known.facts, "nn:3", "host.nn.3.1", "starting")
    found = {one.ref: one for one in version_summaries(known, {"svm:1": 2})}
    assert found.keys() == {one.ref for one in MODELS}
    of = attrgetter("applications", "stages", "hosts_ready", "replicas", "colocated", "retired", "restarts")
    assert {ref: of(one) for ref, one in found.items() if ref != "others:1"} == {
        "svm:1": (("digits",), ("live",), 2, 2, False, False, 2),
        "knn:1": (("digits",), ("live",), None, 0, True, False, 0),
        "rf:2": (("digits",), ("canary",), 0, 1, False, False, 0),
        "nn:3": (("digits",), ("shadow",), 1, 1, False, False, 0),
        "old:1": ((), (), 0, 0, False, True, 0),
    }
    assert found["rf:2"].failed == {"host.rf.2.0": "no module named shop"}
    assert found["nn:3"].starting == ("host.nn.3.1",)
    svm = found["svm:1"]
    assert (svm.batch_limit, svm.batch_latency, svm.target_ms, svm.cache_hit_ratio) == (64.0, SERVED, 20.0, 0.0)
    assert (found["knn:1"].batch_limit, found["old:1"].cache_hit_ratio) == (None, None)


def test_a_point_has_the_figures_of_the_application_by_stage_and_reason() -> None:
    values, versions = point_of(builder(), "digits")
    assert (values["queries_per_s"], values["feedback_per_s"], values["default:late"]) == (10.0, 5.0, 0.03)
    assert values["default:errors"] == 0.0
    assert values["wait_ms"] + values["models_ms"] == pytest.approx(values["p50_ms"], abs=6.0)
    assert "record_ms" not in values, "these records do not say when they were decided"
    assert [*versions] == DIGITS.refs
    assert [one["share"] for one in versions.values()] == [0.62, 0.3, 0.05, 1.0]
    svm, knn, rf, nn = versions.values()
    assert svm["weight"] > knn["weight"]
    assert (svm["batch_limit"], svm["batch_p99_ms"]) == (64.0, 9.0)
    assert (nn["p50_ms"], nn["cache_hit_ratio"]) == (80.0, 0.0)
    assert losses(svm) == (0.1, *confidence_sequence(10.0, 100.0)), "it holds at all times"
    assert not nn.keys() & {"weight", "loss"}
    assert "difference" not in rf, "totals are a look at one moment"
    assert point_of(builder(), "digits", seconds=100)[0]["queries_per_s"] == 1.0, "rates may be of another time"


def losses(version: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(version[name] for name in LOSS)


def test_the_stewards_comparison_goes_before_totals() -> None:
    _, versions = point_of(builder(compared("rf:2"), compared("nn:3", difference=None, loss=None)), "digits")
    rf = versions["rf:2"]
    assert losses(rf) == (0.2, 0.1, 0.3)
    assert (rf["difference"], rf["difference_lower"], rf["difference_upper"]) == (-0.1, -0.2, -0.01)
    assert not versions["nn:3"].keys() & {"loss", "difference"}


def test_without_traffic_only_rates_and_what_was_learned_are_known() -> None:
    values, versions = point_of(builder(flows=False), "digits")
    assert values == {"queries_per_s": 0.0, "feedback_per_s": 0.0}
    assert versions["knn:1"].keys() == {"weight", *LOSS}
