"""Does the embedded broker serve, keep what it should keep, and end when it should end?"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from clipper_agents.broker import BrokerNotStarted, EmbeddedBroker
from clipper_agents.broker.properties import free_port
from clipper_agents.broker.runtime import find_runtime

pytestmark = pytest.mark.integration

TOPIC = "greetings"


async def produce(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await producer.start()
    await producer.send_and_wait(TOPIC, b"hello", partition=0)
    await producer.stop()
    await admin.close()


async def consume(bootstrap: str) -> bytes:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    partition = TopicPartition(TOPIC, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    record = await consumer.getone()
    await consumer.stop()
    return record.value


def until(holds: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Polls: the end of a process that is not our child cannot be waited for."""
    end_s = time.monotonic() + within_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.05)
    return holds()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def owner() -> Iterator[Callable[..., tuple[subprocess.Popen[str], int, Path]]]:
    """Starts a process that starts a broker; gives the process, the broker's pid and its folder."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> tuple[subprocess.Popen[str], int, Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        pid, folder = process.stdout.readline().split()
        return process, int(pid), Path(folder)

    yield start
    for process in started:
        process.kill()
        process.communicate()


OWNER = """
import sys
from clipper_agents.broker import EmbeddedBroker
broker = EmbeddedBroker({arguments}).start()
print(broker.pid, broker.log_file.parent, flush=True)
sys.stdin.read()
"""


def test_a_record_is_produced_and_consumed_and_nothing_is_left_after_the_stop():
    with EmbeddedBroker() as broker:
        asyncio.run(produce(broker.bootstrap))
        assert asyncio.run(consume(broker.bootstrap)) == b"hello"
        pid, folder = broker.pid, broker.log_file.parent
    assert is_gone(pid)
    assert broker.pid is None
    assert not folder.exists()


def test_a_data_dir_keeps_records_cluster_and_port_across_restarts(tmp_path: Path):
    with EmbeddedBroker(tmp_path) as first:
        asyncio.run(produce(first.bootstrap))
        meta = (tmp_path / "data" / "meta.properties").read_text()
    with EmbeddedBroker(tmp_path) as second:
        assert second.bootstrap == first.bootstrap
        assert asyncio.run(consume(second.bootstrap)) == b"hello"
        assert (tmp_path / "data" / "meta.properties").read_text() == meta


def test_a_killed_broker_comes_back_at_its_address_with_its_acknowledged_records():
    broker = EmbeddedBroker().start()
    bootstrap = broker.bootstrap
    asyncio.run(produce(bootstrap))
    broker.stop(kill=True)
    with broker:
        assert broker.bootstrap == bootstrap
        assert asyncio.run(consume(bootstrap)) == b"hello"


def test_starting_a_running_broker_and_stopping_a_stopped_one_change_nothing(tmp_path: Path):
    broker = EmbeddedBroker(tmp_path)
    broker.stop()
    with broker:
        pid = broker.pid
        assert broker.start().pid == pid
    broker.stop()


def test_it_can_be_started_inside_an_event_loop(tmp_path: Path):
    async def inside() -> bytes:
        with EmbeddedBroker(tmp_path) as broker:
            await produce(broker.bootstrap)
            return await consume(broker.bootstrap)

    assert asyncio.run(inside()) == b"hello"


def test_a_temporary_broker_and_its_folder_go_with_a_parent_that_is_killed(owner):
    parent, pid, folder = owner(OWNER.format(arguments=""))
    assert not is_gone(pid)
    parent.kill()
    assert until(lambda: is_gone(pid) and not folder.exists())


def test_a_kept_broker_stops_in_order_when_its_parent_is_killed(owner, tmp_path: Path):
    parent, pid, _ = owner(OWNER.format(arguments=repr(str(tmp_path))))
    parent.kill()
    assert until(lambda: is_gone(pid))
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()


def test_the_end_of_the_thread_that_started_it_leaves_the_broker_running(owner):
    in_a_thread = """
import sys, threading
from clipper_agents.broker import EmbeddedBroker
broker = EmbeddedBroker()
thread = threading.Thread(target=broker.start)
thread.start(); thread.join()
print(broker.pid, broker.log_file.parent, flush=True)
sys.stdin.readline()
print(broker.pid, flush=True)
sys.stdin.read()
"""
    parent, pid, _ = owner(in_a_thread)
    parent.stdin.write("are you there?\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == f"{pid}\n"


def test_ctrl_c_in_a_terminal_does_not_reach_the_broker(owner):
    parent, pid, _ = owner(OWNER.format(arguments=""))
    assert os.getsid(pid) != os.getsid(parent.pid)
    parent.send_signal(signal.SIGINT)
    parent.communicate()
    assert until(lambda: is_gone(pid))


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path):
    with EmbeddedBroker(tmp_path) as broker:
        asyncio.run(produce(broker.bootstrap))
        port = int(broker.bootstrap.partition(":")[2])
    with socket.create_server(("127.0.0.1", port)), EmbeddedBroker(tmp_path) as broker:
        assert broker.bootstrap != f"127.0.0.1:{port}"
        assert asyncio.run(consume(broker.bootstrap)) == b"hello"


def test_a_given_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path):
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(BrokerNotStarted, match=f"port {port} of 127.0.0.1 is taken: give another one, or none"),
    ):
        EmbeddedBroker(tmp_path, port).start()


def test_a_port_that_somebody_else_was_faster_to_take_is_replaced(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as faster:
        taken = faster.getsockname()[1]
        ports = iter([taken, free_port(), free_port(), taken])
        with EmbeddedBroker(tmp_path, ports=lambda: next(ports, None) or free_port()) as broker:
            assert broker.bootstrap != f"127.0.0.1:{taken}"
            assert broker.log_file.read_text().count("Address already in use") >= 2


def test_a_second_broker_on_one_data_dir_says_that_the_first_has_it(tmp_path: Path):
    with EmbeddedBroker(tmp_path) as first:
        with pytest.raises(BrokerNotStarted, match="another broker runs in this data_dir"):
            EmbeddedBroker(tmp_path).start()
        assert (tmp_path / "port").read_text() == first.bootstrap.partition(":")[2]


def test_a_setting_that_kafka_refuses_is_given_back_in_one_line_with_the_log(tmp_path: Path):
    broker = EmbeddedBroker(tmp_path, extra_properties={"num.io.threads": 0})
    with pytest.raises(BrokerNotStarted) as raised:
        broker.start()
    message = str(raised.value)
    assert "num.io.threads" in message
    assert str(broker.log_file) in message
    assert len(message.splitlines()) == 1
    assert "num.io.threads" in broker.log_file.read_text()


def test_without_a_network_the_first_start_says_so_and_starts_nothing(tmp_path: Path):
    def unreachable() -> list[Path]:
        raise ConnectionError("Failed to resolve 'repo.maven.apache.org'")

    broker = EmbeddedBroker(tmp_path / "data", runtime=lambda: find_runtime(unreachable, tmp_path / "cache"))
    with pytest.raises(BrokerNotStarted, match=r"Maven Central \(ConnectionError: Failed to resolve.*KAFKA_BOOTSTRAP"):
        broker.start()
    assert not (tmp_path / "data").exists()


def test_nothing_of_the_brokers_own_talk_reaches_the_terminal(capfd):
    with EmbeddedBroker() as broker:
        asyncio.run(produce(broker.bootstrap))
        assert broker.log_file.exists()
    out, err = capfd.readouterr()
    assert out == ""
    assert err in ("", "downloading Apache Kafka 4.3.1 (46 jars, 45 MB), once ...\n")
