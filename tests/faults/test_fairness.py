"""What hangs or is away costs those who need none of it no time."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.placed_topics import lead_from_afar
from e2e.programs import Program, environment_of
from faults.asking import Asking
from faults.report import FaultReport
from faults.tally import Tally

from clipper_agents.broker import EmbeddedCluster
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(300)]

CONFIGURATION = Path(__file__).with_name("overload.toml")
PER_S, WARM_S, SECONDS = 200, 5.0, 15.0
MOST = 500
"""Queries in flight: what hangs has asked for more after three seconds."""
MOST_RATIO = 2.0
"""The 99th percentile beside it, in parts of what it was before."""


def pipeline(kafka: KafkaConnection, catalogue: Catalogue, folder: Path) -> Program:
    environ = environment_of(
        kafka,
        catalogue,
        CLIPPER_KAFKA_REPLICATION="1",
        CLIPPER_ROUTER_DATA_DIR=str(folder / "data"),
        CLIPPER_ROUTER_MAX_IN_FLIGHT=str(MOST),
    )
    return Program("up", "--config", str(CONFIGURATION), folder=folder, environ=environ)


def compared(tally: Tally, began_s: float, fault_s: float, report: FaultReport, case: str) -> None:
    """The 99th percentile from the fault on, beside that of before."""
    before_ms, meanwhile_ms = tally.usual_p99_ms(began_s, fault_s), tally.usual_p99_ms(fault_s, fault_s + SECONDS)
    note = f"p99 of the others {before_ms:.0f} ms before, {meanwhile_ms:.0f} ms meanwhile"
    report.add(case, tally.verdict(), kills=1, note=note)
    assert tally.reasons == {}
    assert meanwhile_ms <= MOST_RATIO * before_ms, note


def test_an_application_whose_host_is_frozen(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, fault_report: FaultReport
):
    tally = Tally(kafka.bootstrap, catalogue.predictions)
    with pipeline(kafka, catalogue, tmp_path) as up:
        up.ready()
        (host,) = [one for one in up.children() if "host slow:1 " in one.command and one.runs]
        with Asking(kafka.bootstrap, catalogue.queries, "colocated", PER_S) as well:
            time.sleep(WARM_S)
            began_s = time.time()
            time.sleep(SECONDS)
            fault_s = time.time()
            os.kill(host.pid, signal.SIGSTOP)
            with Asking(kafka.bootstrap, catalogue.queries, "patient", PER_S) as hung:
                time.sleep(SECONDS)
        tally.read_to(well.asked)
        case = f"the host of an application is frozen that asks {hung.asked} queries"
        compared(tally, began_s, fault_s, fault_report, case)
        os.kill(host.pid, signal.SIGCONT)
        tally.read_all(catalogue.queries)
        assert not tally.lost


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(data_dir=tmp_path / "kafka") as running:
        yield running


def test_a_partition_of_predictions_and_the_dead_letters_have_no_leader(
    cluster: EmbeddedCluster, tmp_path: Path, fault_report: FaultReport
):
    catalogue = Catalogue(prefix="apart", partitions=2)
    away = lead_from_afar(cluster, catalogue, catalogue.requests_topic("slow", "1", 1))
    with pipeline(KafkaConnection(bootstrap=cluster.bootstrap), catalogue, tmp_path) as up:
        up.ready()
        tally = Tally(cluster.bootstrap, catalogue.predictions)
        ask = (cluster.bootstrap, catalogue.queries, "colocated")
        with Asking(*ask, PER_S, partition=1) as well:
            time.sleep(WARM_S)
            began_s = time.time()
            time.sleep(SECONDS)
            fault_s = time.time()
            cluster.node(away).stop(kill=True)
            with Asking(*ask, 10, partition=0), Asking(*ask, 10, b"{", partition=1):
                time.sleep(SECONDS)
        tally.read_to(well.asked)
        case = "a partition of predictions and the dead letters have no leader"
        compared(tally, began_s, fault_s, fault_report, case)
        cluster.node(away).start()
