"""Does the status of an application follow from its records as they say?"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders.status import DIGITS, NOW_S, compared, facts, learn, prediction, recent, report

from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, DeploymentView
from clipper_agents.status.model import ApplicationStatus, Latency, Loss, WorkerMetrics
from clipper_agents.status.problems import application_reasons
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_stream.intervals import newcombe, wilson
from clipper_stream.models.runner import predict_rows
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec
from clipper_topics.comparison import comparison_key
from clipper_topics.control_keys import key_of
from clipper_topics.manifests import ApplicationManifest, PolicySpec

LOOKING = StatusBuilder(facts=facts(), recent=recent(), now_s=NOW_S, window_s=10)


def digits(looking: StatusBuilder = LOOKING) -> ApplicationStatus:
    return looking.applications()["digits"]


def redeclared(manifest: ApplicationManifest) -> DeploymentView:
    found = facts()
    found.control(key_of(manifest), codec.applications.encode(manifest))
    return found


def test_live_versions_come_first_then_trials_then_retired_ones() -> None:
    assert [(one.model, one.stage, one.declared_share) for one in digits().versions] == [
        ("svm:1", "live", None),
        ("knn:1", "live", None),
        ("rf:2", "canary", 0.05),
        ("nn:3", "shadow", 1.0),
        ("old:1", "retired", None),
    ]


def test_a_retired_version_leaves_the_status_a_day_after_its_application_left_it() -> None:
    for later_s, shown in ((86_400.0 - 7201.0, True), (86_400.0 - 7199.0, False)):
        versions = digits(replace(LOOKING, now_s=LOOKING.now_s + later_s)).versions
        assert ("old:1" in {one.model for one in versions}) is shown


def test_weights_are_the_policys_of_the_sum_of_all_partitions() -> None:
    state = LOOKING.facts.state("digits")
    weights = make_policy("exp3", {"eta": 0.1}).weights(state, ["svm:1", "knn:1"])
    assert {one.model: one.weight for one in digits().versions} == {
        **weights,
        "rf:2": None,
        "nn:3": None,
        "old:1": None,
    }


def test_weights_of_a_policy_that_routers_refuse_are_unknown_and_the_rest_is_shown() -> None:
    for policy in (PolicySpec(name="nobody"), PolicySpec(parameters={"eta": "much"}), PolicySpec(parameters={"x": 1})):
        manifest = ApplicationManifest(name="digits", models=["svm:1"], policy=policy)
        (version, *_) = digits(replace(LOOKING, facts=redeclared(manifest))).versions
        assert (version.weight, version.share) == (None, 0.62)


def test_a_share_is_of_served_queries_and_that_of_a_shadow_of_asked_ones() -> None:
    assert [one.share for one in digits().versions] == [0.62, 0.3, 0.05, 1.0, 0.0]
    quiet = digits(replace(LOOKING, recent=TrafficWindow()))
    assert [one.share for one in quiet.versions] == [None] * 5
    assert quiet.queries_per_s == 0.0


def test_hosts_are_counted_by_their_reports_and_where_there_are_none_by_their_group() -> None:
    assert [one.hosts for one in digits().versions] == [2, None, 0, 1, 0]
    silent = facts()
    silent.hosts.reports.clear()
    workers = WorkerMetrics(members={"svm:1": 1})
    assert [one.hosts for one in digits(replace(LOOKING, facts=silent, workers=workers)).versions][:3] == [
        1,
        None,
        None,
    ]


def test_a_host_that_starts_or_drains_is_not_ready() -> None:
    found = facts()
    report(found, "svm:1", "host.svm.1.0", "draining")
    report(found, "svm:1", "host.svm.1.1", "starting")
    version = digits(replace(LOOKING, facts=found)).versions[0]
    assert (version.hosts, version.starting) == (0, ("host.svm.1.0", "host.svm.1.1"))


def test_a_loss_has_the_interval_of_its_count_and_there_is_none_without_feedback() -> None:
    losses = {one.model: one.loss for one in digits().versions}
    assert losses["nn:3"] is None
    found = losses["svm:1"]
    assert found is not None
    assert (found.count, found.mean, (found.lower, found.upper)) == (100.0, 0.1, wilson(10, 100))


def test_without_a_steward_a_trial_is_compared_with_all_live_versions() -> None:
    canary, shadow = digits().trials
    difference, interval = newcombe((3.0, 30.0), (60.0, 200.0))
    assert (canary.difference, (canary.lower, canary.upper)) == (difference, interval)
    assert (canary.source, canary.feedbacks, canary.since_s) == ("totals", 30, NOW_S - 60)
    assert canary.loss == next(one.loss for one in digits().versions if one.model == "rf:2"), "as the table has it"
    assert canary.answers == Loss(count=200, mean=0.3, lower=wilson(60, 200)[0], upper=wilson(60, 200)[1])
    assert (shadow.loss, shadow.answers) == (None, canary.answers)
    assert (shadow.feedbacks, shadow.lower, shadow.upper) == (0, -1.0, 1.0)


def test_the_stewards_comparison_counts_before_totals() -> None:
    others = [compared("rf:2", application="others", feedbacks=1), compared("nn:4", feedbacks=2)]
    canary, shadow = digits(replace(LOOKING, comparisons=[*others, compared("rf:2", "it is to be a canary")])).trials
    assert (canary.source, canary.feedbacks, canary.upper) == ("steward", 60, -0.01)
    assert (canary.scores, canary.waiting, canary.from_s, canary.upto_s) == (80, 3, 1, 61)
    assert canary.waits_for == "it is to be a canary"
    assert [(one.mean, one.count) for one in (canary.loss, canary.answers) if one] == [(0.2, 50), (0.3, 40)]
    assert shadow.source == "totals"
    assert shadow.waits_for == "somebody to decide, it is not automatic; the steward's next report of its evidence"


@pytest.mark.parametrize(
    ("ago_s", "source", "waits_for"),
    [
        (COMPARED_WITHIN_S - 1, "steward", "a fresh one"),
        (COMPARED_WITHIN_S + 1, "steward", "the logs"),
    ],
)
def test_what_a_steward_wrote_lately_counts_before_what_the_logs_say(ago_s, source, waits_for) -> None:
    found = facts()
    written = compared("rf:2", "a fresh one")
    key = comparison_key("digits", "rf:2")
    found.comparison(key, codec.comparisons.encode(written), at_s=NOW_S - ago_s)
    canary, _ = digits(replace(LOOKING, facts=found, comparisons=[compared("rf:2", "the logs")])).trials
    assert (canary.source, canary.waits_for) == (source, waits_for)


def test_counts_of_a_sample_are_shown_as_whole_numbers() -> None:
    sample = TrafficWindow()
    sample.predicted(prediction(1, "svm:1"), NOW_S - 1, NOW_S, weight=16.67)
    sample.predicted(prediction(2, None), NOW_S - 1, NOW_S, weight=1.3)
    sample.fed_back("digits", NOW_S - 1, NOW_S, weight=7.4)
    found = digits(replace(LOOKING, recent=sample))
    svm = found.versions[0]
    assert (found.queries, found.defaults, found.feedback) == (18, {"late": 1}, 7)
    assert (svm.queries, svm.unanswered) == (18, {"late": 1})
    assert svm.share == pytest.approx(16.67 / 17.97, abs=1e-3)


def test_metrics_of_workers_count_before_what_the_log_has() -> None:
    served = Latency(p50_ms=1.0, p99_ms=2.0, source="metrics")
    workers = WorkerMetrics(
        batch_limits={"svm:1": 64.0}, batches={"svm:1": served}, answers={"digits": served}, lag={"svm:1": 7}
    )
    found = digits(replace(LOOKING, workers=workers))
    svm, knn, *_ = found.versions
    assert (svm.batch_limit, svm.latency, svm.lag, found.latency) == (64.0, served, 7, served)
    assert knn.latency is not None
    assert knn.latency.source == "predictions"


def test_latencies_of_the_log_are_of_the_window() -> None:
    assert digits().latency == Latency(p50_ms=59.0, p99_ms=108.0, source="predictions")
    one = TrafficWindow()
    one.predicted(prediction(0, "svm:1", latency_ms=5.0), NOW_S - 1, NOW_S)
    assert digits(replace(LOOKING, recent=one)).latency == Latency(p50_ms=5.0, p99_ms=5.0, source="predictions")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda rows: [1, *rows], "ModelFailed: the model gave 2 outputs for 1 rows: give one output a row"),
        (lambda rows: 1 // 0, "ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_a_model_that_raises_or_gives_another_number_of_outputs_is_named_with_why(answer, why) -> None:
    outcome = predict_rows(SimpleNamespace(predict_batch=answer), [7])
    found = TrafficWindow()
    for number in range(3):
        failed = prediction(number, None)
        failed.missing[0].reason, failed.missing[0].explanation = "error", outcome.failed[0]
        found.predicted(failed, NOW_S - 1, NOW_S)
    reasons = application_reasons(replace(LOOKING, recent=found).applications(), NOW_S)
    told = f"application digits: model svm:1 failed 3 of 3 queries in the last 10 s: {why}: look at the log of its host"
    assert any(told in reason for reason in reasons)


def test_an_application_that_is_not_declared_is_not_shown() -> None:
    assert LOOKING.applications(["digits", "nobody"]).keys() == {"digits"}


def test_the_last_five_changes_are_shown_without_their_manifests() -> None:
    found = digits()
    assert [(one.revision, one.command, one.by) for one in found.changes] == [
        (4, "canary", "rollout"),
        (3, "shadow", "ada"),
        (2, "retire", "ada"),
    ]
    assert (found.revision, found.models) == (DIGITS.revision, ("svm:1", "knn:1"))


def test_contexts_that_were_not_read_are_unknown_and_not_none() -> None:
    assert digits().contexts == 0
    unread = facts()
    unread.contexts_read = False
    assert digits(replace(LOOKING, facts=unread)).contexts is None


@pytest.mark.parametrize(("first", "second"), [((0, 10), (0, 20)), ((10, 10), (0, 20)), ((3.5, 7.2), (1.5, 30))])
def test_the_interval_of_a_difference_holds_it_and_turns_around_with_it(
    first: tuple[float, float], second: tuple[float, float]
) -> None:
    difference, (lower, upper) = newcombe(first, second)
    assert -1 <= lower <= difference <= upper <= 1
    turned, ends = newcombe(second, first)
    assert [turned, *ends] == pytest.approx([-difference, -upper, -lower])


def test_nothing_is_known_of_a_difference_without_feedback() -> None:
    assert newcombe((0.0, 0.0), (1.0, 2.0)) == (0.0, (-1.0, 1.0))
    assert wilson(0.0, 0.0) == (0.0, 1.0)


def test_a_version_that_is_learned_of_and_was_never_declared_is_no_retired_one() -> None:
    found = facts()
    learn(found, 0, {"ghost:1": (1.0, 0.0)})
    assert "ghost:1" not in {one.model for one in digits(replace(LOOKING, facts=found)).versions}
