import math
import random
import re
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

import clipper_agents
import clipper_gateway
from clipper_agents.observability.exposition import Scrape, scrape
from clipper_agents.observability.metrics import (
    BatchHistogram,
    BatchMetrics,
    ProcessMetrics,
    RouterMetrics,
    StewardMetrics,
)
from clipper_agents.observability.specs import PROCESS_METRICS, SPECS
from clipper_topics.comparison import Comparison

BOUNDS = (0.001, 0.01, 0.1, 1.0)
SOURCES = [path for root in (clipper_agents, clipper_gateway) for path in Path(root.__file__).parent.rglob("*.py")]
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
    host, steward, gateway, supervisor = (
        ProcessMetrics("host"), StewardMetrics(), ProcessMetrics("gateway"), ProcessMetrics("supervisor")
    )  # fmt: skip
    processes = dict(zip(ROLES, (router, host, steward, gateway, supervisor), strict=True))
    for spec in SPECS:
        labels = [{"application": "a", "model": "m:1"}.get(label, label) for label in spec.labels]
        if "version" in spec.labels:
            labels = ["m", "1", *labels[2:]]
        for metrics in processes.values():
            if spec.name in metrics._specs and spec.name != "clipper_stage_latency_seconds":
                touched = getattr(metrics, spec.kind)(spec.name, *labels)
                touched.observe(0.1) if spec.buckets else touched.inc()
    router.observe_stages([0.001], [0.01], 0.002)
    for each in (host, router):
        count_batch(BatchMetrics(each, "m", "1"), failed=1, raised=True)
    return {role: one.registry for role, one in processes.items()}


COUNTED = cache(everything_counted)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 500])
def test_a_batch_histogram_scrapes_as_one_observed_value_by_value(size):
    rng = random.Random(size)
    values = [rng.choice([*BOUNDS, 5.0, rng.expovariate(10)]) for _ in range(size)]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("latency_seconds", "x", ["model"], buckets=BOUNDS, registry=ours)
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
    metrics.counter("clipper_queries_total", "digits").inc(5)
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


def test_rows_and_batches_of_a_model_are_counted_by_how_they_ended():
    metrics = ProcessMetrics("host")
    batches = BatchMetrics(metrics, "svm", "1")
    count_batch(batches, 2)
    count_batch(batches, 4, failed=3, raised=True)
    batches.late(1)
    seen = scrape(served(metrics))
    assert seen.by("model", "clipper_failed_batches_total") == {"svm": 1.0}
    assert seen.by("outcome", "clipper_rows_total") == {"ok": 3.0, "late": 1.0, "error": 3.0}


def weights(*models):
    return "set_gauges", ("clipper_selection_weight", {("d", model): 0.5 for model in models})


GONE = {  # what sets a metric twice, and its values by label after that
    "a model that left an application": (
        [weights("a:1", "b:1"), weights("b:1")], "clipper_selection_weight", "model", {"b:1": 0.5},
    ),
    "a partition that moved to another process": (
        [("set_consumer_lag", (lag,)) for lag in ({("q", 0): 4, ("q", 1): 5}, {("q", 1): 6})],
        "clipper_consumer_lag", "partition", {"1": 6.0},
    ),
    "a figure that is not known": (
        [("set_comparisons", ([compared(difference=None)],))], "clipper_comparison_difference", "model", {},
    ),
    "a figure that is known": (
        [("set_comparisons", ([compared(difference=None)],))], "clipper_comparison_difference_upper", "model",
        {"m:1": 0.3},
    ),
    "a comparison": ([("set_comparisons", ([compared()],))], "clipper_comparison_feedbacks", "model", {"m:1": 9.0}),
    "a comparison that has left": (
        [("set_comparisons", ([compared()],)), ("set_comparisons", ([],))], "clipper_comparison_feedbacks", "model", {},
    ),
    "what a steward drops is counted on when it reads anew": (
        [("set_dropped", ({"full": count},)) for count in (2, 5, 0, 1)],
        "clipper_comparison_dropped_total", "reason", {"full": 6.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("calls", "name", "label", "left"), GONE.values(), ids=GONE)
def test_a_scrape_has_what_was_set_last(calls, name, label, left):
    metrics = StewardMetrics() if "comparison" in name else RouterMetrics()
    for method, given in calls:
        getattr(metrics, method)(*given)
    assert {one.labels[label]: one.value for one in samples(metrics.registry) if one.name == name} == left


def test_a_model_that_left_the_process_has_no_series_in_any_family():
    router = RouterMetrics()
    everything_counted(router)
    assert any(one.labels.get("model") == "m:1" for one in samples(router.registry))
    router.forget_model("m:1")
    left = samples(router.registry)
    assert not [one for one in left if one.labels.get("model") in {"m", "m:1"}]
    assert any(one.labels.get("application") == "a" for one in left), "others are not touched"
    router.counter("clipper_cache_lookups_total", "m:1").inc(2)
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
    metrics, folder = ProcessMetrics("host"), tmp_path / "host"
    metrics.watch_disk(folder)
    assert value(metrics, "clipper_disk_used_bytes", folder=str(folder)) == 0
    assert math.isnan(value(metrics, "clipper_disk_free_bytes", folder=str(folder)))
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "file").write_bytes(b"x" * 100_000)
    assert 100_000 <= value(metrics, "clipper_disk_used_bytes", folder=str(folder)) < 200_000
    free = value(metrics, "clipper_disk_free_bytes", folder=str(folder))
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_every_specified_metric_is_counted_somewhere_and_every_stage_of_a_query_and_no_other():
    code = [path.read_text() for path in SOURCES if path.name != "specs.py"]
    counted = {name for text in code for name in re.findall(r'"(clipper_[a-z_]+)"', text)}
    specified = {spec.name for spec in SPECS}
    assert specified <= counted
    assert {name for name in counted - specified if name.endswith(("_total", "_seconds", "_rows", "_bytes"))} == set()
    stages = {one for text in code for one in re.findall(r'"clipper_stage_latency_seconds", "([a-z]+)"', text)}
    assert stages == {"wait", "models", "return", "combine", "record", "request"}, "a host's others are of its batches"
    collected = chain.from_iterable(registry.collect() for registry in COUNTED().values())
    scraped = {*specified, *PROCESS_METRICS}
    assert {one.name for one in collected if one.samples} == {name.removesuffix("_total") for name in scraped}


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
