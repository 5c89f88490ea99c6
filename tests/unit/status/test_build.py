"""Do the status of an application and its figures follow from the records of its deployment, however wrong?"""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders.messages import DRIFT
from builders.status import (
    DIGITS,
    NOW_S,
    compared,
    digits,
    facts,
    learn,
    looking,
    prediction,
    report,
    row,
    with_lag,
)

from clipper_agents.cli.status_view import application_parts
from clipper_agents.status.build import DRIFT_SHOWN_S, trial_verdict, wilson
from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, KEPT_EVENTS, DeploymentView, drift_described
from clipper_agents.status.model import ApplicationStatus, Latency, Loss
from clipper_agents.status.problems import application_problems
from clipper_agents.status.processes import ServedMetrics
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_stream.models.runner import predict_rows
from clipper_stream.selection.confidence import BINS
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.comparison import comparison_key
from clipper_topics.control_keys import change_key, drift_key, key_of
from clipper_topics.drift import DriftEvent
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, PolicySpec, RolloutPlan
from clipper_topics.selection_rows import ROW_VERSION, RowKey, SelectionRow, encode_key, encode_row


def test_totals_of_all_partitions_are_added_and_the_newest_of_one_counts() -> None:
    found = facts()
    assert found.state("digits").of("svm:1").count == 100.0
    learn(found, 1, {"svm:1": (41.0, 5.0)})
    svm = found.state("digits").of("svm:1")
    assert (svm.count, svm.loss, found.state("others").totals) == (101.0, 11.0, {})


def test_rows_of_a_context_or_of_a_newer_release_are_left_out() -> None:
    found = DeploymentView()
    found.totals(*row(0, {"svm:1": (1.0, 0.0)}, "ada"))
    found.totals(encode_key(RowKey("digits", None, 0)), encode_row(SelectionRow(version=ROW_VERSION + 1, offset=7)))
    assert found.published == {}


def test_a_host_that_left_is_forgotten_and_so_is_a_manifest_that_is_withdrawn() -> None:
    found = facts()
    assert [one.state for one in found.hosts.reports.values() if one.model == "svm:1"] == ["ready", "ready"]
    found.host(report_key("svm:1", "host.svm.1.0"), b"", at_s=NOW_S)
    assert [one.instance for one in found.hosts.reports.values() if one.model == "svm:1"] == ["host.svm.1.1"]
    assert found.events[-1].text == "host host.svm.1.0 of svm:1 left"
    found.control(key_of(DIGITS), b"")
    assert found.declared.manifests.applications == {}


def test_the_last_comparison_of_a_version_counts_until_it_is_not_compared_any_more() -> None:
    found, of, key = DeploymentView(), ("digits", "svm:2"), comparison_key("digits", "svm:2")
    for ago_s, waits_for in ((20.0, "more feedback"), (10.0, "nothing")):
        found.comparison(key, codec.comparisons.encode(compared("svm:2", waits_for)), at_s=NOW_S - ago_s)
    assert found.comparisons[of][0].waits_for == "nothing"
    assert found.fresh_comparison(of, NOW_S) == found.comparisons[of][0]
    assert found.fresh_comparison(of, NOW_S + COMPARED_WITHIN_S) is None
    found.comparison(comparison_key("digits", "svm:3"), b"", at_s=NOW_S)
    found.comparison(key, b"", at_s=NOW_S)
    assert (found.comparisons, found.fresh_comparison(of, NOW_S)) == ({}, None)


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
    for take, key in ((found.comparison, b"digits/svm:2"), (found.totals, value)):
        take(key, value)
        take(value, value)
    assert (found.state("digits"), dict(found.hosts.reports), found.changes_of("digits")) == before
    assert list(found.declared.manifests.applications) == ["digits"]


def test_events_are_plain_text_in_order_of_time_and_the_last_hundred_kept() -> None:
    found = DeploymentView()
    for number in range(KEPT_EVENTS + 5):
        report(found, "svm:1", f"host-{number}", "ready")
    assert len(found.events) == KEPT_EVENTS
    report(found, "svm:1", "host-0", "failed", "bad\x1b[2J\nmodel")
    report(found, "svm:1", "host-1", "failed", ago_s=31)  # read later than what happened after it
    assert found.events[-1].text == "host host-0 of svm:1 is failed: bad [2J model"
    assert [one.at_s for one in found.events] == sorted(one.at_s for one in found.events)


def test_live_versions_come_first_then_trials_then_retired_ones_each_with_its_hosts_and_share() -> None:
    """A share is of served queries, and that of a shadow of asked ones."""
    found = digits()
    assert [(one.model, one.stage, one.declared_share, one.declared.hosts, one.share) for one in found.versions] == [
        ("svm:1", "live", None, 2, 0.62),
        ("knn:1", "live", None, None, 0.3),
        ("rf:2", "canary", 0.05, 0, 0.05),
        ("nn:3", "shadow", 1.0, 1, 1.0),
        ("old:1", "retired", None, 0, 0.0),
    ]
    assert (found.revision, found.models) == (DIGITS.revision, ("svm:1", "knn:1"))
    assert [(one.revision, one.command, one.by) for one in found.changes] == [
        (4, "canary", "rollout"),
        (3, "shadow", "ada"),
        (2, "retire", "ada"),
    ]
    assert looking().applications(["digits", "nobody"]).keys() == {"digits"}, "the other one is not declared"


def test_a_change_is_shown_as_it_was_written_without_manifests_and_without_the_selection_state() -> None:
    found, said = facts(), Change(application="digits", revision=5, command="update", by="ada", at_ms=7, why="so")
    whole = msgspec.structs.replace(said, before=DIGITS, after=DIGITS, feedback_ends=[1, 2], rows=[])
    found.control(change_key("digits", 5), codec.changes.encode(whole))
    assert digits(found).changes[0] == said


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


def test_without_traffic_or_reports_shares_and_hosts_are_unknown() -> None:
    quiet = digits(traffic=TrafficWindow())
    assert ([one.share for one in quiet.versions], quiet.queries_per_s) == ([None] * 5, 0.0)
    silent = facts()
    silent.hosts.reports.clear()
    found = digits(silent, cluster=with_lag("svm:1", 0, "host.svm.1.0"))
    assert [one.declared.hosts for one in found.versions][:3] == [1, None, None]
    report(silent, "svm:1", "host.svm.1.0", "draining")
    report(silent, "svm:1", "host.svm.1.1", "starting", ago_s=149)
    report(silent, "svm:1", "host.svm.1.2", "starting", ago_s=150)
    model = digits(silent).versions[0].declared
    assert (model.hosts, model.starting) == (0, ("host.svm.1.1",)), "none is ready, and the third was killed"


@pytest.mark.parametrize(
    ("wrong", "count", "ends"),
    [(0, 10, (0.0, 0.2775)), (5, 100, (0.0215, 0.1118)), (10, 10, (0.7225, 1.0)), (0, 0, (0.0, 1.0))],
)
def test_an_interval_for_one_look_is_that_of_textbooks(wrong, count, ends) -> None:
    assert wilson(wrong, count) == pytest.approx(ends, abs=1e-4)


def interval(wrong: float, count: float) -> Loss:
    lower, upper = wilson(wrong, count)
    return Loss(count=count, mean=wrong / count, lower=lower, upper=upper)


def test_without_a_steward_losses_are_those_of_the_table_and_a_trial_waits_for_it() -> None:
    found = digits()
    losses, (canary, shadow) = {one.model: one.loss for one in found.versions}, found.trials
    assert (losses["svm:1"], losses["rf:2"], losses["nn:3"]) == (interval(10, 100), interval(3, 30), None)
    assert (canary.compared, canary.since_s, canary.waits_for) == (
        None, NOW_S - 60, "the steward's next report of its evidence"
    )  # fmt: skip
    assert shadow.waits_for == f"somebody to decide, it is not automatic; {canary.waits_for}"


def beside(*comparisons, ago_s: float = 1.0) -> DeploymentView:
    """The deployment, and what its steward wrote of versions so long ago."""
    found = facts()
    for one in comparisons:
        key = comparison_key(one.application, one.model)
        found.comparison(key, codec.comparisons.encode(one), at_s=NOW_S - ago_s)
    return found


def test_a_verdict_is_what_the_steward_found() -> None:
    found = beside(compared("rf:2", finding="not worse"))
    assert digits(found).trials[0].verdict == "not worse"
    assert trial_verdict(found, "digits", "rf:2", NOW_S)["verdict"] == "not_worse"
    assert digits().trials[0].verdict == "undecided", "totals hold for one look only"
    assert digits().versions[0].verdict is None, "it is not on trial"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([], "needs 91,089 feedbacks, 5.1 hours: more than the plan has, enough with a share of 31.7%"),
        ([compared("rf:2", standard_error=0.15)], "needs 37,086 feedbacks"),
        ([compared("rf:2", standard_error=0.05, paired=True)], "needs 4,121 feedbacks"),
    ],
    ids=["by what the models lose", "by what it has shown", "pairs"],
)
def test_a_planned_trial_says_how_long_it_takes_before_it_has_begun_and_after(said, text) -> None:
    planned = msgspec.structs.replace(DIGITS.rollout, plan=RolloutPlan(feedbacks=20_000))
    view = beside(*said)
    view.declared.manifests.applications["digits"] = msgspec.structs.replace(DIGITS, rollout=planned)
    canary, shadow = digits(view).trials
    assert text in canary.plan
    assert "ends within" in shadow.plan


def test_the_stewards_comparison_counts_before_totals_for_as_long_as_it_is_young() -> None:
    others = [compared("rf:2", application="others", feedbacks=1), compared("nn:4", feedbacks=2)]
    own = compared("rf:2", "it is to be a canary")
    canary, shadow = digits(beside(*others, own)).trials
    assert (canary.compared, canary.waits_for, shadow.compared) == (own, "it is to be a canary", None)
    assert canary.loss == Loss(count=60, mean=0.2, lower=0.1, upper=0.3)
    assert digits(beside(compared("nn:3", difference=None, loss=None))).versions[3].loss is None
    for late_s, is_young in ((-1, True), (1, False)):
        (canary, _) = digits(beside(own, ago_s=COMPARED_WITHIN_S + late_s)).trials
        assert (canary.compared is not None) is is_young


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
    served = ServedMetrics(batch_limits={"svm:1": 64.0}, batches={"svm:1": Latency(p50_ms=5.0, p99_ms=9.0)})
    svm, *_ = digits(metrics=served, cluster=with_lag("svm:1", 7)).versions
    model = svm.declared
    assert (model.batch_limit, model.batches.p99_ms, model.lag, model.target_ms) == (64.0, 9.0, 7, 20.0)
    assert (svm.latency, svm.cache_hit_ratio) == (Latency(p50_ms=5.0, p99_ms=8.1), 0.0)
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
    problems = application_problems(digits(traffic=found), NOW_S)
    told = f"application digits: model svm:1 failed 3 of 3 queries in the last 60 s: {why}"
    assert any(told in str(one) for one in problems)


def test_a_version_that_is_learned_of_and_was_never_declared_is_no_retired_one() -> None:
    found = facts()
    learn(found, 0, {"ghost:1": (1.0, 0.0)})
    assert "ghost:1" not in {one.model for one in digits(found).versions}


# --- drift ------------------------------------------------------------------------------------------------------------
def detected(**fields: Any) -> tuple[DeploymentView, ApplicationStatus, dict[str, DriftEvent]]:
    """What is shown after a detection about `svm:1` twelve minutes ago."""
    event = msgspec.structs.replace(DRIFT, **{"at_ms": int(1000 * (NOW_S - 720))} | fields)
    found = facts()
    found.control(drift_key(event.application, event.model), codec.drifts.encode(event))
    status = digits(found)
    return found, status, {one.model: one.drift for one in status.versions if one.drift is not None}


def test_a_rise_is_shown_beside_its_version_and_as_an_event() -> None:
    found, status, drifts = detected()
    assert list(drifts) == ["svm:1"]
    said = "loss of svm:1 for digits has risen from 0.040 to 0.310 (adwin by the hour of day, 57 losses ago)"
    assert said in [str(part) for part in application_parts("digits", status)]
    assert said in [one.text for one in found.events]


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
    assert drift_described(drifts["svm:1"]).isprintable()


def test_every_declared_version_has_its_hosts_whoever_uses_it() -> None:
    found = facts()
    report(found, "nn:3", "host.nn.3.1", "starting")
    models = looking(found).status("clipper").models
    assert {
        ref: (one.hosts, one.replicas, one.colocated, one.retired) for ref, one in models.items() if ref != "others:1"
    } == {
        "svm:1": (2, 2, False, False),
        "knn:1": (None, 0, True, False),
        "rf:2": (0, 1, False, False),
        "nn:3": (1, 1, False, False),
        "old:1": (0, 0, False, True),
    }
    assert (models["rf:2"].failed, models["nn:3"].starting) == (
        {"host.rf.2.0": "no module named shop"},
        ("host.nn.3.1",),
    )


@pytest.mark.parametrize(
    ("labels", "expected", "said"),
    [
        (300.0, 30.0, "of svm:1, by the confidence of 60 answers of the last minute: 0.2"),
        (300.0, 130.0, "of svm:1 is not shown: over 300 labels it was +0.333 off, more than the 0.034 of chance"),
        (20.0, 2.0, "of svm:1 is not shown: 20 labels were compared with what was expected of them, of 100"),
    ],
)
def test_the_loss_expected_before_labels_is_shown_beside_its_error_or_not_at_all(labels, expected, said) -> None:
    bins = [0.0] * 2 * BINS
    bins[0:2], bins[-2:] = (200.0, 100.0), (400.0, 0.0)
    found, traffic = facts(), TrafficWindow()
    learn(found, 2, {"svm:1": (1.0, 0.0, (*bins, labels, expected, 0.09 * labels, labels * 0.1))})
    for number in range(60):
        sure = prediction(number, "svm:1")
        sure.models[0].confidence = 0.1 if number % 2 else 1.0
        traffic.predicted(sure, NOW_S - 30, NOW_S)
    status = digits(found, traffic)
    (line,) = [str(part) for part in application_parts("digits", status) if "expected loss" in str(part)]
    assert said in line
    assert [one.expected is None for one in status.versions] == [False, True, True, True, True]
