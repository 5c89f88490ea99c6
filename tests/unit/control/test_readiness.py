"""Which versions may be asked, as hosts say on the hosts topic."""

import pytest
from builders.kafka import record

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.router.applications import ApplicationRegistry
from clipper_topics import codec
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def said(state, model="m:1", instance="h0"):
    report = HostReport(model=model, instance=instance, state=state)
    return record(0, codec.host_reports.encode(report), report_key(model, instance), "hosts")


def gone(model="m:1", instance="h0"):
    return record(0, None, report_key(model, instance), "hosts")


@pytest.mark.parametrize("state", ["starting", "failed", "draining"])
def test_only_a_host_that_serves_makes_its_version_ready(state):
    hosts = ReadyHosts()
    assert not hosts.take([said(state)])
    assert not hosts.is_ready("m:1")
    assert hosts.take([said("ready")])
    assert hosts.is_ready("m:1")
    assert not hosts.is_ready("n:1")


@pytest.mark.parametrize("after", [said("draining"), said("failed"), said("starting"), gone()])
def test_a_version_that_was_ready_stays_so_while_its_hosts_come_and_go(after):
    hosts = ReadyHosts()
    hosts.take([said("ready")])
    assert hosts.hosts("m:1") == 1
    hosts.take([after])
    assert (hosts.hosts("m:1"), hosts.is_ready("m:1")) == (0, True)


def test_a_forgotten_version_is_ready_again_when_a_host_says_so():
    """It was forgotten while a host was leaving, and then taken for ready for ever: its queries had the default."""
    hosts = ReadyHosts()
    hosts.take([said("ready"), said("ready", instance="h1"), gone()])
    hosts.forget("m:1")
    assert hosts.is_ready("m:1"), "h1 serves on"
    assert hosts.take([gone(instance="h1")]), "applications are to be resolved again"
    assert not hosts.is_ready("m:1")
    assert hosts.take([said("ready")])
    assert hosts.is_ready("m:1")


def test_a_record_that_is_no_report_or_speaks_of_another_host_is_ignored_and_told(caplog):
    hosts = ReadyHosts()
    value = said("ready", "n:1").value
    junk = [
        record(0, b"{", b"m:1/h0"),
        record(1, value, b"m:1/h0"),
        record(2, value, None),
        record(3, b"\xff", b"\xff"),
        record(4, b'{"model": "m:1", "instance": "h0", "state": "fine"}', b"m:1/h0"),
    ]
    assert not hosts.take(junk)
    assert not any(hosts.is_ready(ref) for ref in ("m:1", "n:1"))
    assert len([one for one in caplog.records if one.getMessage() == "host report ignored"]) == len(junk)
    assert hosts.take([said("ready")])


def test_a_thousand_versions_that_came_and_went_leave_no_state():
    hosts = ReadyHosts()
    for number in range(1000):
        hosts.take([said("ready", f"m:{number}"), gone(f"m:{number}")])
        hosts.forget(f"m:{number}")
    assert (hosts._hosts.reports, hosts._serving, hosts._once) == ({}, {}, set())


def registry_of(hosts):
    manifests = [
        (ModelManifest(name="m", uri="x:y"), b"model/m:1"),
        (ModelManifest(name="c", uri="x:y", colocated=True), b"model/c:1"),
        (ApplicationManifest(name="app", models=["m:1", "c:1"]), b"application/app"),
    ]
    registry = ApplicationRegistry(ready=hosts.is_ready, allowed=["x:"])
    registry.take([record(0, (codec.models if b"model" in key else codec.applications).encode(one), key, "control")
                   for one, key in manifests])  # fmt: skip
    registry.reached("m:1")
    registry.reached("c:1")
    return registry


def test_a_hosted_version_waits_for_a_ready_host_a_colocated_one_does_not():
    hosts = ReadyHosts()
    registry = registry_of(hosts)
    assert registry.application("app").refs == ("c:1",)
    assert hosts.take([said("ready")])
    registry.resolve()
    assert registry.application("app").refs == ("m:1", "c:1")


def test_a_retired_or_withdrawn_version_is_no_candidate_from_then_on_and_leaves():
    hosts = ReadyHosts()
    registry = registry_of(hosts)
    hosts.take([said("ready")])
    retired = codec.models.encode(ModelManifest(name="m", uri="x:y", retired=True))
    registry.take([record(1, retired, b"model/m:1", "control")])
    assert registry.application("app").refs == ("c:1",)
    assert (registry.leaving, registry.unreached) == (["m:1"], [])
    registry.take([record(2, None, b"model/c:1", "control")])
    assert registry.application("app").refs == ()
    assert registry.leaving == ["m:1", "c:1"]
    registry.left("m:1")
    assert registry.leaving == ["c:1"]
    back = codec.models.encode(ModelManifest(name="m", uri="x:y"))
    registry.take([record(3, back, b"model/m:1", "control")])
    assert [one.ref for one in registry.unreached] == ["m:1"], "it has to be reached anew"


def test_a_version_that_moves_from_hosts_into_the_router_leaves_first():
    hosts = ReadyHosts()
    registry = registry_of(hosts)
    hosts.take([said("ready")])
    moved = codec.models.encode(ModelManifest(name="m", uri="x:y", colocated=True))
    registry.take([record(1, moved, b"model/m:1", "control")])
    assert registry.application("app").refs == ("c:1",)
    assert registry.leaving == ["m:1"]
