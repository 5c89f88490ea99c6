import signal
import socket
import subprocess
import sys
from pathlib import Path

from e2e.programs import descendants, until

READING = """
import sys
from pathlib import Path

from clipper_agents.kafka.reader import Range
from clipper_agents.replay.log_reading import KafkaLog, read_tables
from clipper_agents.replay.span import PartitionSpan
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

log = KafkaLog(kafka=KafkaConnection(sys.argv[1]), catalogue=Catalogue(), application="app", loss_kind="zero_one")
span = PartitionSpan(partition=0, first=0, predictions=Range(0, 1), audits=Range(0, 0), feedback=Range(0, 0))
read_tables(log, [span], Path(sys.argv[2]), processes=1)
"""


def test_a_reading_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60.0)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", READING, address, str(tmp_path)]
        with (
            subprocess.Popen(command) as running,
            silent.accept()[0],
        ):  # of a worker, which waits for an answer of Kafka
            workers = descendants(running.pid)
            assert workers
            running.send_signal(signal.SIGKILL)
            running.wait()
            until("the workers have ended", lambda: not any(worker.runs for worker in workers))
