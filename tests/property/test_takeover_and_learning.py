"""Takeover and learning in every order that small sizes permit: at any time the rows are what the logs say.

The model is `takeover.actions`. It leaves out audits, feedback that is forwarded, restored weights, and what happens
between partitions. `pytest -rP` shows how many states were looked at, and the way to each wrong one.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache

import pytest
from takeover.actions import settled, successors
from takeover.explore import Exploration, explore
from takeover.state import (
    LOGS,
    Age,
    Feedback,
    Phase,
    Prediction,
    Query,
    Router,
    Rules,
    Sizes,
    Table,
    World,
    compacted,
    content,
    expected,
    table_of,
)

RULES = Rules()
NOTHING_YET = World()
TWO_ANSWERED = World(
    queries=(Query(0), Query(1)),
    predictions=(Prediction(0, 0, 0), Prediction(1, 1, 1)),
    feedback=(Feedback(0), Feedback(1), Feedback(0)),
    committed=2,
    answered=2,
    routers=(Router(ages=(Age(0, (0, 1), upto=1),), phase=Phase.RUNNING, epoch=0, read=2), Router()),
)
"""Feedback about two queries is unread; the last of it is a repetition, so its step writes a position and no row."""
FAR_BEHIND = World(
    now=4,
    queries=(Query(0),),
    predictions=(Prediction(0, 0, 0),),
    feedback=(Feedback(0, at=1),),
    committed=1,
    answered=1,
    routers=(Router(ages=(Age(0, (0,), upto=0),), phase=Phase.RUNNING, epoch=0, read=1), Router()),
)
"""Feedback that came in time is unread for three horizons; a query of the same id is another one now."""
WRITERS = Sizes(ids=2, queries=2, feedback=3, ticks=0)
Wrong = Callable[[World, Rules], str | None]


def explored(start: World, sizes: Sizes, rules: Rules, wrong: Wrong) -> Exploration:
    return explore(start, lambda world: successors(world, rules, sizes), lambda world: wrong(world, rules))


def differs(world: World, rules: Rules) -> str | None:
    """How a table that is restored from nothing, before or after compaction, differs from the fold of the logs."""
    return restored_differs(world, rules) or restored_differs(
        world._replace(changelog=compacted(world.changelog)), rules
    )


def restored_differs(world: World, rules: Rules) -> str | None:
    table = table_of(world.changelog, Table(), world.end, rules)
    found, wanted = content(table.row), expected(world.predictions, world.feedback[: table.position + 1])
    return None if found == wanted else f"at feedback {table.position} the row says {found}, the logs say {wanted}"


def differs_now_or_in_the_end(world: World, rules: Rules) -> str | None:
    """The same, of this state, and of the one in which all feedback of this state has been read."""
    lost = world._replace(epoch=0, answered=world.committed, requests=frozenset(), routers=(Router(), Router()))
    return differs(world, rules) or differs_in_the_end(lost, rules)


@cache
def differs_in_the_end(world: World, rules: Rules) -> str | None:
    end = settled(world, rules)
    position = table_of(end.changelog, Table(), end.end, rules).position
    return differs(end, rules) if position + 1 == len(end.feedback) else f"feedback {position + 1} is never read"


# --- as it is ---------------------------------------------------------------------------------------------------------
SLOW, LONG = pytest.mark.slow, [pytest.mark.long, pytest.mark.timeout(3600)]
TRUE = [
    pytest.param(NOTHING_YET, Sizes(), id="from nothing"),
    pytest.param(TWO_ANSWERED, WRITERS._replace(takeovers=3), id="two writers"),
    pytest.param(FAR_BEHIND, Sizes(queries=2, feedback=2, ticks=4), id="far behind"),
    pytest.param(NOTHING_YET, Sizes(ticks=3), marks=SLOW, id="from nothing, three ticks"),
    pytest.param(FAR_BEHIND, Sizes(queries=2, feedback=2, ticks=4, takeovers=2), marks=SLOW, id="far behind, twice"),
    pytest.param(NOTHING_YET, Sizes(feedback=3, ticks=3), marks=LONG, id="three feedbacks"),
    pytest.param(NOTHING_YET, Sizes(takeovers=2), marks=LONG, id="two takeovers"),
    pytest.param(NOTHING_YET, Sizes(queries=2, ticks=3), marks=LONG, id="a query twice"),
    pytest.param(FAR_BEHIND, Sizes(queries=2, feedback=3, ticks=6), marks=LONG, id="far behind, six ticks"),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("start", "sizes"), TRUE)
def test_in_every_order_the_rows_are_what_the_logs_say(start: World, sizes: Sizes) -> None:
    found = explored(start, sizes, RULES, differs_now_or_in_the_end)
    sys.stdout.write(str(found))
    assert found.wrong is None, str(found)


# --- without one of the rules -----------------------------------------------------------------------------------------
def believed(log: str) -> Rules:
    """A router takes any end of a log for true that a broker names."""
    return Rules(proven=LOGS - {log})


WAITED = "sends what it learned from feedback 0 to 0, after it has waited"
COMMITTED = [f"the step of router {name} is committed" for name in "AB"]
LATER = Sizes(queries=2, ticks=4)
MUTATIONS = {
    "no fencing": (Rules(fencing=False), TWO_ANSWERED, WRITERS, ["router B takes over", *reversed(COMMITTED)]),
    "a believed end of the changelog": (
        believed("changelog"), TWO_ANSWERED, WRITERS,
        ["router B takes over (takes 1 for the end of changelog, which is 2)", COMMITTED[1]],
    ),
    "a believed end of the predictions": (
        believed("predictions"), FAR_BEHIND, Sizes(ticks=4),
        ["router B reads decisions since 0 (takes 0 for the end of predictions, which is 1)"],
    ),
    "a believed end of the queries": (
        believed("queries"), NOTHING_YET, Sizes(feedback=1), ["query 0 is asked", f"router A {WAITED}"],
    ),
    "a believed end of the feedback": (
        believed("feedback"), FAR_BEHIND, LATER, ["router A forgets old decisions", f"router A {WAITED}"],
    ),
    "the router's clock": (
        Rules(log_time=False), FAR_BEHIND, LATER, ["router B reads decisions since 3", f"router B {WAITED}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "start", "sizes", "happens"), MUTATIONS.values(), ids=MUTATIONS)
def test_without_a_rule_there_is_a_way_to_a_wrong_row(
    rules: Rules, start: World, sizes: Sizes, happens: Sequence[str]
) -> None:
    found = explored(start, sizes, rules, differs)
    sys.stdout.write(str(found))
    assert found.wrong is not None
    trace = iter(found.trace)
    assert all(any(one in line for line in trace) for one in happens), str(found)


def test_without_fencing_the_row_of_the_later_feedback_counts_until_compaction() -> None:
    rules = Rules(fencing=False, last_row=False)
    assert explored(TWO_ANSWERED, WRITERS, rules, restored_differs).wrong is None
    assert explored(TWO_ANSWERED, WRITERS, rules, differs).wrong is not None


# --- what is looked at ------------------------------------------------------------------------------------------------
def contents(world: World) -> list[int]:
    return [one.content for one in world.predictions]


def stored(world: World) -> tuple[int, int]:
    """The feedback up to which the changelog goes, and how many of it have counted."""
    table = table_of(world.changelog, Table(), world.end, RULES)
    return table.position, content(table.row)[1]


REACHED = {
    "a second prediction, come late": (NOTHING_YET, Sizes(), lambda world: contents(world) == [0, 1]),
    "a repeated query, answered again": (NOTHING_YET, Sizes(queries=2), lambda world: contents(world) == [0, 0]),
    "feedback that came before its query and counted": (
        NOTHING_YET, Sizes(), lambda world: stored(world)[1] == 1 and world.feedback[0].at < world.queries[0].at,
    ),
    "feedback that came too early or too late": (
        NOTHING_YET, Sizes(), lambda world: len(world.predictions) == 1 and stored(world) == (1, 0),
    ),
    "decisions that were forgotten": (
        FAR_BEHIND, LATER, lambda world: world.epoch == 0 and world.routers[0].ages[0].number == world.now,
    ),
    "feedback about two queries of one id": (
        FAR_BEHIND, LATER, lambda world: contents(world) == [0, 1] and stored(world)[1] == 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("start", "sizes", "reached"), REACHED.values(), ids=REACHED)
def test_the_model_has_states_in_which_there_is(start: World, sizes: Sizes, reached: Callable[[World], bool]) -> None:
    assert explored(start, sizes, RULES, lambda world, rules: "reached" if reached(world) else None).wrong
