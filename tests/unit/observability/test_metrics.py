import math
import random
import shutil
import subprocess
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from builders.metrics import served
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from clipper_agents.observability.exposition import Scrape, scrape
from clipper_agents.observability.histogram import BatchHistogram
from clipper_agents.observability.metrics import (
    BatchMetrics,
    GatewayMetrics,
    HostMetrics,
    RouterMetrics,
    StewardMetrics,
    SupervisorMetrics,
)
from clipper_agents.observability.specs import PROCESS_METRICS, SPECS
from clipper_topics.comparison import Comparison

BOUNDS = (0.001, 0.01, 0.1, 1.0)
ROLES = ("router", "host", "steward", "gateway", "supervisor")
LATENCY = "clipper_prediction_latency_seconds"
BASE_UNITS = {"bytes", "celsius", "grams", "joules", "meters", "ratio", "seconds", "volts"}


def samples(registry):
    return [sample for family in registry.collect() for sample in family.samples]


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def count_batch(batches, rows=8, *, failed=0, raised=False):
    times = {"waited_s": 0.002, "latency_s": 0.1, "took_s": 0.2}
    batches.batch(rows=rows, failed=failed, raised=raised, limit_rows=8, **times)


def compared(**fields):
    """How a version stands in a comparison."""
    usual = {"difference": 0.1, "lower": -0.2, "upper": 0.3, "loss": 0.2, "loss_lower": 0.1, "loss_upper": 0.4}
    return Comparison(application="a", model="m:1", stage="shadow", feedbacks=9, **{**usual, **fields})


def everything_counted(router=None):
    """The registries by role, with a value in each metric."""
    router = router or RouterMetrics()
    router.count_queries("a")
    router.observe_predictions("a", "default", "late", [0.1])
    router.set_objectives({"a": 0.1})
    router.observe_stages([0.001], [0.01], 0.002)
    router.observe_return(0.001)
    router.observe_combine(0.001)
    router.set_deferred(2)
    router.count_cache("m:1", lookups=2, hits=1)
    router.set_cache_bytes(10)
    router.count_coalesced(1)
    router.count_feedback("applied")
    router.set_selection_weights({("a", "m:1"): 1.0})
    router.set_ready_hosts({"m:1": 1})
    router.count_refused_manifest()
    router.count_rebalances(2)
    router.set_in_flight(3)
    router.set_clock_skew(0.0)
    host = HostMetrics()
    for each in (host, HostMetrics(router.families)):
        each.observe_request(0.001)
        each.watch_disk(Path(__file__).parent)
        each.set_broker_reachable(True)
        each.set_consumer_lag({("q", 0): 4})
        each.count_dead_letters("q", "undecodable")
        batches = BatchMetrics(each, "m", "1")
        count_batch(batches, failed=1, raised=True)
        batches.late(1)
        batches.queued(2)
    steward = StewardMetrics()
    steward.set_comparisons([compared()])
    steward.count_decision("a", "step", "made")
    steward.count_drift("a", "m:1", worse=True)
    steward.count_drift_refused("a")
    steward.set_dropped({"full": 2})
    steward.set_remembered(7)
    gateway = GatewayMetrics()
    gateway.count_request("/v2/models/{name}/infer", 200, "a", 0.01)
    gateway.watch_in_flight(lambda: 1)
    supervisor = SupervisorMetrics()
    supervisor.watch_children("router", lambda: 2, lambda: 1)
    supervisor.count_restart("router")
    return {role: one.registry for role, one in zip(ROLES, (router, host, steward, gateway, supervisor), strict=True)}


COUNTED = cache(everything_counted)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 500])
def test_a_batch_histogram_scrapes_as_one_observed_value_by_value(size):
    rng = random.Random(size)
    values = [rng.choice([*BOUNDS, 5.0, rng.expovariate(10)]) for _ in range(size)]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("latency_seconds", "x", ["model"], BOUNDS)
    ours.register(batch)
    single = Histogram("latency_seconds", "x", ["model"], buckets=BOUNDS, registry=theirs).labels("svm")
    batch.labels("svm").observe_many(values)
    for one in values:
        single.observe(one)
    for name in ("latency_seconds_count", "latency_seconds_sum"):
        found, expected = (each.get_sample_value(name, {"model": "svm"}) for each in (ours, theirs))
        assert found == pytest.approx(expected)
    texts = [generate_latest(each).decode().splitlines() for each in (ours, theirs)]
    found, expected = ([line for line in text if "_bucket" in line] for text in texts)
    assert found == expected


def test_another_process_reads_what_was_counted_and_where_a_quantile_lies():
    metrics = RouterMetrics()
    metrics.count_queries("digits", 5)
    metrics.observe_predictions("digits", "model", None, [0.004] * 98 + [0.6, 0.6])
    metrics.observe_predictions("digits", "default", "late", [0.1])
    seen = scrape(served(metrics))
    assert seen.value("clipper_queries_total") == 5
    assert seen.by("outcome", "clipper_predictions_total", application="digits") == {"model": 100.0, "default": 1.0}
    assert seen.by("reason", "clipper_predictions_total", outcome="default") == {"late": 1.0}
    assert seen.value("process_resident_memory_bytes") > 0
    assert 0.002 <= seen.quantile(0.5, LATENCY) <= 0.005
    assert 0.5 <= seen.quantile(0.99, LATENCY, outcome="model") <= 0.7
    assert seen.quantile(0.5, LATENCY, application="other") is None
    beyond = Scrape({("x_bucket", frozenset({("le", bound)})): of for bound, of in (("1.0", 0.0), ("+Inf", 2.0))})
    assert beyond.quantile(0.5, "x") == 1.0, "the last bound"


def test_two_scrapes_tell_what_happened_in_between():
    metrics = HostMetrics()
    batches = BatchMetrics(metrics, "svm", "1")
    count_batch(batches, 3)
    port = served(metrics)
    before = scrape(port)
    count_batch(batches, 2)
    count_batch(batches, 4, failed=3, raised=True)
    batches.late(1)
    between = scrape(port).since(before)
    assert between.by("model", "clipper_failed_batches_total") == {"svm": 1.0}
    assert between.by("outcome", "clipper_rows_total") == {"ok": 3.0, "late": 1.0, "error": 3.0}


GONE = {  # what sets a metric twice, and its values by label after that
    "a model that left an application": (
        RouterMetrics, "set_selection_weights", [{("d", "a:1"): 0.5, ("d", "b:1"): 0.5}, {("d", "b:1"): 1.0}],
        "clipper_selection_weight", "model", {"b:1": 1.0},
    ),
    "a partition that moved to another process": (
        HostMetrics, "set_consumer_lag", [{("q", 0): 4, ("q", 1): 5}, {("q", 1): 6}],
        "clipper_consumer_lag", "partition", {"1": 6.0},
    ),
    "an application that lost its objective or has left": (
        RouterMetrics, "set_objectives", [{"a": 0.1, "b": 0.2, "c": None}, {"b": 0.3}],
        "clipper_objective_seconds", "application", {"b": 0.3},
    ),
    "a figure that is not known": (
        StewardMetrics, "set_comparisons", [[compared(difference=None)]], "clipper_comparison_difference", "model", {},
    ),
    "a figure that is known": (
        StewardMetrics, "set_comparisons", [[compared(difference=None)]], "clipper_comparison_difference_upper",
        "model", {"m:1": 0.3},
    ),
    "a comparison": (
        StewardMetrics, "set_comparisons", [[compared()]], "clipper_comparison_feedbacks", "model", {"m:1": 9.0},
    ),
    "a comparison that has left": (
        StewardMetrics, "set_comparisons", [[compared()], []], "clipper_comparison_feedbacks", "model", {},
    ),
    "what a steward drops is counted on when it reads anew": (
        StewardMetrics, "set_dropped", [{"full": count} for count in (2, 5, 0, 1)],
        "clipper_comparison_dropped_total", "reason", {"full": 6.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "setter", "given", "name", "label", "left"), GONE.values(), ids=GONE)
def test_a_scrape_has_what_was_set_last(kind, setter, given, name, label, left):
    metrics = kind()
    for one in given:
        getattr(metrics, setter)(one)
    assert {one.labels[label]: one.value for one in samples(metrics.registry) if one.name == name} == left


def test_a_model_that_left_the_process_has_no_series_in_any_family():
    router = RouterMetrics()
    everything_counted(router)
    assert any(one.labels.get("model") == "m:1" for one in samples(router.registry))
    router.forget_model("m:1")
    left = samples(router.registry)
    assert not [one for one in left if one.labels.get("model") in {"m", "m:1"}]
    assert any(one.labels.get("application") == "a" for one in left), "others are not touched"
    router.count_cache("m:1", lookups=2, hits=1)
    assert value(router, "clipper_cache_lookups_total", model="m:1") == 2.0, "counted anew"


def test_what_misses_the_objective_is_late_or_had_no_time_to_be_answered():
    metrics = RouterMetrics()
    for outcome, reason, latencies_s, objective_s in [
        ("model", None, [0.1, 0.2, 0.11], 0.1),
        ("model", None, [5.0], None),
        ("default", "late", [0.09, 0.1], 0.1),
        ("default", "arrived_late", [9.0], 0.1),
        ("default", "errors", [0.2], 0.1),
        ("model", None, [], 0.1),
    ]:
        metrics.observe_predictions("a", outcome, reason, latencies_s, objective_s)
    assert value(metrics, "clipper_objective_missed_total", application="a") == 2 + 2 + 1


def test_the_disk_is_looked_at_in_each_scrape_also_when_the_folder_is_not_there(tmp_path: Path):
    metrics, folder = HostMetrics(), tmp_path / "host"
    metrics.watch_disk(folder)
    assert value(metrics, "clipper_disk_used_bytes", folder=str(folder)) == 0
    assert math.isnan(value(metrics, "clipper_disk_free_bytes", folder=str(folder)))
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "file").write_bytes(b"x" * 100_000)
    assert 100_000 <= value(metrics, "clipper_disk_used_bytes", folder=str(folder)) < 200_000
    free = value(metrics, "clipper_disk_free_bytes", folder=str(folder))
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_every_stage_of_a_query_is_measured_in_routers_and_in_hosts_colocated_or_not():
    name = "clipper_stage_latency_seconds_count"
    stages = {role: {one.labels["stage"] for one in samples(of) if one.name == name} for role, of in COUNTED().items()}
    hosted = {"request", "queue", "batch", "model"}
    asked = {"wait", "models", "return", "combine", "record"}
    assert stages == {role: set() for role in ROLES} | {"host": hosted, "router": asked | hosted}


def test_every_specified_metric_is_counted_and_no_other():
    collected = chain.from_iterable(registry.collect() for registry in COUNTED().values())
    specified = {*(spec.name for spec in SPECS), *PROCESS_METRICS}
    assert {one.name for one in collected if one.samples} == {name.removesuffix("_total") for name in specified}


@pytest.mark.parametrize("role", ROLES)
def test_units_are_last_in_the_names_of_a_role_and_its_text_parses_as_openmetrics(role):
    families = [*COUNTED()[role].collect()]
    assert [one.name for one in families if BASE_UNITS.intersection(one.name.split("_")[:-1])] == []
    read = text_string_to_metric_families(generate_openmetrics(COUNTED()[role]).decode())
    assert {family.name for family in read} == {family.name for family in families}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus")
@pytest.mark.parametrize("role", ROLES)
def test_promtool_has_nothing_to_say_about_a_role(role):
    text = generate_latest(COUNTED()[role])
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
