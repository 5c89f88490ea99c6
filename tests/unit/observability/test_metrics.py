"""Counting by batches gives what counting one by one gives, and can be read by another process."""

import math
import random
import shutil
from itertools import chain
from pathlib import Path

import pytest
from builders.metrics import compared, everything_counted, served
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from clipper_agents.observability.exposition import Scrape, scrape
from clipper_agents.observability.histogram import BatchHistogram
from clipper_agents.observability.metrics import (
    BatchMetrics,
    HostMetrics,
    RouterMetrics,
    StewardMetrics,
)
from clipper_agents.observability.reference import PAGE, reference
from clipper_agents.observability.specs import PROCESS_METRICS, SPECS

BOUNDS = (0.001, 0.01, 0.1, 1.0)
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("size", [0, 1, 31, 32, 500])
def test_a_batch_histogram_scrapes_as_one_observed_value_by_value(size):
    rng = random.Random(size)
    values = [rng.choice([*BOUNDS, 5.0, rng.expovariate(10)]) for _ in range(size)]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("latency_seconds", "x", ["model"], BOUNDS)
    ours.register(batch)
    single = Histogram("latency_seconds", "x", ["model"], buckets=BOUNDS, registry=theirs).labels("svm")
    batch.labels("svm").observe_many(values)
    for value in values:
        single.observe(value)
    for name in ("latency_seconds_count", "latency_seconds_sum"):
        found, expected = (each.get_sample_value(name, {"model": "svm"}) for each in (ours, theirs))
        assert found == pytest.approx(expected)
    buckets = [line for line in generate_latest(theirs).decode().splitlines() if "_bucket" in line]
    assert buckets == [line for line in generate_latest(ours).decode().splitlines() if "_bucket" in line]


def test_another_process_reads_what_was_counted():
    metrics = RouterMetrics()
    metrics.count_queries("digits", 5)
    metrics.observe_predictions("digits", "model", None, [0.004, 0.004, 0.04])
    metrics.observe_predictions("digits", "default", "late", [0.1])
    seen = scrape(served(metrics))
    assert seen.value("clipper_queries_total") == 5
    assert seen.by("outcome", "clipper_predictions_total", application="digits") == {"model": 3.0, "default": 1.0}
    assert seen.by("reason", "clipper_predictions_total", outcome="default") == {"late": 1.0}
    assert seen.value("process_resident_memory_bytes") > 0


def test_a_quantile_lies_in_the_bucket_of_its_value():
    metrics = RouterMetrics()
    metrics.observe_predictions("digits", "model", None, [0.004] * 98 + [0.6, 0.6])
    seen = scrape(served(metrics))
    assert 0.002 <= seen.quantile(0.5, "clipper_prediction_latency_seconds") <= 0.005
    assert 0.5 <= seen.quantile(0.99, "clipper_prediction_latency_seconds", outcome="model") <= 0.7
    assert seen.quantile(0.5, "clipper_prediction_latency_seconds", application="other") is None


def test_two_scrapes_tell_what_happened_in_between():
    metrics = HostMetrics()
    batches = BatchMetrics(metrics, "svm", "1")
    batches.batch(rows=3, failed=0, raised=False, waited_s=0.002, latency_s=0.1, took_s=0.2, limit_rows=8)
    port = served(metrics)
    before = scrape(port)
    batches.batch(rows=2, failed=0, raised=False, waited_s=0.002, latency_s=0.1, took_s=0.2, limit_rows=8)
    batches.batch(rows=4, failed=3, raised=True, waited_s=0.002, latency_s=0.1, took_s=0.2, limit_rows=8)
    batches.late(1)
    between = scrape(port).since(before)
    assert between.by("model", "clipper_failed_batches_total") == {"svm": 1.0}
    assert between.by("outcome", "clipper_rows_total") == {"ok": 3.0, "late": 1.0, "error": 3.0}


def test_a_value_beyond_the_last_bound_is_estimated_as_that_bound():
    infinite = frozenset({("le", "+Inf")})
    seen = Scrape({("x_bucket", frozenset({("le", "1.0")})): 0.0, ("x_bucket", infinite): 2.0})
    assert seen.quantile(0.5, "x") == 1.0


def test_a_model_that_leaves_an_application_is_not_scraped_any_more():
    metrics = RouterMetrics()
    metrics.set_selection_weights({("digits", "a:1"): 0.5, ("digits", "b:1"): 0.5})
    metrics.set_selection_weights({("digits", "b:1"): 1.0})
    labels = {"application": "digits", "model": "a:1"}
    assert metrics.registry.get_sample_value("clipper_selection_weight", labels) is None
    assert metrics.registry.get_sample_value("clipper_selection_weight", {**labels, "model": "b:1"}) == 1.0


def test_a_model_that_left_the_process_has_no_series_in_any_family():
    router = RouterMetrics()
    everything_counted(router)
    series = [sample for family in router.registry.collect() for sample in family.samples]
    assert any(sample.labels.get("model") == "m:1" for sample in series)
    router.forget_model("m:1")
    left = [sample for family in router.registry.collect() for sample in family.samples]
    assert not [one for one in left if one.labels.get("model") in {"m", "m:1"}]
    assert any(one.labels.get("application") == "a" for one in left), "others are not touched"
    router.count_cache("m:1", lookups=2, hits=1)
    labels = {"model": "m:1"}
    assert router.registry.get_sample_value("clipper_cache_lookups_total", labels) == 2.0, "counted anew"


def test_a_partition_that_moved_to_another_process_is_not_scraped_any_more():
    metrics = HostMetrics()
    metrics.set_consumer_lag({("q", 0): 4, ("q", 1): 5})
    metrics.set_consumer_lag({("q", 1): 6})
    lags = [metrics.registry.get_sample_value("clipper_consumer_lag", {"topic": "q", "partition": p}) for p in "01"]
    assert lags == [None, 6.0]


def test_colocated_models_are_scraped_with_their_router():
    router = RouterMetrics()
    batches = BatchMetrics(HostMetrics(router.families), "svm", "1")
    batches.batch(rows=8, failed=0, raised=False, waited_s=0.002, latency_s=0.004, took_s=0.2, limit_rows=8)
    assert router.registry.get_sample_value("clipper_batch_rows_count", {"model": "svm", "version": "1"}) == 1.0


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
    assert metrics.registry.get_sample_value("clipper_objective_missed_total", {"application": "a"}) == 2 + 2 + 1


def test_an_application_that_lost_its_objective_or_has_left_has_none_in_a_scrape():
    metrics = RouterMetrics()
    metrics.set_objectives({"a": 0.1, "b": 0.2, "c": None})
    metrics.set_objectives({"b": 0.3})
    found = [metrics.registry.get_sample_value("clipper_objective_seconds", {"application": name}) for name in "abc"]
    assert found == [None, 0.3, None]


def test_the_disk_is_looked_at_in_each_scrape_also_when_the_folder_is_not_there(tmp_path: Path):
    metrics, folder = HostMetrics(), tmp_path / "host"
    metrics.watch_disk(folder)

    def value(name):
        return metrics.registry.get_sample_value(f"clipper_disk_{name}_bytes", {"folder": str(folder)})

    assert value("used") == 0
    assert math.isnan(value("free"))
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "file").write_bytes(b"x" * 100_000)
    assert 100_000 <= value("used") < 200_000
    assert value("free") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_every_stage_of_a_query_is_measured_in_routers_and_hosts():
    stages = {role: set() for role in ("router", "host")}
    for role, registry in everything_counted().items():
        for sample in (one for family in registry.collect() for one in family.samples):
            if sample.name == "clipper_stage_latency_seconds_count":
                stages[role].add(sample.labels["stage"])
    hosted = {"request", "queue", "batch", "model"}
    assert stages == {"host": hosted, "router": {"wait", "models", "return", "combine", "record"} | hosted}


def test_a_comparison_that_has_left_and_a_figure_that_is_not_known_are_not_scraped():
    metrics = StewardMetrics()
    labels = {"application": "a", "model": "m:1", "stage": "shadow"}

    def value(name):
        return metrics.registry.get_sample_value(f"clipper_comparison_{name}", labels)

    metrics.set_comparisons([compared(difference=None)])
    assert (value("difference"), value("feedbacks"), value("difference_upper"), value("loss_lower")) == (
        None,
        9,
        0.3,
        0.1,
    )
    metrics.set_comparisons([])
    assert value("feedbacks") is None


def test_what_a_steward_drops_is_counted_on_when_it_begins_to_read_anew():
    metrics = StewardMetrics()
    for count in (2, 5, 0, 1):
        metrics.set_dropped({"full": count})
    assert metrics.registry.get_sample_value("clipper_comparison_dropped_total", {"reason": "full"}) == 6


def test_every_specified_metric_is_counted_and_no_other():
    collected = chain.from_iterable(registry.collect() for registry in everything_counted().values())
    families = {family.name for family in collected if family.samples}
    specified = {spec.name.removesuffix("_total") for spec in SPECS}
    assert families == specified | {name.removesuffix("_total") for name in PROCESS_METRICS}


def test_the_reference_page_is_that_of_the_code():
    assert (ROOT / PAGE).read_text() == reference(), "run python -m clipper_agents.observability.reference"
