"""Do the figures of applications and versions in short say what was read?"""

import pytest
from builders.status import DIGITS, MODELS, NOW_S, compared, facts, recent, report

from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.figures import application_summaries, point_of, version_summaries
from clipper_agents.status.model import Latency, WorkerMetrics
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_stream.intervals import confidence_sequence
from clipper_topics import codec
from clipper_topics.comparison import Comparison, comparison_key

WORKERS = WorkerMetrics(
    batch_limits={"svm:1": 64.0}, batches={"svm:1": Latency(p50_ms=5.0, p99_ms=9.0, source="metrics")}
)


def builder(*comparisons: Comparison, flows: bool = True) -> StatusBuilder:
    """Ten seconds of the application `digits`."""
    found = facts()
    for one in comparisons:
        found.comparison(comparison_key("digits", one.model), codec.comparisons.encode(one), (), NOW_S - 1)
    traffic = recent() if flows else TrafficWindow()
    return StatusBuilder(facts=found, recent=traffic, now_s=NOW_S, window_s=10, workers=WORKERS)


def test_a_summary_has_the_rates_shares_and_problems_of_the_application() -> None:
    known = builder()
    (found,) = application_summaries(known, {"digits": 2})
    assert (found.name, found.policy, found.objective_ms, found.revision) == ("digits", "exp3", 100, 4)
    assert (found.queries_per_s, found.feedback_per_s, found.defaults) == (10.0, 5.0, {"late": 0.03})
    assert found.p50_ms is not None
    assert found.p99_ms is not None
    assert found.p50_ms < found.p99_ms
    assert (found.models, found.trials, found.is_estimate) == (4, 2, False)
    assert (found.problems, application_summaries(known, {})[0].problems) == (2, 0)


def test_a_summary_without_traffic_has_no_latency_and_no_shares() -> None:
    (found,) = application_summaries(builder(flows=False), {})
    assert (found.queries_per_s, found.feedback_per_s, found.p50_ms, found.p99_ms, found.defaults) == (
        0,
        0,
        None,
        None,
        {},
    )


def test_every_declared_version_is_summed_up_with_its_hosts_and_uses() -> None:
    known = builder()
    report(known.facts, "nn:3", "host.nn.3.1", "starting")
    found = {one.ref: one for one in version_summaries(known, {"svm:1": 2})}
    assert found.keys() == {one.ref for one in MODELS}
    svm, knn, rf, nn, old = (found[ref] for ref in ("svm:1", "knn:1", "rf:2", "nn:3", "old:1"))
    assert (svm.applications, svm.stages, svm.hosts_ready, svm.replicas, svm.restarts) == (
        ("digits",),
        ("live",),
        2,
        2,
        2,
    )
    assert (svm.batch_limit, svm.batch_latency, svm.target_ms) == (64.0, WORKERS.batches["svm:1"], 20.0)
    assert (knn.hosts_ready, knn.replicas, knn.colocated, knn.batch_limit) == (None, 0, True, None)
    assert (rf.stages, rf.failed) == (("canary",), {"host.rf.2.0": "no module named shop"})
    assert (nn.stages, nn.hosts_ready, nn.starting, nn.restarts) == (("shadow",), 1, ("host.nn.3.1",), 0)
    assert (old.applications, old.retired, old.cache_hit_ratio) == ((), True, None)
    assert svm.cache_hit_ratio == 0.0


def test_a_point_has_the_figures_of_the_application_by_stage_and_reason() -> None:
    values, versions = point_of(builder(), "digits")
    assert (values["queries_per_s"], values["feedback_per_s"], values["default:late"]) == (10.0, 5.0, 0.03)
    assert values["default:errors"] == 0.0
    assert values["wait_ms"] + values["models_ms"] == pytest.approx(values["p50_ms"], abs=6.0)
    assert "record_ms" not in values, "these records do not say when they were decided"
    assert [*versions] == DIGITS.refs
    assert {ref: one["share"] for ref, one in versions.items()} == {
        "svm:1": 0.62,
        "knn:1": 0.3,
        "rf:2": 0.05,
        "nn:3": 1.0,
    }
    assert versions["svm:1"]["weight"] > versions["knn:1"]["weight"]
    assert "weight" not in versions["nn:3"]
    assert (versions["svm:1"]["batch_limit"], versions["svm:1"]["batch_p99_ms"]) == (64.0, 9.0)
    assert (versions["nn:3"]["p50_ms"], versions["nn:3"]["cache_hit_ratio"]) == (80.0, 0.0)


def test_a_loss_by_totals_has_an_interval_that_holds_at_all_times() -> None:
    _, versions = point_of(builder(), "digits")
    assert (versions["svm:1"]["loss"], versions["svm:1"]["loss_lower"], versions["svm:1"]["loss_upper"]) == (
        0.1,
        *confidence_sequence(10.0, 100.0),
    )
    assert "loss" not in versions["nn:3"]
    assert "difference" not in versions["rf:2"], "totals are a look at one moment"


def test_the_stewards_comparison_goes_before_totals() -> None:
    _, versions = point_of(builder(compared("rf:2"), compared("nn:3", difference=None, loss=None)), "digits")
    rf = versions["rf:2"]
    assert (rf["loss"], rf["loss_lower"], rf["loss_upper"]) == (0.2, 0.1, 0.3)
    assert (rf["difference"], rf["difference_lower"], rf["difference_upper"]) == (-0.1, -0.2, -0.01)
    assert not versions["nn:3"].keys() & {"loss", "difference"}


def test_without_traffic_only_rates_and_what_was_learned_are_known() -> None:
    values, versions = point_of(builder(flows=False), "digits")
    assert values == {"queries_per_s": 0.0, "feedback_per_s": 0.0}
    assert versions["knn:1"].keys() == {"weight", "loss", "loss_lower", "loss_upper"}


def test_rates_may_be_of_another_time_than_the_window() -> None:
    assert point_of(builder(), "digits", seconds=100)[0]["queries_per_s"] == 1.0
