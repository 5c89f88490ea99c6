"""Do the figures of applications and versions in short say what was read?"""

from collections.abc import Mapping
from operator import attrgetter

import pytest
from builders.status import DIGITS, MODELS, NOW_S, compared, facts, looking, recent, report

from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.figures import ApplicationSummary, application_summaries, point_of, version_summaries
from clipper_agents.status.model import Latency, WorkerMetrics
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_stream.intervals import confidence_sequence
from clipper_topics import codec
from clipper_topics.comparison import Comparison, comparison_key

SERVED = Latency(p50_ms=5.0, p99_ms=9.0, source="metrics")
LOSS = ("loss", "loss_lower", "loss_upper")


def builder(*comparisons: Comparison, flows: bool = True) -> StatusBuilder:
    """Ten seconds of the application `digits`."""
    found = facts()
    for one in comparisons:
        found.comparison(comparison_key("digits", one.model), codec.comparisons.encode(one), (), NOW_S - 1)
    workers = WorkerMetrics(batch_limits={"svm:1": 64.0}, batches={"svm:1": SERVED})
    return looking(found, recent() if flows else TrafficWindow(), workers=workers)


@pytest.mark.parametrize(
    ("flows", "problems", "rate", "feedback", "p50_ms", "p99_ms", "defaults"),
    [(True, {"digits": 2}, 10.0, 5.0, 59.0, 108.0, {"late": 0.03}), (False, {}, 0.0, 0.0, None, None, {})],
    ids=["traffic", "none"],
)
def test_a_summary_has_the_rates_shares_and_problems_of_the_application(
    flows: bool,
    problems: dict[str, int],
    rate: float,
    feedback: float,
    p50_ms: float | None,
    p99_ms: float | None,
    defaults: dict[str, float],
) -> None:
    assert application_summaries(builder(flows=flows), problems) == [
        ApplicationSummary(
            name="digits", policy="exp3", objective_ms=100, queries_per_s=rate, p50_ms=p50_ms, p99_ms=p99_ms,
            defaults=defaults, feedback_per_s=feedback, models=4, trials=2, problems=problems.get("digits", 0),
            revision=4, is_estimate=False,
        )
    ]  # fmt: skip


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
