"""Does the status of an application follow from its records as they say?"""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders.status import DIGITS, NOW_S, compared, digits, facts, learn, looking, prediction, report

from clipper_agents.cli.status_view import application_parts, drift_line, line_of
from clipper_agents.status.build import DRIFT_SHOWN_S
from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, DeploymentView
from clipper_agents.status.model import ApplicationStatus, DriftStatus, Latency, Loss, WorkerMetrics
from clipper_agents.status.problems import application_reasons
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_stream.intervals import newcombe, wilson
from clipper_stream.models.runner import predict_rows
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.comparison import comparison_key
from clipper_topics.control_keys import drift_key, key_of
from clipper_topics.examples import DRIFT
from clipper_topics.manifests import ApplicationManifest, PolicySpec


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
    assert {one.model: one.weight for one in digits().versions} == {
        **weights,
        "rf:2": None,
        "nn:3": None,
        "old:1": None,
    }


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
    found = digits(silent, workers=WorkerMetrics(members={"svm:1": 1}))
    assert ([one.hosts for one in found.versions][:3], found.contexts) == ([1, None, None], None)


def test_a_host_that_starts_or_drains_is_not_ready() -> None:
    found = facts()
    report(found, "svm:1", "host.svm.1.0", "draining")
    report(found, "svm:1", "host.svm.1.1", "starting")
    version = digits(found).versions[0]
    assert (version.hosts, version.starting) == (0, ("host.svm.1.0", "host.svm.1.1"))


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


def test_metrics_of_workers_count_before_what_the_log_has_of_the_window() -> None:
    served = Latency(p50_ms=1.0, p99_ms=2.0, source="metrics")
    limits, lag = {"svm:1": 64.0}, {"svm:1": 7}
    workers = WorkerMetrics(batch_limits=limits, batches={"svm:1": served}, answers={"digits": served}, lag=lag)
    found = digits(workers=workers)
    svm, knn, *_ = found.versions
    assert (svm.batch_limit, svm.latency, svm.lag, found.latency) == (64.0, served, 7, served)
    assert knn.latency is not None
    assert knn.latency.source == "predictions"
    assert digits().latency == Latency(p50_ms=59.0, p99_ms=108.0, source="predictions")
    one = TrafficWindow()
    one.predicted(prediction(0, "svm:1", latency_ms=5.0), NOW_S - 1, NOW_S)
    assert digits(traffic=one).latency == Latency(p50_ms=5.0, p99_ms=5.0, source="predictions")


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
    told = f"application digits: model svm:1 failed 3 of 3 queries in the last 10 s: {why}"
    assert any(told in reason for reason in reasons)


@pytest.mark.parametrize(("first", "second"), [((0, 10), (0, 20)), ((10, 10), (0, 20)), ((3.5, 7.2), (1.5, 30))])
def test_the_interval_of_a_difference_holds_it_and_turns_around_with_it(
    first: tuple[float, float], second: tuple[float, float]
) -> None:
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
        {"application": "others"},
    ],
    ids=["a fall", "a week ago", "retired", "of another application"],
)
def test_a_drift_that_counts_no_longer_is_not_shown(fields: dict[str, Any]) -> None:
    assert detected(**fields)[-1] == {}


def test_text_of_a_drift_cannot_move_a_cursor() -> None:
    *_, drifts = detected(context="a\x1b[2J", detector="ad\nwin")
    assert drift_line("m:1", drifts["svm:1"]).isprintable()
