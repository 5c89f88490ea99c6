"""Which restore is undone, and what a file of rows has to be."""

import pytest

from clipper_agents.control.errors import NoSuchRestore, UnusableState
from clipper_agents.control.restore import DeclaredRestore, to_undo
from clipper_agents.control.selection_states import read_state, state_of_rows
from clipper_topics.restore import Restore
from clipper_topics.selection_rows import SavedRow


def declared(restore_id, application="app", **changes):
    settings = dict(at_ms=0, by="ada", digests={}, before=[])
    return DeclaredRestore(restore_id, Restore(application=application, **(settings | changes)), offset=0)


def test_the_newest_restore_is_undone_and_then_the_one_before():
    log = [declared("r-1"), declared("r-2"), declared("r-3", "other")]
    assert to_undo(log, "app").restore_id == "r-2"
    log.append(declared("r-4", undoes="r-2"))
    assert to_undo(log, "app").restore_id == "r-1"
    log.append(declared("r-5", undoes="r-1"))
    with pytest.raises(NoSuchRestore, match="no restore of app to undo"):
        to_undo(log, "app")


def test_a_restore_with_too_many_rows_before_it_cannot_be_undone_or_skipped():
    with pytest.raises(NoSuchRestore, match=r"restore r-2 of app cannot be undone.*204800 bytes.*--from"):
        to_undo([declared("r-1"), declared("r-2", before=None)], "app")


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
    with pytest.raises(UnusableState, match=said) as refused:
        read_state(file, "app")
    assert "give" in str(refused.value)


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
