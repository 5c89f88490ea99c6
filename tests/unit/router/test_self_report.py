"""A router tells on the hosts topic that it serves, and what ails its machine, each time that changes."""

from types import SimpleNamespace

from clipper_agents.router import self_report
from clipper_agents.router.self_report import RouterReports


def test_a_full_disk_and_a_wrong_clock_are_told_once_and_taken_back(tmp_path, monkeypatch):
    written, free = [], 50e9
    monkeypatch.setattr(self_report, "free_bytes", lambda _: free)
    router = RouterReports(SimpleNamespace(put=written.append), "router-0", "127.0.0.1:9100", tmp_path)
    router.look(["no partition is assigned yet"], 0.0)
    for ahead_s in (0.0, 0.09, 3600.4, 3600.5):
        router.look([], ahead_s)
    free = 0.9e9
    router.look([], -0.2)
    free = 50e9
    router.look([], 0.0)
    assert [(one.model, one.instance, one.state, one.metrics) for one in written] == [
        ("", "router-0", state, "127.0.0.1:9100") for state in ("starting", "ready", "ready", "ready", "ready")
    ]
    assert written[0].reason == "no partition is assigned yet"
    assert [[line[:40] for line in one.problems] for one in written[1:]] == [
        [],
        ["its clock is 3600.4 s ahead of the broke"],
        [f"only 0.9 GB are free in {tmp_path}"[:40], "its clock is 0.2 s behind the broker's, "],
        [],
    ]
