"""Names, types and help texts of all metrics are as Prometheus' conventions want them, in both formats."""

import re
import shutil
import subprocess

import pytest
from builders.metrics import everything_counted
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

ROLES = ("router", "host", "steward", "gateway", "supervisor")
BASE_UNITS = {
    "bytes", "celsius", "grams", "joules", "meters", "ratio", "seconds", "volts",
}  # fmt: skip
OTHER_UNITS = {
    "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "bits", "kilobytes", "megabytes",
    "gigabytes", "mib", "kib", "percent", "ms", "us", "ns", "sec", "s", "b", "kb", "mb", "gb", "h", "m", "d", "pct",
}  # fmt: skip
TYPES = {"counter", "gauge", "histogram", "summary"}


def problems(registry):
    """The rules of `promtool check metrics`, by name."""
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        words = name.split("_")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        faults = {
            "no help": not family.documentation,
            "a colon": ":" in name,
            "upper case": any(not re.fullmatch("[a-z][a-z0-9_]*", one) for one in {name, *labels}),
            "a unit that is no base unit": OTHER_UNITS.intersection(words),
            "a unit that is not last": BASE_UNITS.intersection(words[: -2 if family.type == "counter" else -1]),
            "its type": TYPES.intersection(words),
            "total without a counter": family.type != "counter" and name.endswith("_total"),
            "a part of a histogram": name.endswith(("_count", "_sum", "_bucket")),
            "le as a label": family.type != "histogram" and any("le" in sample.labels for sample in family.samples),
        }
        yield from ((name, fault) for fault, holds in faults.items() if holds)


@pytest.mark.parametrize("role", ROLES)
def test_every_metric_of_a_role_follows_the_conventions(role):
    assert list(problems(everything_counted()[role])) == []


@pytest.mark.parametrize(
    ("family", "fault"),
    [
        (GaugeMetricFamily("a_bytes", "", 1), "no help"),
        (GaugeMetricFamily("a:b", "x", 1), "a colon"),
        (GaugeMetricFamily("aB", "x", 1), "upper case"),
        (GaugeMetricFamily("wait_milliseconds", "x", 1), "a unit that is no base unit"),
        (GaugeMetricFamily("wait_ms", "x", 1), "a unit that is no base unit"),
        (GaugeMetricFamily("seconds_waited", "x", 1), "a unit that is not last"),
        (GaugeMetricFamily("lag_gauge", "x", 1), "its type"),
        (GaugeMetricFamily("read_total", "x", 1), "total without a counter"),
        (CounterMetricFamily("seconds_of_cpu", "x", 1), "a unit that is not last"),
        (HistogramMetricFamily("wait_count", "x", [("+Inf", 1)], 1), "a part of a histogram"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_metric_against_the_conventions_is_found(family, fault):
    class Given:
        def collect(self):
            return [family]

    registry = CollectorRegistry()
    registry.register(Given())
    assert fault in [found for _, found in problems(registry)]


@pytest.mark.parametrize("role", ROLES)
def test_promtool_has_nothing_to_say_about_a_role(role):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; its rules are checked above")
    text = generate_latest(everything_counted()[role])
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("role", ROLES)
def test_the_text_of_a_role_is_openmetrics_as_its_own_parser_reads_it(role):
    registry = everything_counted()[role]
    text = generate_openmetrics(registry).decode()
    assert {family.name for family in text_string_to_metric_families(text)} == {
        family.name for family in registry.collect()
    }
