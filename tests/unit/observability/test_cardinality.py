from clipper_agents.observability.metrics import ProcessMetrics, RouterMetrics, StewardMetrics
from clipper_agents.observability.specs import MOST_NAMES, OTHERS

APPLICATIONS = [f"app-{number}" for number in range(10_000)]
SERIES_OF_ALL = 200
"""Of no application: of the process, its stages, its topics."""
SERIES_A_NAME = 60
"""Of an application in a router: two latencies of 22 series, and a few counters and gauges; of a model six."""
ROUTE = "/v1/applications/{name}/predict"
BOUND = SERIES_OF_ALL + (MOST_NAMES + 1) * SERIES_A_NAME


def series(metrics):
    return [sample for family in metrics.registry.collect() for sample in family.samples]


def queries(metrics, name):
    return metrics.registry.get_sample_value("clipper_queries_total", {"application": name})


def ask(metrics, names):
    for name in names:
        metrics.counter("clipper_queries_total", name).inc(2)
        metrics.observe_predictions(name, "model", None, [0.004], 0.1)
        metrics.observe_predictions(name, "default", "late", [0.1], 0.1)
        metrics.counter("clipper_cache_lookups_total", f"{name}:1").inc(2)


def report(metrics, names):
    """As a router does each second."""
    metrics.keep("application", ["unknown", *names])
    metrics.set_gauges("clipper_objective_seconds", {(name,): 0.1 for name in names})
    metrics.set_gauges("clipper_ready_hosts", {(f"{name}:1",): 1 for name in names})
    shown = metrics.shown("application", names)
    weights = {(name, f"{name}:{version}"): 0.5 for name in shown for version in (1, 2)}
    metrics.set_gauges("clipper_selection_weight", weights)


def test_ten_thousand_applications_have_bounded_series_with_sums_of_all_and_gauges_of_one_each():
    metrics = RouterMetrics()
    report(metrics, APPLICATIONS)
    ask(metrics, APPLICATIONS)
    report(metrics, APPLICATIONS)
    found = series(metrics)
    assert MOST_NAMES * SERIES_A_NAME / 2 < len(found) <= BOUND
    assert len({one.labels["application"] for one in found if "application" in one.labels}) == MOST_NAMES + 1
    assert sum(one.value for one in found if one.name == "clipper_queries_total") == 20_000
    assert queries(metrics, OTHERS) == 2 * (10_000 - MOST_NAMES)
    gauges = {"clipper_objective_seconds", "clipper_selection_weight"}
    assert {one.labels["application"] for one in found if one.name in gauges} == set(APPLICATIONS[:MOST_NAMES])


def test_names_that_callers_invent_are_one_series_in_the_gateway():
    metrics = ProcessMetrics("gateway")
    for status in (200, 404):
        for _ in APPLICATIONS:
            metrics.counter("clipper_gateway_requests_total", ROUTE, str(status), "").inc()
    metrics.keep("application", ["digits"])
    labels = {"route": ROUTE, "status": "404", "application": ""}
    assert metrics.registry.get_sample_value("clipper_gateway_requests_total", labels) == 10_000
    assert len(series(metrics)) < SERIES_OF_ALL


def test_applications_that_come_and_go_leave_nothing_and_make_room():
    metrics = RouterMetrics()
    report(metrics, ["digits"])
    ask(metrics, ["digits"])
    before = len(series(metrics))
    for first in range(0, 2_500, 500):
        names = APPLICATIONS[first : first + 500]
        report(metrics, ["digits", *names])
        ask(metrics, names)
        assert len(series(metrics)) <= BOUND
        assert queries(metrics, names[-1]) == 2, "the newest have their own"
        for name in names:
            metrics.forget_model(f"{name}:1")
    report(metrics, ["digits"])
    assert len(series(metrics)) == before
    assert (queries(metrics, "digits"), queries(metrics, OTHERS)) == (2, None)


def test_versions_that_come_and_go_leave_nothing_in_router_and_steward():
    router, steward = RouterMetrics(), StewardMetrics()
    before = len(series(router)), len(series(steward))
    for number in range(3_000):
        ref = f"svm:{number}"
        router.counter("clipper_cache_lookups_total", ref).inc(2)
        router.set_gauges("clipper_ready_hosts", {(ref,): 1})
        router.set_gauges("clipper_selection_weight", {("digits", ref): 1.0})
        steward.counter("clipper_drifts_total", "digits", ref, "up").inc()
        steward.keep("model", [ref])
        router.forget_model(f"svm:{number - 1}")
    assert len(series(router)) <= SERIES_OF_ALL
    router.forget_model("svm:2999")
    router.set_gauges("clipper_selection_weight", {})
    steward.keep("application", [])
    assert (len(series(router)), len(series(steward))) == before


def test_an_application_is_counted_on_its_own_again_once_another_has_left():
    metrics, last = RouterMetrics(), APPLICATIONS[MOST_NAMES]
    ask(metrics, APPLICATIONS[: MOST_NAMES + 1])
    assert queries(metrics, last) is None
    metrics.keep("application", APPLICATIONS[1 : MOST_NAMES + 1])
    ask(metrics, [last])
    assert queries(metrics, last) == 2
