"""Do records of a deployment, in any order and however wrong, say what is the case now?"""

import pytest
from builders.status import DIGITS, NOW_S, compared, facts, learn, report, row

from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, KEPT_EVENTS, DeploymentView
from clipper_topics import codec
from clipper_topics.comparison import comparison_key
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.selection_rows import ROW_VERSION, RowKey, SelectionRow, encode_key, encode_row


def test_totals_of_all_partitions_are_added_and_the_newest_of_one_counts() -> None:
    found = facts()
    assert found.state("digits").of("svm:1").count == 100.0
    learn(found, 1, {"svm:1": (41.0, 5.0)})
    svm = found.state("digits").of("svm:1")
    assert (svm.count, svm.loss, found.state("others").totals) == (101.0, 11.0, {})


def test_of_the_rows_of_a_context_the_last_counts() -> None:
    found = DeploymentView()
    for offset in (7, 9, 8):
        found.context(*row(0, {"svm:1": (float(offset), 0.0)}, "ada", offset))
    assert found.state("digits", "ada").of("svm:1").count == 8.0
    assert found.context_counts()["digits"] == 1


def test_rows_of_another_topic_or_a_newer_release_are_left_out() -> None:
    found = DeploymentView()
    found.context(*row(0, {"svm:1": (1.0, 0.0)}))
    found.totals(*row(0, {"svm:1": (1.0, 0.0)}, "ada"))
    newer = encode_row(SelectionRow(version=ROW_VERSION + 1, offset=7))
    found.totals(encode_key(RowKey("digits", None, 0)), newer)
    found.context(encode_key(RowKey("digits", "ada", 0)), newer)
    assert (found.published, found.contexts) == ({}, {})


def test_a_host_that_left_is_forgotten_and_so_is_a_manifest_that_is_withdrawn() -> None:
    found = facts()
    assert [one.state for one in found.hosts_of("svm:1")] == ["ready", "ready"]
    found.host(report_key("svm:1", "host.svm.1.0"), b"", at_s=NOW_S)
    assert [one.instance for one in found.hosts_of("svm:1")] == ["host.svm.1.1"]
    assert found.events[-1].text == "host host.svm.1.0 of svm:1 left"
    found.control(key_of(DIGITS), b"")
    assert found.declared.manifests.applications == {}


def test_the_last_comparison_of_a_version_counts_until_it_is_not_compared_any_more() -> None:
    found = DeploymentView()
    for ago_s, waits_for in ((20.0, "more feedback"), (10.0, "nothing")):
        one = compared("svm:2", waits_for)
        found.comparison(comparison_key("digits", "svm:2"), codec.comparisons.encode(one), at_s=NOW_S - ago_s)
    of = ("digits", "svm:2")
    assert found.comparisons[of].waits_for == "nothing"
    assert found.fresh_comparison(of, NOW_S) == found.comparisons[of]
    assert found.fresh_comparison(of, NOW_S + COMPARED_WITHIN_S) is None
    found.comparison(comparison_key("digits", "svm:3"), b"", at_s=NOW_S)
    found.comparison(comparison_key(*of), b"", at_s=NOW_S)
    assert (found.comparisons, found.compared_at_s, found.fresh_comparison(of, NOW_S)) == ({}, {}, None)


def test_addresses_of_metrics_are_those_that_hosts_report() -> None:
    found = facts()
    for instance, metrics in (("a", "127.0.0.1:1"), ("b", "127.0.0.1:1"), ("c", "10.0.0.2:9100"), ("d", None)):
        said = HostReport(model="svm:1", instance=instance, state="ready", metrics=metrics)
        found.host(report_key("svm:1", instance), codec.host_reports.encode(said))
    found.host(report_key("svm:1", "c"), b"")
    assert found.metrics_addresses == {"127.0.0.1:1"}


def test_changes_are_the_newest_first_also_when_they_are_read_in_another_order() -> None:
    found = DeploymentView()
    known = facts().changes_of("digits")
    for change in sorted(known, key=lambda one: one.revision % 3):
        found.control(change_key("digits", change.revision), codec.changes.encode(change))
    assert [change.revision for change in found.changes_of("digits")] == [4, 3, 2]


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff" * 20, b"[]", b'{"application": 3}'])
def test_a_record_that_cannot_be_read_changes_nothing(value: bytes | None) -> None:
    found = facts()
    before = (found.state("digits"), dict(found.hosts.reports), found.changes_of("digits"))
    for take, key in (
        (found.control, b"change/digits/9"),
        (found.control, b"restore/1"),
        (found.comparison, value),
        (found.comparison, b"digits/svm:2"),
        (found.totals, value),
        (found.context, value),
        (found.host, b"nobody"),
    ):
        take(key, value)
    assert (found.state("digits"), dict(found.hosts.reports), found.changes_of("digits")) == before
    assert list(found.declared.manifests.applications) == ["digits"]


def test_events_are_shown_once_as_plain_text_and_the_last_hundred_kept() -> None:
    found = DeploymentView()
    for number in range(KEPT_EVENTS + 5):
        report(found, "svm:1", f"host-{number}", "ready")
    assert len(found.events_since(0)) == KEPT_EVENTS
    seen = found.seen
    report(found, "svm:1", "host-0", "failed", "bad\x1b[2J\nmodel")
    assert [event.text for event in found.events_since(seen)] == ["host host-0 of svm:1 is failed: bad [2J model"]
    assert found.events_since(found.seen) == []
