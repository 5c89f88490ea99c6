"""Whoever reports never waits for a broker."""

import time

from clipper_agents.broker.properties import free_port
from clipper_agents.control.host_reports import HostReports, one_line
from clipper_topics.connection import KafkaConnection
from clipper_topics.host_report import HostReport


def test_while_no_broker_is_there_reports_wait_and_nobody_for_them():
    reports = HostReports(KafkaConnection(bootstrap=f"127.0.0.1:{free_port()}"), "hosts")
    began_s = time.monotonic()
    for number in range(1000):
        reports.put(HostReport(model="svm:1", instance="a", state="ready", at_ms=number))
    assert time.monotonic() - began_s < 5.0
    assert not reports.wait_written(within_s=0.01)
    assert len(reports._newest) == 1, "of one host only the newest is kept"
    assert not reports.close(within_s=0.1)
    reports._thread.join(10.0)
    assert not reports._thread.is_alive(), "it tries no more"


def test_a_reason_is_one_line_of_bounded_length():
    assert one_line("a\nb\tc") == "a b c"
    assert len(one_line("word " * 1000)) <= 500
    assert one_line("") == "no reason was given"
