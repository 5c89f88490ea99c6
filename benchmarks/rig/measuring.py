"""One load on a running system, with the CPU that each process took meanwhile."""

import time
from dataclasses import asdict, replace
from typing import Any

import uvloop
from rig.processes import cpu_s_by_process, spent_by_role
from rig.results import load_average
from rig.session import Session
from rig.systems import SYSTEMS, Place

from clipper_loadgen import Dataset, LoadPlan, LoadReport, run_load
from clipper_loadgen.datasets import random_dataset
from clipper_topics.manifests import InputSpec

RIG_LIMIT = 0.8
"""Of a CPU that broker and generator share; above it their own queue is measured."""
INPUT = InputSpec(dtype="float32", shape=[64])
DRAIN_S = 60.0
"""Without an answer: a machine that does something else as well may stand still for a while, and has lost nothing."""
KEPT = ("queries", "missing", "duplicates", "throughput_per_s", "default_ratio", "defaults", "late_p99_ms")
"""Of the generator's report."""


def rows(count: int, seed: int, spec: InputSpec = INPUT) -> Dataset:
    """Inputs, none twice, so no cache is measured."""
    return random_dataset(spec, count, seed)


def steady(application: str, seed: int, options: Any) -> LoadPlan:
    """A load at the rate of the options, for its seconds after its warm-up."""
    queries = round(2 * options.rate * (options.warmup + options.seconds))
    return LoadPlan(
        application,
        rate_per_s=options.rate,
        duration_s=options.seconds,
        warmup_s=options.warmup,
        dataset=rows(queries, seed),
        seed=seed,
    )


def loaded(plan: LoadPlan, place: Place, roots: list[int], broker: list[int]) -> dict[str, Any]:
    """What became of a load, ready for JSON.

    Args:
        plan: The load.
        place: Where the system runs.
        roots: Process ids of the system; their descendants are counted too.
        broker: Process id of the broker, where it is known.
    """
    load_before, used = load_average(), Usage(roots, broker)
    report = uvloop.run(run_load(replace(plan, drain_s=DRAIN_S), place.connection, place.catalogue))
    spent = used.since(round(plan.expected_queries), report, shared=len(place.cpus.rig) == 1)
    return {**_figures(report), "load_before": load_before, "load_after": load_average(), **spent}


def _figures(report: LoadReport) -> dict[str, Any]:
    figures = asdict(report)
    return {**figures["latency"], **{name: figures[name] for name in KEPT}}


class Usage:
    """CPU used by the system's processes, the broker and this process from now on."""

    def __init__(self, roots: list[int], broker: list[int]) -> None:
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
        used_s = spent_by_role(self._system, now)
        broker_cpu, generator_cpu = broker_s / took_s, report.generator_cpu_ratio or 0.0
        notes = [f"{role} {pid} ended during the run" for role, pid in self._system.keys() - now.keys()]
        if shared and broker_cpu + generator_cpu > RIG_LIMIT:
            notes.append("broker and generator were at the limit of their CPU: the queue before them was measured")
        return {
            "cpu_us": {role: round(seconds * 1e6 / queries, 1) for role, seconds in used_s.items()},
            "system_cpu_us": round(sum(used_s.values()) * 1e6 / queries, 1),
            "broker_cpu_us": round(broker_s * 1e6 / queries, 1),
            "generator_cpu_us": report.generator_cpu_us,
            "broker_cpu": round(broker_cpu, 3),
            "generator_cpu": round(generator_cpu, 3),
            "rig_cpu": round(broker_cpu + generator_cpu, 3),
            "note": "; ".join(notes),
        }

    def _of_broker(self) -> float:
        return sum(cpu_s_by_process(self._broker).values())


OUTSTANDING = 4
"""Few queries outstanding make many requests of them."""


def warm_broker(here: Session, queries: int) -> None:
    """Queries through an echo, of which nothing is kept."""
    if not queries:
        return
    place = here.place("warm")
    plan = LoadPlan(
        "digits", mode="saturation", queries=queries, outstanding=OUTSTANDING, dataset=rows(queries, seed=99)
    )
    with SYSTEMS["echo"](place) as roots:
        loaded(plan, place, roots, here.broker)
