"""One system, once: latency at a fixed rate, then throughput at saturation, with the CPU that each took."""

import argparse
import time
from collections import Counter
from typing import Any

import uvloop
from rig.conditions import load_average
from rig.processes import NotServing, cpu_s_by_process
from rig.systems import SYSTEMS, Place

from clipper_loadgen import Dataset, LoadPlan, LoadReport, run_load
from clipper_loadgen.datasets import random_dataset
from clipper_topics.manifests import InputSpec

RIG_LIMIT = 0.8
"""Of a CPU that broker and generator share; above it their own queue is measured."""
INPUT = InputSpec(dtype="float32", shape=[64])


def measured(name: str, place: Place, options: argparse.Namespace, broker: int) -> dict[str, Any]:
    """One run of one system, ready for JSON; with `failed` instead of numbers when it did not start or answer."""
    found: dict[str, Any] = {"system": name, "load_before": load_average()}
    try:
        with SYSTEMS[name](place) as roots:
            for mode, plan in plans(options).items():
                found[mode] = _loaded(plan, place, roots, broker)
    except NotServing as error:
        found["failed"] = str(error)
    return found


def plans(options: argparse.Namespace) -> dict[str, LoadPlan]:
    """What is sent in each mode; no input comes twice, so no cache is measured."""
    paced = round(options.rate * (options.warmup + options.seconds))
    return {
        "latency": LoadPlan(
            "digits",
            rate_per_s=options.rate,
            duration_s=options.seconds,
            warmup_s=options.warmup,
            arrivals="constant",
            dataset=_rows(paced, seed=1),
            encoding=options.encoding,
        ),
        "throughput": LoadPlan(
            "digits-backlog",
            mode="saturation",
            queries=options.queries,
            outstanding=options.outstanding,
            dataset=_rows(options.queries, seed=2),
            encoding=options.encoding,
        ),
    }


def _rows(count: int, seed: int) -> Dataset:
    return random_dataset(INPUT, count, seed)


def _loaded(plan: LoadPlan, place: Place, roots: list[int], broker: int) -> dict[str, Any]:
    used = _Usage(roots, broker)
    report = uvloop.run(run_load(plan, place.connection, place.catalogue))
    queries = round(plan.expected_queries)
    return {
        **_figures(report),
        "load_after": load_average(),
        **used.since(queries, report, shared=len(place.cpus.rig) == 1),
    }


def _figures(report: LoadReport) -> dict[str, Any]:
    kept = ("queries", "missing", "duplicates", "throughput_per_s", "default_ratio", "defaults", "late_p99_ms")
    figures = report.as_dict()
    return {**figures["latency"], **{name: figures[name] for name in kept}}


class _Usage:
    """CPU used by the system's processes, the broker and this process from now on."""

    def __init__(self, roots: list[int], broker: int) -> None:
        self._roots, self._broker = roots, broker
        self._system, self._broker_s = cpu_s_by_process(roots), self._of_broker()
        self._began_s = time.monotonic()

    def since(self, queries: int, report: LoadReport, *, shared: bool) -> dict[str, Any]:
        """Microseconds a query by role, and the CPUs of the rig.

        Args:
            queries: Number of queries sent, with the warm-up.
            report: The generator's own share of a CPU while it sent.
            shared: Broker and generator share one CPU.
        """
        took_s = time.monotonic() - self._began_s
        now, broker_s = cpu_s_by_process(self._roots), self._of_broker() - self._broker_s
        used_s: Counter[str] = Counter()
        for (role, pid), seconds in now.items():
            used_s[role] += seconds - self._system.get((role, pid), 0.0)
        rig_cpu = broker_s / took_s + (report.generator_cpu_ratio or 0.0)
        notes = [f"{role} {pid} ended during the run" for role, pid in self._system.keys() - now.keys()]
        if shared and rig_cpu > RIG_LIMIT:
            notes.append("the rig was at its limit")
        return {
            "cpu_us": {role: round(seconds * 1e6 / queries, 1) for role, seconds in used_s.items()},
            "system_cpu_us": round(sum(used_s.values()) * 1e6 / queries, 1),
            "broker_cpu_us": round(broker_s * 1e6 / queries, 1),
            "generator_cpu_us": report.generator_cpu_us,
            "rig_cpu": round(rig_cpu, 3),
            "note": "; ".join(notes),
        }

    def _of_broker(self) -> float:
        return sum(cpu_s_by_process([self._broker]).values())
