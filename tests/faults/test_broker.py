"""Whatever happens to Kafka: the pipeline goes on by itself, nothing is lost, and the log says it in a few lines."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from confluent_kafka import ElectionType, TopicPartition  # type: ignore[attr-defined]
from confluent_kafka.admin import AdminClient
from e2e.programs import run, until
from faults.report import FaultReport
from faults.standing import PREFIX, Standing, standing

from clipper_agents.broker import EmbeddedBroker, EmbeddedCluster
from clipper_agents.broker.properties import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

LINES = 80
"""Most lines that an outage of half a minute may leave in the log of everything: `up`, router and host together."""
HEAP_MIB = 256


def concluded(stands: Standing, report: FaultReport, case: str, faults: int, outage_s: float = 30.0) -> None:
    """The verdict, in the report and then checked; and that the log could be read."""
    stalls_s = stands.stalls_s
    verdict = stands.verdict()
    lines = len(stands.up.log.splitlines())
    note = f"{stands.restarts} restarts, {lines} log lines"
    report.add(case, verdict, kills=faults, stalls_s=stalls_s, note=note)
    verdict.check()
    assert stands.restarts == 0, stands.up.log[-6000:]
    assert lines <= LINES * max(2, faults) * max(1.0, outage_s / 30.0), stands.up.log[:6000]
    assert "not followed any more" not in stands.up.log


def reachable(metrics_port: int) -> bool:
    """What the router's metric says."""
    page = urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10).read().decode()
    return "\nclipper_broker_reachable 1.0\n" in page


@pytest.mark.short
def test_a_frozen_broker(tmp_path: Path, fault_report: FaultReport):
    """SIGSTOP, and SIGCONT: connections stay, nobody answers, and the operator is told."""
    port = free_port()
    with (
        EmbeddedBroker(heap_mib=HEAP_MIB) as broker,
        standing(broker.bootstrap, tmp_path, f"router.metrics_port={port}") as stands,
    ):
        assert reachable(port)
        stands.fault()
        broker.node(1).freeze()
        until("the log says so", lambda: "no broker answers" in stands.up.log)
        until("the metric says so", lambda: not reachable(port))
        asked = run("status", "--bootstrap", broker.bootstrap, folder=tmp_path)
        assert asked.code == 3, asked
        time.sleep(12.0)  # not to wait for something: this is the fault, longer than a session
        broker.node(1).thaw()
        seconds = time.monotonic() - stands.faults_s[0]
        stands.flows()
        until("the log says so", lambda: "a broker answers again" in stands.up.log)
        until("the metric says so", lambda: reachable(port))
        concluded(stands, fault_report, f"broker frozen for {seconds:.0f} s", 1, seconds)


@pytest.mark.parametrize("kill", [False, True], ids=["in order", "by force"])
def test_a_restarted_broker(tmp_path: Path, short: bool, fault_report: FaultReport, kill: bool):
    """Stopped or killed, and started again with its data at its address."""
    times = 1 if short else 3
    with (
        EmbeddedBroker(tmp_path / "kafka", heap_mib=HEAP_MIB) as broker,
        standing(broker.bootstrap, tmp_path) as stands,
    ):
        longest_s = 0.0
        for _ in range(times):
            stands.fault()
            broker.stop(kill=kill)
            broker.start()
            stands.flows()
            longest_s = max(longest_s, time.monotonic() - stands.faults_s[-1])
        concluded(stands, fault_report, f"broker {'killed' if kill else 'stopped'}, started again", times, longest_s)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(data_dir=tmp_path / "kafka") as running:
        yield running


def admin_of(cluster: EmbeddedCluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.bootstrap})


def coordinator(cluster: EmbeddedCluster, group: str) -> int:
    """The node that coordinates a consumer group."""
    admin = admin_of(cluster)  # kept until the answer is there: what it was asked ends with it
    found = admin.describe_consumer_groups([group])[group].result(30).coordinator  # type: ignore[attr-defined]
    return int(found.id)


def controller(cluster: EmbeddedCluster) -> int:
    """The node that leads the metadata: the brokers only tell which node to ask, so the one that says so in its log."""
    activated = [
        (line.split(" ", 2)[:2], number)
        for number in cluster.node_ids
        for line in cluster.node(number).log_file.read_text().splitlines()
        if "Performing controller activation" in line
    ]
    return max(activated)[1]


def elect_preferred(cluster: EmbeddedCluster) -> None:
    """Give every partition to the node that is to lead it first."""
    admin = admin_of(cluster)
    topics = admin.list_topics(timeout=30).topics
    partitions = [TopicPartition(name, number) for name, topic in topics.items() for number in topic.partitions]
    admin.elect_leaders(ElectionType.PREFERRED, partitions).result(30)  # type: ignore[attr-defined]


def test_leaders_that_move(cluster: EmbeddedCluster, tmp_path: Path, short: bool, fault_report: FaultReport):
    """A node leaves in order and comes back; then every partition goes to its preferred leader."""
    with standing(cluster.bootstrap, tmp_path / "up", replication=3) as stands:
        for number in cluster.node_ids[: 1 if short else 3]:
            stands.fault()
            cluster.node(number).stop()
            stands.flows()
            stands.fault()
            cluster.node(number).start()
            cluster.wait_until_in_sync()
            stands.fault()
            elect_preferred(cluster)
            stands.flows()
        concluded(stands, fault_report, "leaders moved, three nodes", len(stands.faults_s))


@pytest.mark.parametrize("which", ["the first in bootstrap", "the coordinator", "the controller"])
def test_a_node_that_is_gone_for_good(cluster: EmbeddedCluster, tmp_path: Path, fault_report: FaultReport, which: str):
    """kill -9 of one of three nodes; the pipeline goes on with two."""
    with standing(cluster.bootstrap, tmp_path / "up", replication=3) as stands:
        cluster.wait_until_in_sync()
        number = {
            "the first in bootstrap": lambda: 1,
            "the coordinator": lambda: coordinator(cluster, f"{PREFIX}.router"),
            "the controller": lambda: controller(cluster),
        }[which]()
        stands.fault()
        cluster.node(number).stop(kill=True)
        stands.flows()
        seen = run("status", "--bootstrap", cluster.bootstrap, folder=tmp_path)
        assert seen.code == 1
        assert f"address {cluster.node(number).connection.bootstrap}: nobody takes a connection" in seen.out
        assert "fewer copies than they should" in seen.out
        concluded(stands, fault_report, f"one of three nodes killed: {which}", 1)


def test_a_frozen_node(cluster: EmbeddedCluster, tmp_path: Path, fault_report: FaultReport):
    """SIGSTOP of one of three nodes: its connections stay, and it answers nobody until it is thawed."""
    with standing(cluster.bootstrap, tmp_path / "up", replication=3) as stands:
        cluster.wait_until_in_sync()
        number = coordinator(cluster, f"{PREFIX}.router")
        stands.fault()
        cluster.node(number).freeze()
        stands.flows()
        stands.fault()
        cluster.node(number).thaw()
        stands.flows()
        concluded(stands, fault_report, "one of three nodes frozen: the coordinator", 2)
