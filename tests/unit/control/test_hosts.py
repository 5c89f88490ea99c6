import pytest
from builders.kafka import record

from clipper_agents.control.host_reports import HostReports, one_line
from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.router.applications import ApplicationRegistry
from clipper_topics import codec
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import key_of
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def said(state, model="m:1", instance="h0"):
    """A record of a report; None: the host has left."""
    report = HostReport(model=model, instance=instance, state=state or "draining")
    return record(0, codec.host_reports.encode(report) if state else None, report_key(model, instance), "hosts")


@pytest.mark.parametrize("other", ["starting", "failed", "draining", None])
def test_a_version_is_ready_once_a_host_serves_and_stays_so_while_its_hosts_come_and_go(other):
    hosts = ReadyHosts()
    assert not hosts.take([said(other)])
    assert not hosts.is_ready("m:1")
    assert hosts.take([said("ready")])
    assert (hosts.hosts("m:1"), hosts.is_ready("m:1"), hosts.is_ready("n:1")) == (1, True, False)
    hosts.take([said(other)])
    assert (hosts.hosts("m:1"), hosts.is_ready("m:1")) == (0, True)


def test_a_forgotten_version_is_ready_again_when_a_host_says_so():
    """It was forgotten while a host was leaving, and then taken for ready for ever: its queries had the default."""
    hosts = ReadyHosts()
    hosts.take([said("ready"), said("ready", instance="h1"), said(None)])
    hosts.forget("m:1")
    assert hosts.is_ready("m:1"), "h1 serves on"
    assert hosts.take([said(None, instance="h1")]), "applications are to be resolved again"
    assert not hosts.is_ready("m:1")
    assert hosts.take([said("ready")])
    assert hosts.is_ready("m:1")


def test_a_record_that_is_no_report_or_speaks_of_another_host_is_ignored_and_told(caplog):
    hosts, value = ReadyHosts(), said("ready", "n:1").value
    junk = [
        record(0, b"{", b"m:1/h0"),
        record(1, value, b"m:1/h0"),
        record(2, value, None),
        record(3, b"\xff", b"\xff"),
        record(4, b'{"model": "m:1", "instance": "h0", "state": "fine"}', b"m:1/h0"),
    ]
    assert not hosts.take(junk)
    assert not any(hosts.is_ready(ref) for ref in ("m:1", "n:1"))
    assert [one.getMessage() for one in caplog.records] == ["host report ignored"] * len(junk)
    assert hosts.take([said("ready")])


def test_a_thousand_versions_that_came_and_went_leave_no_state():
    hosts = ReadyHosts()
    for number in range(1000):
        hosts.take([said("ready", f"m:{number}"), said(None, f"m:{number}")])
        hosts.forget(f"m:{number}")
    assert (hosts._hosts.reports, hosts._serving, hosts._once) == ({}, {}, set())


# --- applications -----------------------------------------------------------------------------------------------------
M, C = ModelManifest(name="m", uri="x:y"), ModelManifest(name="c", uri="x:y", colocated=True)


def declared(manifest):
    kind = codec.applications if isinstance(manifest, ApplicationManifest) else codec.models
    return record(0, kind.encode(manifest), key_of(manifest), "control")


@pytest.fixture
def hosts():
    return ReadyHosts()


@pytest.fixture
def registry(hosts):
    found = ApplicationRegistry(ready=hosts.is_ready, allowed=["x:"])
    found.take([declared(one) for one in (M, C, ApplicationManifest(name="app", models=["m:1", "c:1"]))])
    found.reached("m:1")
    found.reached("c:1")
    return found


def refs(registry):
    return registry.applications["app"].refs


def test_a_retired_or_withdrawn_version_is_no_candidate_from_then_on_and_leaves(hosts, registry):
    hosts.take([said("ready")])
    registry.take([declared(ModelManifest(name="m", uri="x:y", retired=True))])
    assert (refs(registry), registry.leaving, registry.unreached) == (("c:1",), ["m:1"], [])
    registry.take([record(2, None, b"model/c:1", "control")])
    assert (refs(registry), registry.leaving) == ((), ["m:1", "c:1"])
    registry.left("m:1")
    assert registry.leaving == ["c:1"]
    registry.take([declared(M)])
    assert [one.ref for one in registry.unreached] == ["m:1"], "it has to be reached anew"


def test_a_version_that_moves_from_hosts_into_the_router_leaves_first(hosts, registry):
    hosts.take([said("ready")])
    registry.take([declared(ModelManifest(name="m", uri="x:y", colocated=True))])
    assert (refs(registry), registry.leaving) == (("c:1",), ["m:1"])


# --- reports ----------------------------------------------------------------------------------------------------------
def test_while_no_broker_is_there_reports_wait_and_nobody_for_them():
    reports = HostReports(KafkaConnection(bootstrap="127.0.0.1:1"), "hosts")
    for number in range(1000):
        reports.put(HostReport(model="svm:1", instance="a", state="ready", at_ms=number))
    assert not reports.wait_written(within_s=0.01)
    assert len(reports._due) == 1, "of one host only the newest is kept"
    assert not reports.close(within_s=0.1)
    reports._thread.join(10.0)
    assert not reports._thread.is_alive(), "it tries no more"


def test_a_reason_is_one_line_of_bounded_length():
    assert [one_line(text) for text in ("a\nb\tc", "")] == ["a b c", ""]
    assert len(one_line("word " * 1000)) <= 500
