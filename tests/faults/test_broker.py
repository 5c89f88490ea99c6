"""Whatever happens to Kafka: the pipeline goes on by itself, nothing is lost, and the log says it in a few lines."""

import signal
import time
from urllib.request import urlopen

import pytest
from builders.placed_topics import coordinator
from confluent_kafka import ElectionType, TopicPartition  # type: ignore[attr-defined]
from confluent_kafka.admin import AdminClient
from e2e.programs import reserved_port, run, until
from embedded_cluster import EmbeddedCluster
from faults.deployment import Deployment
from faults.under_traffic import UnderTraffic

from clipper_agents.broker import EmbeddedBroker
from clipper_topics.catalogue import Catalogue

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

LINES = 80
"""Most lines that an outage of half a minute may leave in the log of everything: `up`, router and host together."""


class Standing(UnderTraffic):
    """On a Kafka to which something is done."""

    elsewhere = True

    def begin(self, **settings: object) -> None:
        self.up = self.serve(self.deployment.start("up", **settings))
        self.flows()

    def ended(self, case: str, outage_s: float = 30.0) -> None:
        verdict, faults = self.judged(self.up), len(self.faults_s)
        log = self.up.log
        restarts, lines = log.count('msg="child ended, restarting"'), len(log.splitlines())
        self.conclude(case, verdict, note=f"{restarts} restarts, {lines} log lines")
        assert restarts == 0, log[-6000:]
        assert lines <= LINES * max(2, faults) * max(1.0, outage_s / 30.0), log[:6000]
        assert "not followed any more" not in log


@pytest.fixture
def standing(tmp_path, fault_report):
    """Starts the deployment on a Kafka of a test's own."""

    def on(kafka: EmbeddedBroker | EmbeddedCluster, replication: int = 1) -> Standing:
        environ = {"CLIPPER_KAFKA_REPLICATION": str(replication)}
        deployment = Deployment.on(kafka.connection, Catalogue(partitions=2), tmp_path / "up", **environ)
        return Standing(deployment, fault_report)

    return on


def reachable(metrics_port: int) -> bool:
    page = urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10).read().decode()
    return "\nclipper_broker_reachable 1.0\n" in page


@pytest.mark.short
def test_a_frozen_broker(broker, standing, tmp_path):
    """SIGSTOP, and SIGCONT: connections stay, nobody answers, and the operator is told."""
    with reserved_port() as port, standing(broker) as stands:
        stands.begin(router_metrics_port=port)
        assert reachable(port)
        stands.fault()
        broker.node.send(signal.SIGSTOP)
        until("the log says so", lambda: "no broker answers" in stands.up.log)
        until("the metric says so", lambda: not reachable(port))
        asked = run("status", "--bootstrap", broker.bootstrap, folder=tmp_path)
        assert asked.code == 3, asked
        time.sleep(12.0)  # not to wait for something: this is the fault, longer than a session
        broker.node.send(signal.SIGCONT)
        seconds = time.monotonic() - stands.faults_s[0]
        stands.flows()
        until("the log says so", lambda: "a broker answers again" in stands.up.log)
        until("the metric says so", lambda: reachable(port))
        stands.ended(f"broker frozen for {seconds:.0f} s", seconds)


@pytest.mark.parametrize("kill", [False, True], ids=["in order", "by force"])
def test_a_restarted_broker(broker, standing, short, kill):
    with standing(broker) as stands:
        stands.begin()
        longest_s = 0.0
        for _ in range(1 if short else 3):
            stands.fault()
            broker.stop(kill=kill)
            broker.start()
            stands.flows()
            longest_s = max(longest_s, time.monotonic() - stands.faults_s[-1])
        stands.ended(f"broker {'killed' if kill else 'stopped'}, started again", longest_s)


def coordinates(cluster: EmbeddedCluster) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    return until("a coordinator", lambda: coordinator(admin, Catalogue().router_group))


def controls(cluster: EmbeddedCluster) -> int:
    """The node that leads the metadata: the brokers only tell which node to ask, so the one that says so in its log."""
    activated = [
        (line.split(" ", 2)[:2], number)
        for number in cluster.node_ids
        for line in cluster.node(number).log_file.read_text().splitlines()
        if "Performing controller activation" in line
    ]
    return max(activated)[1]


def elect_preferred(cluster: EmbeddedCluster) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    topics = admin.list_topics(timeout=30).topics
    partitions = [TopicPartition(name, number) for name, topic in topics.items() for number in topic.partitions]
    admin.elect_leaders(ElectionType.PREFERRED, partitions).result(30)  # type: ignore[attr-defined]


def test_leaders_that_move(cluster, standing, short):
    """A node leaves in order and comes back; then every partition goes to its preferred leader."""
    with standing(cluster, replication=3) as stands:
        stands.begin()
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
        stands.ended("leaders moved, three nodes")


NODES = {"the first in bootstrap": lambda _: 1, "the coordinator": coordinates, "the controller": controls}


@pytest.mark.parametrize("which", NODES)
def test_a_node_that_is_gone_for_good(cluster, standing, tmp_path, which):
    """kill -9 of one of three nodes; the pipeline goes on with two."""
    with standing(cluster, replication=3) as stands:
        stands.begin()
        cluster.wait_until_in_sync()
        node = cluster.node(NODES[which](cluster))
        stands.fault()
        node.stop(kill=True)
        stands.flows()
        seen = run("status", "--bootstrap", cluster.bootstrap, folder=tmp_path)
        assert seen.code == 1
        assert "fewer copies than they should" in seen.out
        stands.ended(f"one of three nodes killed: {which}")


def test_a_frozen_node(cluster, standing):
    """SIGSTOP of one of three nodes: its connections stay, and it answers nobody until it is thawed."""
    with standing(cluster, replication=3) as stands:
        stands.begin()
        cluster.wait_until_in_sync()
        node = cluster.node(coordinates(cluster))
        for act in (signal.SIGSTOP, signal.SIGCONT):
            stands.fault()
            node.send(act)
            stands.flows()
        stands.ended("one of three nodes frozen: the coordinator")
