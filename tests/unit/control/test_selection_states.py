"""Selection states: one codec for rows as they are stored, saved, kept by a change and evaluated from."""

import msgspec
import pytest
from builders.kafka import record as kafka_record

from clipper_agents.control.change_records import MOST_CHANGE_BYTES, Signature, is_committed, sign
from clipper_agents.control.plan import Edit, Plan
from clipper_agents.control.selection_states import (
    MOST_ROWS,
    SavedState,
    StateSnapshot,
    kept_rows,
    row_of,
    state_of,
    state_of_rows,
)
from clipper_agents.control.state import ControlState
from clipper_agents.control.writer import check_seen
from clipper_agents.replay.checkpoints import Checkpoints
from clipper_agents.replay.evaluate import states_of
from clipper_agents.status.deployment_view import DeploymentView
from clipper_stream.selection.state import ModelTotals, SelectionState, merge
from clipper_topics.errors import UnknownRowVersion
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.selection_rows import (
    ROW_VERSION,
    ModelTotalsRecord,
    RowKey,
    SavedRow,
    SelectionRow,
    encode_key,
    encode_row,
    saved_rows,
    unsaved,
)


def record(key, offset, *, count=None, version=ROW_VERSION):
    sums = ModelTotalsRecord("svm:1", float(offset if count is None else count), 0.0, 0.0)
    row = SelectionRow(version=version, offset=offset, applied=1, totals=[sums])
    return kafka_record(0, encode_row(row), encode_key(key))


def totals(count):
    return {"svm:1": (float(count), 0.0, 0.0, 0.0)}


def test_a_row_of_a_newer_release_is_refused():
    key = RowKey("digits", None, 0)
    with pytest.raises(UnknownRowVersion):
        kept_rows([record(key, 3), record(key, 9, version=ROW_VERSION + 1)], ["digits"])


def test_of_the_rows_with_one_key_every_reader_takes_the_last():
    """As the routers' table does, and Kafka's compaction."""
    key = RowKey("digits", "ada", 0)
    log = [record(key, 5, count=1), record(key, 5, count=2)]

    assert kept_rows(log, ["digits"])["digits"] == [SavedRow(partition=0, context="ada", totals=totals(2))]
    checkpoints, shown = Checkpoints(0), DeploymentView()
    for one in log:
        checkpoints.take(one)
        shown.context(one.key, one.value)
    assert checkpoints.live["digits", "ada"].totals[0].count == 2.0
    assert shown.state("digits", "ada").of("svm:1").count == 2.0


def test_a_saved_row_is_the_state_that_was_stored_with_its_moments():
    state = SelectionState(
        {"a:1": ModelTotals(0.1 + 0.2, 1e-300, 1 / 3, 7.0), "b:1": ModelTotals(1.0, 0.0, 1.0, 0.0, (0.1,) * 5)}
    )
    (saved,) = saved_rows({RowKey("digits", None, 2): row_of(state, 5, 2)})
    assert state_of(unsaved(saved)) == state
    assert state_of_rows([saved, saved], None) == merge([state, state])


def test_evaluation_begins_with_the_moments_of_an_exported_state(tmp_path):
    """Else a policy that looks at features is judged as if it had learned nothing of them."""
    learned = SelectionState({"a:1": ModelTotals(3.0, 1.0, 3.0, 1.0, (3.0, 1.0, 0.5, 2.0, 0.25))})
    rows = saved_rows({RowKey("digits", "ada", 1): row_of(learned, 5, 3)})
    file = tmp_path / "state.json"
    file.write_bytes(msgspec.json.encode(SavedState(application="digits", rows=rows)))
    assert states_of(file, "digits") == {("ada", 1): learned}


def test_an_application_with_too_many_contexts_keeps_none_and_others_keep_theirs():
    many = [record(RowKey("digits", f"c{number}", 0), 1) for number in range(MOST_ROWS + 1)]
    found = kept_rows([*many, record(RowKey("shop", "a", 1), 1)], ["digits", "shop", "nobody"])
    assert "digits" not in found
    assert (len(found["shop"]), found["nobody"]) == (1, [])


def edited(rows):
    before = ApplicationManifest(name="digits", models=["svm:1"], revision=3)
    after = ApplicationManifest(name="digits", models=["svm:1"], loss="absolute", revision=3)
    plan = Plan(edits=(Edit(application="digits", command="update", before=before, after=after),))
    state = ControlState()
    state.manifests.applications["digits"] = before
    return sign(plan, state, Signature(by="ada"), StateSnapshot(rows={"digits": rows}, feedback_ends=(1, 2)), 77)


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
    assert not is_committed(written, state)
    state.changes["digits"] = {4: written.changes[0]}
    assert is_committed(written, state)
    state.changes["digits"] = {4: msgspec.structs.replace(written.changes[0], after=None)}
    assert not is_committed(written, state)


def test_a_revision_that_was_seen_is_compared_with_that_of_the_manifest():
    state = ControlState()
    check_seen({"digits": 0}, state)
    state.manifests.applications["digits"] = ApplicationManifest(name="digits", models=["svm:1"], revision=3)
    check_seen({"digits": 3}, state)
