import msgspec
import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownError,
)
from builders.kafka import record as kafka_record

from clipper_agents.control.change_records import MOST_CHANGE_BYTES, Signature, is_committed, sign
from clipper_agents.control.errors import NoSuchRestore, UnusableState
from clipper_agents.control.plan import Plan, unsigned
from clipper_agents.control.restore import DeclaredRestore, to_undo
from clipper_agents.control.selection_states import (
    MOST_ROWS,
    SavedState,
    StateSnapshot,
    kept_rows,
    read_state,
    row_of,
    state_of,
    state_of_rows,
)
from clipper_agents.control.state import ControlState
from clipper_agents.control.writer import check_seen, interrupted
from clipper_agents.replay.evaluate import states_of
from clipper_agents.replay.refold import SelectionTable
from clipper_stream.selection.state import ModelTotals, SelectionState, merge
from clipper_topics.errors import UnknownRowVersion
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.restore import Restore
from clipper_topics.selection_rows import (
    ROW_VERSION,
    ModelTotalsRecord,
    RowKey,
    SavedRow,
    SelectionRow,
    decode_row,
    encode_key,
    encode_row,
    saved_rows,
    unsaved,
)


def record(key, offset, *, count=1, version=ROW_VERSION):
    totals = [ModelTotalsRecord("svm:1", float(count), 0.0, 0.0)]
    row = SelectionRow(version=version, offset=offset, applied=1, totals=totals)
    return kafka_record(0, encode_row(row), encode_key(key))


def test_of_the_rows_with_one_key_every_reader_takes_the_last():
    key = RowKey("digits", "ada", 0)
    log = [record(key, 5, count=1), record(key, 5, count=2)]
    totals = {"svm:1": (2.0, 0.0, 0.0, 0.0)}
    rest = [record(RowKey("", None, 0), 5), record(RowKey("other", None, 0), 5), kafka_record(0, b"no row", b"no key")]
    assert kept_rows([*log, *rest], ["digits"])["digits"] == [SavedRow(partition=0, context="ada", totals=totals)]
    table = SelectionTable(0)
    table.take(log)
    assert table.rows["digits", "ada"].totals[0].count == 2.0
    with pytest.raises(UnknownRowVersion):
        kept_rows([*log, record(key, 9, version=ROW_VERSION + 1)], ["digits"])


def test_a_saved_row_is_the_state_that_was_stored_with_its_moments():
    state = SelectionState(
        {"a:1": ModelTotals(0.1 + 0.2, 1e-300, 1 / 3, 7.0), "b:1": ModelTotals(1.0, 0.0, 1.0, 0.0, (0.1,) * 5)}
    )
    (saved,) = saved_rows({RowKey("digits", None, 2): decode_row(encode_row(row_of(state, 5, 2)))})
    assert state_of(unsaved(saved)) == state
    assert state_of_rows([saved, saved], None) == merge([state, state])


def test_what_a_policy_sees_is_the_sum_over_partitions_in_their_order():
    rows = [
        SavedRow(partition=1, totals={"b:1": (1.0, 0.0, 2.0, 0.0), "a:1": (2.0, 1.0, 2.0, 1.0)}),
        SavedRow(partition=0, totals={"a:1": (1.0, 1.0, 3.0, 2.0)}),
        SavedRow(partition=0, context="c", totals={"a:1": (9.0, 9.0, 9.0, 9.0)}),
    ]
    state = state_of_rows(rows, None)
    assert [*state.totals] == ["a:1", "b:1"]
    assert (state.of("a:1").weighted_count, state.of("a:1").weighted_loss) == (5.0, 3.0)
    assert state_of_rows(rows, "c").of("a:1").count == 9.0


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
    assert {name: len(rows) for name, rows in found.items()} == {"shop": 1, "nobody": 0}


# --- changes that keep them -------------------------------------------------------------------------------------------
BEFORE = ApplicationManifest(name="digits", models=["svm:1"], revision=3)


def declared():
    state = ControlState()
    state.manifests.applications["digits"] = BEFORE
    return state


def edited(rows):
    after = msgspec.structs.replace(BEFORE, loss="absolute")
    plan = Plan(changes=(unsigned(BEFORE, after, "update"),))
    return sign(plan, declared(), Signature(by="ada"), StateSnapshot(rows={"digits": rows}, feedback_ends=(1, 2)), 77)


def test_rows_are_left_out_of_a_change_that_they_would_make_too_large():
    row = SavedRow(partition=0, context="c" * 200, totals={"svm:1": (1.0, 1.0, 1.0, 1.0)})
    few, many = edited([row]).changes[0], edited([row] * (MOST_CHANGE_BYTES // 200)).changes[0]
    assert (few.rows, many.rows) == ([row], None)
    assert few.feedback_ends == many.feedback_ends == [1, 2]
    assert (few.revision, few.after.revision) == (4, 4)


def test_only_the_own_change_is_taken_for_one_that_was_written_after_all():
    """Two of one user in the same millisecond differ in what they made."""
    written = edited([])
    others = msgspec.structs.replace(written.changes[0], after=None)
    for changes, committed in (({}, False), ({4: written.changes[0]}, True), ({4: others}, False)):
        assert is_committed(written, ControlState(changes={"digits": changes})) is committed


def test_a_revision_that_was_seen_is_compared_with_that_of_the_manifest():
    check_seen({"digits": 0}, ControlState())
    check_seen({"digits": 3}, declared())


def behind(error):
    """As aiokafka's sender tells an error that it did not expect."""
    told = KafkaError("Unexpected error during batch delivery")
    told.__cause__ = error
    return told


def test_a_change_is_begun_again_where_nobody_knows_what_became_of_it():
    """Another writer may begin just while the transaction is being ended."""
    unknown = [behind(UnknownError()), UnknownError(), KafkaConnectionError(), TimeoutError()]
    refused = [behind(TopicAuthorizationFailedError()), TransactionalIdAuthorizationFailed()]
    assert [interrupted(error) for error in (*unknown, *refused)] == [True] * 4 + [False] * 2


# --- restores ---------------------------------------------------------------------------------------------------------
def restore(restore_id, application="app", before=(), undoes=None):
    rows = None if before is None else []
    said = Restore(application=application, at_ms=0, by="ada", digests={}, before=rows, undoes=undoes)
    return DeclaredRestore(restore_id, said, offset=0)


def test_the_newest_restore_is_undone_and_then_the_one_before():
    log = [restore("r-1"), restore("r-2"), restore("r-3", "other")]
    assert to_undo(log, "app").restore_id == "r-2"
    log.append(restore("r-4", undoes="r-2"))
    assert to_undo(log, "app").restore_id == "r-1"
    log.append(restore("r-5", undoes="r-1"))
    with pytest.raises(NoSuchRestore, match="no restore of app to undo"):
        to_undo(log, "app")
    with pytest.raises(NoSuchRestore, match=r"restore r-2 of app cannot be undone.*204800 bytes.*--from"):
        to_undo([restore("r-1"), restore("r-2", before=None)], "app")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "truncated"),
        ('{"application": "app"}', "missing required field `rows`"),
        ('{"application": "app", "rows": [{"partition": 0, "totals": {"a:1": [1]}}]}', "length 4"),
        ('{"application": "other", "rows": []}', "holds 'other', not app"),
    ],
)
def test_a_file_that_is_no_export_of_the_application_is_refused_with_what_to_give(tmp_path, text, said):
    file = tmp_path / "app.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UnusableState, match=f"{said}.*give"):
        read_state(file, "app")
