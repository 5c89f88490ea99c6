"""What hangs or is away costs those who need none of it no time."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from builders.placed_topics import lead_from_afar
from faults.deployment import OVERLOAD, Deployment, child
from faults.load import Asking, Tally
from faults.report import FaultReport

from clipper_topics.catalogue import Catalogue

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(300)]

ONE_COPY = {"CLIPPER_KAFKA_REPLICATION": "1"}
PER_S, WARM_S, SECONDS = 200, 5.0, 15.0
MOST = 500
"""Queries in flight: what hangs has asked for more after three seconds."""
MOST_RATIO = 2.0
"""The 99th percentile beside it, in parts of what it was before."""


def compared(
    deployment: Deployment,
    report: FaultReport,
    case: str,
    fault: Callable[[], object],
    *others: Any,
    partition: int = -1,
) -> Tally:
    """The 99th percentile of an application from a fault on, beside that of before, while others ask too."""
    tally = Tally(deployment)
    with Asking(deployment, "colocated", PER_S, partition=partition) as well, ExitStack() as stack:
        time.sleep(WARM_S)
        began_s = time.time()
        time.sleep(SECONDS)
        fault_s = time.time()
        fault()
        asking = [stack.enter_context(Asking(deployment, *other)) for other in others]
        time.sleep(SECONDS)
    tally.read_to(well.asked)
    before_ms, meanwhile_ms = tally.usual_p99_ms(began_s, fault_s), tally.usual_p99_ms(fault_s, fault_s + SECONDS)
    beside = sum(one.asked for one in asking)
    note = f"p99 of the others {before_ms:.0f} ms before, {meanwhile_ms:.0f} ms meanwhile, beside {beside} queries"
    report.add(case, tally.verdict(), kills=1, note=note)
    assert tally.reasons == {}
    assert meanwhile_ms <= MOST_RATIO * before_ms, note
    return tally


def test_an_application_whose_host_is_frozen(kafka, catalogue, tmp_path, fault_report):
    deployment = Deployment.on(kafka, catalogue, tmp_path, OVERLOAD, **ONE_COPY)
    with deployment.start("up", router_max_in_flight=MOST) as up:
        up.ready()
        host = child(up, "host slow:1 ")
        freeze = partial(os.kill, host.pid, signal.SIGSTOP)
        case = "the host of an application is frozen"
        tally = compared(deployment, fault_report, case, freeze, ("patient", PER_S))
        os.kill(host.pid, signal.SIGCONT)
        tally.read_all()
        assert not tally.lost


def test_a_partition_of_predictions_and_the_dead_letters_have_no_leader(cluster, tmp_path, fault_report):
    catalogue = Catalogue(prefix="apart", partitions=2)
    away = cluster.node(lead_from_afar(cluster, catalogue, catalogue.requests_topic("slow", "1", 1)))
    deployment = Deployment.on(cluster.connection, catalogue, tmp_path, OVERLOAD, **ONE_COPY)
    with deployment.start("up", router_max_in_flight=MOST) as up:
        up.ready()
        case = "a partition of predictions and the dead letters have no leader"
        others = ("colocated", 10, b"", 0), ("colocated", 10, b"{", 1)
        compared(deployment, fault_report, case, partial(away.stop, kill=True), *others, partition=1)
        away.start()
