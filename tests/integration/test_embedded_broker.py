import asyncio
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders.greetings import consume, create, produce
from e2e.programs import is_gone, until

from clipper_agents.broker import BrokerNotStarted, EmbeddedBroker
from clipper_agents.broker.properties import free_port


def filled(bootstrap):
    create(bootstrap)
    produce(bootstrap)


def test_a_broker_in_an_event_loop_serves_says_nothing_and_leaves_nothing_behind(capfd):
    """Ports that others were faster to take are replaced."""
    with socket.create_server(("127.0.0.1", 0)) as faster:
        taken = faster.getsockname()[1]
        ports = iter([taken, free_port(), free_port(), taken])

        async def inside():
            with EmbeddedBroker(ports=lambda: next(ports, None) or free_port()) as broker:
                filled(broker.bootstrap)
                assert consume(broker.bootstrap) == [b"hello"]
                assert broker.bootstrap != f"127.0.0.1:{taken}"
                assert broker.log_file.read_text().count("Address already in use") >= 2
                pid, folder = broker.pid, broker.log_file.parent
            assert broker.pid is None
            return pid, folder

        pid, folder = asyncio.run(inside())
    assert is_gone(pid)
    assert not folder.exists()
    out, err = capfd.readouterr()
    said = [line for line in err.splitlines() if not line.startswith("%")]  # librdkafka's, of a client of other tests
    assert out == ""
    assert said in ([], ["downloading Apache Kafka 4.3.1 (46 jars, 45 MB), once ..."])


def test_a_data_dir_has_one_broker_and_keeps_records_cluster_and_address(tmp_path):
    meta = tmp_path / "data" / "meta.properties"
    broker = EmbeddedBroker(tmp_path)
    broker.stop()
    with broker:
        bootstrap, pid, cluster = broker.bootstrap, broker.pid, meta.read_text()
        filled(bootstrap)
        assert (tmp_path / "port").read_text() == bootstrap.partition(":")[2]
        assert broker.start().pid == pid, "twice changes nothing"
        with pytest.raises(BrokerNotStarted, match="another broker runs in this data_dir"):
            EmbeddedBroker(tmp_path).start()
        broker.stop(kill=True)
        assert broker.start().bootstrap == bootstrap
        assert consume(bootstrap) == [b"hello"]
        assert meta.read_text() == cluster
    broker.stop()
    port = int(bootstrap.partition(":")[2])
    with socket.create_server(("127.0.0.1", port)), EmbeddedBroker(tmp_path) as moved:
        assert moved.bootstrap != bootstrap
        assert consume(moved.bootstrap) == [b"hello"]


OWNER = """
import sys, threading
from clipper_agents.broker import EmbeddedBroker
broker = EmbeddedBroker(*sys.argv[1:])
thread = threading.Thread(target=broker.start)
thread.start(); thread.join()
print(broker.pid, broker.log_file.parent, flush=True)
sys.stdin.readline()
print(broker.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(*arguments):
    """A process whose thread has started a broker and ended; with the broker's pid and its folder."""
    command = [sys.executable, "-c", OWNER, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        pid, folder = process.stdout.readline().split()
        yield process, int(pid), Path(folder)
        process.kill()


def test_a_temporary_broker_and_its_folder_go_with_a_parent_that_is_killed():
    with owner() as (parent, pid, folder):
        assert not is_gone(pid)
        parent.kill()
        until("broker and folder are gone", lambda: is_gone(pid) and not folder.exists())


def test_a_kept_broker_outlives_the_thread_that_started_it_and_stops_in_order_when_its_parent_is_killed(tmp_path):
    with owner(tmp_path) as (parent, pid, _):
        parent.stdin.write("are you there?\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == f"{pid}\n"
        assert os.getsid(pid) != os.getsid(parent.pid), "Ctrl-C in a terminal does not reach it"
        parent.kill()
        until("the broker has ended", lambda: is_gone(pid))
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()


def test_a_given_port_that_is_taken_is_an_error_that_names_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as faster:
        port = faster.getsockname()[1]
        with pytest.raises(BrokerNotStarted, match=f"port {port} of 127.0.0.1 is taken: give another one, or none"):
            EmbeddedBroker(tmp_path, port).start()


def test_a_setting_that_kafka_refuses_is_given_back_in_one_line_with_the_log(tmp_path):
    broker = EmbeddedBroker(tmp_path, extra_properties={"num.io.threads": 0})
    with pytest.raises(BrokerNotStarted) as raised:
        broker.start()
    (line,) = str(raised.value).splitlines()
    assert "num.io.threads" in line
    assert str(broker.log_file) in line
    assert "num.io.threads" in broker.log_file.read_text()
