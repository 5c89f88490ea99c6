"""One log, told alike by the learning step, the oracle, `replay verify`, and the join for evaluations."""

from collections import Counter

import pytest
from builders.benchmarks import benchmark_module
from builders.decision_logs import answer, missing
from unit.replay.deployment import HORIZON_MS, LATER_MS, SAVED, Deployment, is_told_alike, joined, manifest

from clipper_agents.control.selection_states import row_of
from clipper_stream.selection.registry import make_policy
from clipper_topics.feedback import EARLY_FEEDBACK_MS
from clipper_topics.prediction import NAMED, PolicyRef
from clipper_topics.selection_rows import SavedRow

fold_one_by_one = benchmark_module("rig.column_fold").fold_one_by_one
APPLICATIONS = (manifest(), manifest("absolute", loss="absolute"), manifest("linear", policy="lin_ucb"))
OUTCOMES = {"duplicate": "duplicates", "invalid": "invalid", "orphan": "orphans"}
"""Of the learning step, and the counts of the join."""
TWO = [("a:1", 1), ("b:1", 2)]
LATE = dict(outputs=(), output=None, default=True, reason="late", missing=[missing("a:1", 0.5)], served_propensity=0.5)
FORGETS = manifest(half_life=3.0)
IN_C = [SavedRow(partition=0, context="c", totals={"b:1": (9.0, 1.0, 9.0, 1.0)})]


def beside(ref, output, propensity=0.25):
    return answer(ref, output, propensity, served=False)


# Who is scored: by model, count and loss in the row of `app`. Outcomes of the feedback, one step at the end.
FEEDBACK = {
    "every model that answered is scored": (
        lambda at: at.ask("q", outputs=TWO).tell("q"), {"a:1": (1, 0), "b:1": (1, 1)}, {"applied": 1}),
    "a row is added to": (
        lambda at: at.ask("q").tell("q", 0).learn().ask("p").tell("p"), {"a:1": (2, 1)}, {"applied": 2}),
    "the first feedback counts in a step": (
        lambda at: at.ask("q").tell("q", 0).tell("q").tell("q", 2), {"a:1": (1, 1)}, {"applied": 1, "duplicate": 2}),
    "the first feedback counts in all steps": (
        lambda at: at.ask("q").tell("q", 0).learn().tell("q").learn(), {"a:1": (1, 1)}, {"applied": 1, "duplicate": 1},
    ),
    "the first prediction is the decision": (
        lambda at: at.ask("q").ask("q", outputs=[("b:1", 2)]).tell("q"), {"a:1": (1, 0)}, {"applied": 1}),
    "what cannot be used leaves the query to the next": (
        lambda at: at.ask("q").tell("q", context="v").tell("q", None).tell("q"), {"a:1": (1, 0)},
        {"invalid": 2, "applied": 1}),
    "labels of another kind": (
        lambda at: at.ask("q").tell("q", "setosa").tell("q", {"species": 1}).tell("q", [0]).tell("q"),
        {"a:1": (1, 0)}, {"invalid": 3, "applied": 1}),
    "labels that are no numbers": (
        lambda at: at.ask("q", "absolute", outputs=[("a:1", 1.5)]).tell("q", "cat").tell("q", 1.25), {},
        {"invalid": 1, "applied": 1}),
    "what is no feedback": (lambda at: at.ask("q").tell("q", loss=1.5).tell("q", reward=-1).tell("q", loss=0, reward=1)
        .tell("q", 1, loss=0.5).tell("").tell("q", loss=None, reward=0.75), {"a:1": (1, 0.25)}, {"applied": 1}),
    "null beside another truth": (
        lambda at: at.ask("q").tell("q", 2, loss=None, reward=None).ask("p").tell("p", None, loss=0.25, reward=None),
        {"a:1": (2, 1.25)}, {"applied": 2}),
    "an orphan": (lambda at: at.tell("q"), {}, {"orphan": 1}),
    "an orphan of its application": (lambda at: at.ask("q").tell("q", application="linear"), {}, {"orphan": 1}),
    "the models were named": (
        lambda at: at.ask("q", policy=PolicyRef(name=NAMED)).tell("q").tell("q"), {}, {"unlearned": 1, "duplicate": 1},
    ),
    "nothing was decided": (
        lambda at: at.ask("q", outputs=(), policy=None, default=True, reason="arrived_late").tell("q"), {},
        {"unlearned": 1}),
    "the application is gone": (lambda at: at.ask("q", "gone").tell("q"), {}, {"unlearned": 1}),
    "a lone model did not answer": (
        lambda at: at.ask("q", **LATE).tell("q", loss=0.25).ask("p", **LATE).tell("p"), {"a:1": (2, 2)}, {"applied": 2},
    ),
    "a loss is that of who gave the answer": (
        lambda at: at.ask("q", outputs=TWO).tell("q", loss=0.25).ask("p").tell("p", reward=0.25), {"a:1": (2, 1)},
        {"applied": 2}),
    "a query of several rows": (
        lambda at: at.ask("q", rows=[1, 2], models=[answer("a:1", None, outputs=[1, 2])]).tell("q", [1])
        .tell("q", [1, 3]),
        {"a:1": (1, 0.5)}, {"invalid": 1, "applied": 1}),
    "contexts have rows of their own": (
        lambda at: at.ask("q", context="x").ask("p", context="y").ask("r").tell("q").tell("p").tell("r", 0),
        {"a:1": (1, 1)}, {"applied": 3}),
    "features": (lambda at: at.ask("q", "linear", features=[0.5, -2.0]).tell("q").ask("p", "linear").tell("p"), {},
        {"applied": 2}),
    "an audit adds models and changes none": (
        lambda at: at.ask("q", audited=True, query_offset=7).audit("q", beside("b:1", 1), query_offset=6)
        .audit("q", beside("a:1", 9), beside("b:1", 9), missing("c:1", 0.5, served=False), query_offset=7)
        .audit("q", beside("b:1", 1), query_offset=7).tell("q"),
        {"a:1": (1, 0), "b:1": (1, 1)}, {"applied": 1}),
    "an audit that no prediction announces": (
        lambda at: at.ask("q", query_offset=7).audit("q", beside("b:1", 9), query_offset=7).tell("q"),
        {"a:1": (1, 0)}, {"applied": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("happened", "losses", "outcomes"), FEEDBACK.values(), ids=FEEDBACK)
def test_a_feedback_is_learned_verified_and_joined_alike(happened, losses, outcomes):
    at = happened(Deployment(*APPLICATIONS)).learn()
    row = at.rows.get(("app", None, 0))
    assert ({one.model: (one.count, one.loss) for one in row.totals} if row else {}) == losses
    assert at.outcomes == outcomes
    assert is_told_alike(at)
    assert_joined_alike(at)


def assert_joined_alike(at):
    """The decisions of the join lead to the same rows, and what it counts are the outcomes of the feedback."""
    counts = Counter()
    for one in at.manifests.values():
        columns, found = joined(at.logs, application=one.name, loss_kind=one.loss)
        rows = fold_one_by_one([columns], make_policy(one.policy.name, {}))
        table = {place: row for place, row in at.rows.items() if place[0] == one.name}
        assert {(one.name, *place): row_of(row.state, row.offset, row.applied) for place, row in rows.items()} == table
        counts |= found
    assert [counts[name] for name in OUTCOMES.values()] == [at.outcomes[name] for name in OUTCOMES]


def applied(at):
    """How many feedbacks counted, in each row."""
    places = {place[:2]: row.applied for place, row in at.rows.items() if place[0]}
    return {name if context is None else f"{name}/{context}": number for (name, context), number in places.items()}


# Times, restores and changes: how many feedbacks counted in each row.
HISTORIES = {
    "nothing": (lambda at: at, {}),
    "no application": (lambda at: at.work(3, "nobody"), {}),
    "an id that is used again and again after the horizon": (
        lambda at: at.work(3).wait(LATER_MS).ask("app-1", outputs=[("a:1", 7), ("b:1", 8)]).tell("app-1", 8).learn()
        .wait(LATER_MS).ask("app-1").tell("app-1").learn(), {"app": 5}),
    "ids of two applications": (
        lambda at: at.ask("q", "linear").ask("q").tell("q").tell("q", application="app").tell("q").learn(),
        {"app": 1, "linear": 1}),
    "a restore sets all rows, and what counted goes on": (
        lambda at: at.work(6, context="c").work(6, first=10).work(3, "linear").restore(SAVED).learn().learn(1)
        .work(5, first=50, every=2),
        {"app": 11, "app/c": 6, "linear": 3}),
    "feedback on both sides of a marker": (
        lambda at: at.ask("q").ask("p").tell("q").restore(SAVED).tell("p").learn(), {"app": 2}),
    "a restore counts once": (
        lambda at: at.work(1).restore(SAVED).learn().work(1, first=5).mark(0).learn(), {"app": 2}),
    "the later declared restore wins": (
        lambda at: at.declare_restore(SAVED).restore(IN_C).mark(0).learn(), {"app/c": 0}),
    "the later declared restore wins in any order": (
        lambda at: at.declare_restore(SAVED).declare_restore(IN_C).mark(0).mark(1).learn(), {"app": 0, "app/c": 0}),
    "a restore of no application": (lambda at: at.restore(SAVED, "gone").learn(), {"gone": 0}),
    "a marker that is not declared": (lambda at: at.work(1).mark(0).learn(), {"app": 1}),
    "a marker that is declared otherwise": (
        lambda at: at.declare_restore(SAVED, digests={"0": "0" * 64}).mark(0).learn(), {}),
    "crashes within a step with markers": (
        lambda at: at.work(2, context="c").restore(SAVED).restore(IN_C).learn(crash_after=1).learn(crash_after=2)
        .learn(crash_after=3).learn(),
        {"app": 0, "app/c": 2}),
    **{
        f"a half-life that changes, in steps of {every}": (
            lambda at, every=every: at.work(8, every=every).declare(FORGETS).follow().work(8, first=20, every=every),
            {"app": 16},
        )
        for every in (1, 4)
    },
    **{
        f"a router that follows late, in steps of {every}": (
            lambda at, every=every: at.work(6, every=every).declare(FORGETS).work(6, first=20, every=every).follow()
            .work(6, first=40, every=every),
            {"app": 18},
        )
        for every in (1, 3)
    },
    "a router behind with feedback at a change": (
        lambda at: at.work(4).work(6, first=20, every=0).learn(most=2).declare(FORGETS).follow().learn(), {"app": 10}),
    "a change whose rows are compacted": (
        lambda at: at.work(9).declare(FORGETS).work(3, first=20).follow().work(6, first=40).compact(), {"app": 18}),
    "a change that observes alike": (
        lambda at: at.work(4).declare(manifest(audit_ratio=0.5)).follow().work(4, first=20), {"app": 8}),
    "a loss that changes": (
        lambda at: at.work(4).declare(manifest(loss="absolute")).follow().ask("q").tell("q", "text").tell("q").learn(),
        {"app": 5}),
    "labels that the former loss refused": (
        lambda at: at.work(4, "absolute").ask("q", "absolute").tell("q", "text").ask("p", "absolute").tell("p", "text")
        .learn().declare(manifest("absolute")).follow().work(4, "absolute", first=20).compact(),
        {"absolute": 8}),
    "a step that is done again after a crash and a change": (
        lambda at: at.work(5).ask("q").tell("q").learn(crash_after=1).declare(FORGETS).follow().work(3, first=20),
        {"app": 9}),
    "an application that was deleted for a while": (
        lambda at: at.work(4).withdraw("app").work(3, first=20).declare(manifest()).follow().work(4, first=40),
        {"app": 8}),
}  # fmt: skip


@pytest.mark.parametrize(("happened", "counted"), HISTORIES.values(), ids=HISTORIES)
def test_a_history_is_learned_folded_and_verified_alike(happened, counted):
    at = happened(Deployment(*APPLICATIONS))
    assert applied(at) == counted
    assert is_told_alike(at)


def test_feedback_is_an_orphan_or_not_by_the_times_of_the_logs_alone():
    """Dead letters were believed: so what was refused by mistake was called equal."""
    at = Deployment().work(2).tell("early").ask("early").learn()
    assert applied(at) == {"app": 3}
    at.tell("too early").learn().ask("too early").tell("app-0").ask("late").wait(LATER_MS).tell("late").learn()
    assert applied(at) == {"app": 3}
    assert at.outcomes == {"applied": 3, "orphan": 2, "duplicate": 1}
    assert is_told_alike(at)


@pytest.mark.parametrize(
    ("after_ms", "counted"),
    [(-EARLY_FEEDBACK_MS - 1, {}), (-EARLY_FEEDBACK_MS, {"app": 1}), (HORIZON_MS, {"app": 1}), (HORIZON_MS + 1, {})],
)
def test_feedback_counts_from_shortly_before_its_query_to_a_horizon_behind_it(after_ms, counted):
    at = Deployment()
    at.ask("q", queried_at_ms=int(at.logs.now_ms + 1 - after_ms)).tell("q").learn()
    assert applied(at) == counted
    assert is_told_alike(at)


@pytest.mark.parametrize(("more_ms", "counted"), [(0, {"app": 1}), (1, {"app": 2})])
def test_a_query_with_the_id_of_one_asked_long_before_is_another_query(more_ms, counted):
    at, apart_ms = Deployment(), int(HORIZON_MS) + EARLY_FEEDBACK_MS + more_ms
    asked_ms = at.logs.now_ms
    at.ask("q").tell("q").ask("q", queried_at_ms=asked_ms + apart_ms).wait(apart_ms).tell("q").learn()
    assert applied(at) == counted
    assert is_told_alike(at)
