"""Does the embedded broker serve, keep what it should keep, and end when it should end?"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders.greetings import consume, create, is_gone, produce
from e2e.programs import until

from clipper_agents.broker import BrokerNotStarted, EmbeddedBroker
from clipper_agents.broker.properties import free_port
from clipper_agents.broker.runtime import find_runtime

pytestmark = pytest.mark.integration


def filled(bootstrap: str) -> None:
    create(bootstrap)
    produce(bootstrap)


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


def test_a_broker_in_an_event_loop_serves_says_nothing_and_leaves_nothing_behind(capfd):
    async def inside() -> tuple[int | None, Path]:
        with EmbeddedBroker() as broker:
            filled(broker.bootstrap)
            assert consume(broker.bootstrap) == [b"hello"]
            assert broker.log_file.exists()
            pid, folder = broker.pid, broker.log_file.parent
        assert broker.pid is None
        return pid, folder

    pid, folder = asyncio.run(inside())
    assert is_gone(pid)
    assert not folder.exists()
    out, err = capfd.readouterr()
    assert out == ""
    assert err in ("", "downloading Apache Kafka 4.3.1 (46 jars, 45 MB), once ...\n")


def test_a_data_dir_keeps_records_cluster_and_port_but_for_a_port_that_is_taken(tmp_path: Path):
    with EmbeddedBroker(tmp_path) as first:
        filled(first.bootstrap)
        meta = (tmp_path / "data" / "meta.properties").read_text()
    with EmbeddedBroker(tmp_path) as second:
        assert second.bootstrap == first.bootstrap
        assert consume(second.bootstrap) == [b"hello"]
        assert (tmp_path / "data" / "meta.properties").read_text() == meta
        port = int(second.bootstrap.partition(":")[2])
    with socket.create_server(("127.0.0.1", port)), EmbeddedBroker(tmp_path) as third:
        assert third.bootstrap != second.bootstrap
        assert consume(third.bootstrap) == [b"hello"]


def test_a_killed_broker_comes_back_at_its_address_with_its_acknowledged_records():
    broker = EmbeddedBroker().start()
    bootstrap = broker.bootstrap
    filled(bootstrap)
    broker.stop(kill=True)
    with broker:
        assert broker.bootstrap == bootstrap
        assert consume(bootstrap) == [b"hello"]


def test_a_data_dir_has_one_broker_and_starting_or_stopping_it_twice_changes_nothing(tmp_path: Path):
    broker = EmbeddedBroker(tmp_path)
    broker.stop()
    with broker:
        pid = broker.pid
        assert broker.start().pid == pid
        with pytest.raises(BrokerNotStarted, match="another broker runs in this data_dir"):
            EmbeddedBroker(tmp_path).start()
        assert (tmp_path / "port").read_text() == broker.bootstrap.partition(":")[2]
    broker.stop()


def test_a_temporary_broker_and_its_folder_go_with_a_parent_that_is_killed(owner):
    parent, pid, folder = owner(OWNER.format(arguments=""))
    assert not is_gone(pid)
    parent.kill()
    until("broker and folder are gone", lambda: is_gone(pid) and not folder.exists())


def test_a_kept_broker_stops_in_order_when_its_parent_is_killed(owner, tmp_path: Path):
    parent, pid, _ = owner(OWNER.format(arguments=repr(str(tmp_path))))
    parent.kill()
    until("the broker has ended", lambda: is_gone(pid))
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
    until("the broker has ended", lambda: is_gone(pid))


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
