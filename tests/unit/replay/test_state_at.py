import pytest
from unit.replay.deployment import HORIZON_MS, SAVED, START_MS, Deployment, manifest, state

from clipper_agents.control.errors import UnusableState
from clipper_topics.selection_rows import POSITION, RowKey, note_row, saved_rows

FORGETS = manifest(half_life=2.0)
MINUTE_MS = 60_000


def rows_now(at):
    return saved_rows({RowKey(*place): row for place, row in at.rows.items() if place[0] == "app" and row.totals})


# What happened, of when the state is wanted, and what leads to the same one.
STATES = {
    "before an offset, learned one by one": (lambda at: at.work(20), dict(ends={0: 7}), lambda at: at.work(7)),
    "before an offset, within a step": (lambda at: at.work(20, every=5), dict(ends={0: 7}), lambda at: at.work(7)),
    "a partition that is not named counts whole": (
        lambda at: at.work(6).work(4, partition=1, first=50), dict(ends={1: 4}),
        lambda at: at.work(6).work(4, partition=1, first=50)),
    "before a time": (lambda at: at.work(5).wait(MINUTE_MS).work(5, first=20), dict(at_ms=START_MS + MINUTE_MS),
        lambda at: at.work(5)),
    "behind all": (lambda at: at.work(5).wait(MINUTE_MS).work(5, first=20), dict(at_ms=START_MS + 2 * MINUTE_MS),
        lambda at: at.work(5).work(5, first=20)),
    "before the beginning": (lambda at: at.work(5), dict(at_ms=START_MS - 1), lambda at: at),
    "behind the table": (lambda at: at.work(5).work(3, first=20, every=0), dict(ends={0: 8}),
                         lambda at: at.work(5).work(3, first=20)),
    "a half-life that changed within a step": (
        lambda at: at.work(4).declare(FORGETS).work(6, first=20, every=0).follow().learn(most=3).learn(),
        dict(ends={0: 7}),
        lambda at: at.work(4).declare(FORGETS).work(6, first=20, every=0).follow().learn(most=3)),
    "a half-life that changed behind it": (
        lambda at: at.work(4).declare(FORGETS).work(6, first=20, every=0).learn(most=3).follow().learn(),
        dict(ends={0: 6}), lambda at: at.work(4).work(2, first=20)),
    "before a restore": (
        lambda at: at.work(4).restore(SAVED).learn().work(2, first=50), dict(ends={0: 4}), lambda at: at.work(4)),
    "behind a restore": (lambda at: at.work(4).restore(SAVED).learn().work(2, first=50), dict(ends={0: 5}),
        lambda at: at.restore(SAVED).learn()),
    "behind logs that were deleted": (lambda at: at.age(10, 20), dict(ends={0: 30}), lambda at: at.age(10, 20)),
    **{
        f"the contexts that were remembered before {offset}": (
            lambda at: at.work(2, context="a").work(2, first=10, context="b").forget(2).work(2, first=20, context="c"),
            dict(ends={0: offset}), happened,
        )
        for offset, happened in {
            3: lambda at: at.work(2, context="a").work(1, first=10, context="b"),
            4: lambda at: at.work(2, context="a").work(2, first=10, context="b"),
            6: lambda at: at.work(2, first=10, context="b").work(2, first=20, context="c"),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize(("happened", "upto", "before"), STATES.values(), ids=STATES)
def test_a_state_of_then_is_what_was_learned_then(happened, upto, before):
    assert state(happened(Deployment()), **upto).rows == rows_now(before(Deployment()))


def test_the_ends_of_a_state_are_said():
    assert state(Deployment().work(9), ends={0: 7}).ends == (7, 0)


REFUSED = {
    "an offset that is not in the log": (lambda at: at.work(4), {0: 5}, "goes from 0 to 4"),
    "no partition": (lambda at: at.work(4), {7: 0}, r"partitions \[7\]"),
    "deleted logs": (lambda at: at.age(10, 20), {0: 9}, "from offset 10 on"),
    "a row that deleted logs led to": (lambda at: at.age(10, 20).work(1, first=99, context="c"), {0: 30}, "not known"),
    "a table whose beginning was deleted": (
        lambda at: at.work(4).wait(HORIZON_MS + 1).ask("late").tell("late").tell("late").delete_before(3), {0: 6},
        "not known"),
}  # fmt: skip


@pytest.mark.parametrize(("happened", "ends", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_state_that_the_logs_do_not_tell_is_refused(happened, ends, reason):
    with pytest.raises(UnusableState, match=reason):
        state(happened(Deployment()), ends=ends)


def test_rows_that_were_not_what_the_logs_lead_to_are_told_and_not_restored():
    at = Deployment().work(6)
    good = rows_now(at)
    at.put(("app", "nobody"), at.rows["app", None, 0]).put(POSITION, note_row(6)).tell("nobody").tell("nobody")
    found = state(at, ends={0: 7})
    assert found.rows == good
    assert [one.context for one in found.partings] == ["nobody"]
