import socket
from types import SimpleNamespace

import pytest

from clipper_agents.control.host_reports import address_of
from clipper_agents.host.self_report import SelfReports
from clipper_topics.manifests import ModelManifest


def test_each_report_has_the_address_of_the_metrics_until_the_last():
    written = []
    reports = SimpleNamespace(put=written.append, close=lambda _: None)
    host = SelfReports(reports, ModelManifest(name="svm", version="2", uri="shop:svm"), "h0", "127.0.0.1:9100")
    host.say("starting")
    host.say("ready")
    host.fails("out of memory")
    host.say("ready")
    assert [(one.state, one.metrics) for one in written] == [
        ("starting", "127.0.0.1:9100"),
        ("ready", "127.0.0.1:9100"),
        ("failed", "127.0.0.1:9100"),
    ]


@pytest.mark.parametrize("listens_on", ["", "0.0.0.0", "::"])
def test_what_listens_on_all_addresses_is_found_by_the_name_of_its_machine(listens_on):
    assert address_of(listens_on, 9100) == f"{socket.gethostname()}:9100"
