"""Which rows of the selection changelog a change keeps."""

from types import SimpleNamespace

import msgspec

from clipper_agents.control import state_snapshots as moments
from clipper_agents.control.change_records import MOST_CHANGE_BYTES, Signature, is_there, signed
from clipper_agents.control.plan import Edit, Plan
from clipper_agents.control.state import ControlState
from clipper_agents.control.state_snapshots import Moment, saved_rows
from clipper_agents.control.writer import check_seen
from clipper_topics.change import SavedRow
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow


def record(key, offset, *, version=ROW_VERSION):
    row = SelectionRow(
        version=version, offset=offset, applied=1, totals=[ModelTotalsRecord("svm:1", float(offset), 0.0, 0.0)]
    )
    return SimpleNamespace(key=msgspec.msgpack.encode(key), value=msgspec.msgpack.encode(row))


def test_the_row_of_the_latest_feedback_counts_in_whatever_order_they_were_written():
    key = RowKey("digits", None, 0)
    found = saved_rows([record(key, 5), record(key, 3), record(key, 9, version=ROW_VERSION + 1)], ["digits"])
    assert found == {"digits": [SavedRow(partition=0, totals={"svm:1": (5.0, 0.0, 0.0, 0.0)})]}


def test_an_application_with_too_many_contexts_keeps_none_and_others_keep_theirs():
    many = [record(RowKey("digits", f"c{number}", 0), 1) for number in range(moments.MOST_ROWS + 1)]
    found = saved_rows([*many, record(RowKey("shop", "a", 1), 1)], ["digits", "shop", "nobody"])
    assert "digits" not in found
    assert (len(found["shop"]), found["nobody"]) == (1, [])


def edited(rows):
    before = ApplicationManifest(name="digits", models=["svm:1"], revision=3)
    after = ApplicationManifest(name="digits", models=["svm:1"], loss="absolute", revision=3)
    plan = Plan(edits=(Edit(application="digits", command="update", before=before, after=after),))
    state = ControlState()
    state.manifests.applications["digits"] = before
    return signed(plan, state, Signature(by="ada"), Moment(rows={"digits": rows}, feedback_ends=(1, 2)), 77)


def test_rows_are_left_out_of_a_change_that_they_would_make_too_large():
    row = SavedRow(partition=0, context="c" * 200, totals={"svm:1": (1.0, 1.0, 1.0, 1.0)})
    few, many = edited([row]).changes[0], edited([row] * (MOST_CHANGE_BYTES // 200)).changes[0]
    assert (few.rows, many.rows) == ([row], None)
    assert few.feedback_ends == many.feedback_ends == [1, 2]
    assert (few.revision, few.after.revision) == (4, 4)


def test_only_the_own_change_is_taken_for_one_that_was_written_after_all():
    """Two of one user in the same millisecond differ in what they made."""
    written = edited([])
    state = ControlState()
    assert not is_there(written, state)
    state.changes["digits"] = {4: written.changes[0]}
    assert is_there(written, state)
    state.changes["digits"] = {4: msgspec.structs.replace(written.changes[0], after=None)}
    assert not is_there(written, state)


def test_a_revision_that_was_seen_is_compared_with_that_of_the_manifest():
    state = ControlState()
    check_seen({"digits": 0}, state)
    state.manifests.applications["digits"] = ApplicationManifest(name="digits", models=["svm:1"], revision=3)
    check_seen({"digits": 3}, state)
