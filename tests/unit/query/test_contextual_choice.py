"""What a query's features are, that a contextual policy chooses by them, and that they are noted for the log."""

from collections import defaultdict
from dataclasses import replace

import pytest
from builders.bandits import outcomes
from builders.query_router import NOW_S, CalledRouter, application, query

from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query import OutputPiece
from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.policies.lin_ucb import LinUcb
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState

LOW, HIGH = "low:1", "high:1"
APP = replace(application("app", (LOW, HIGH)), policy=LinUcb(exploration=0.0))


def learned():
    """LOW is right about features below 0, HIGH about those above; LOW was right about one query more."""
    policy, state = LinUcb(), SelectionState()
    for feature in (-1.0, 1.0) * 50:
        losses = {LOW: float(feature > 0), HIGH: float(feature < 0)}
        state = policy.observe_for(state, losses, dict.fromkeys(losses, 1.0), [feature])
    return policy.observe(state, {LOW: 0.0}, {LOW: 1.0})


def router_of(app):
    choice = app.choice(learned())
    return CalledRouter({"app": app}, lambda *_: choice)


def decided(app, *queries):
    """Who answers each query, and the features that are noted with its answer."""
    router = router_of(app)
    requests = router.receive(queries, NOW_S).requests
    pieces = [OutputPiece(request.frame, 0, [0] * len(request.rows)) for request in requests]
    answers = router.gather(pieces, NOW_S).answers
    found = {
        answer.query.query_id: (*(use.ref for use in answer.used), answer.batch.features.get(answer.entry))
        for answer in answers
    }
    return [found[one.query_id] for one in queries]


@pytest.mark.parametrize(
    ("changes", "asked", "expected"),
    [
        (
            {},
            [query("a", 7, features=[-1.0]), query("b", 8, features=[1.0]), query("c", 9)],
            [(LOW, [-1.0]), (HIGH, [1.0]), (LOW, None)],
        ),
        (
            {"input_features": 1},
            [query("low", -1), query("high", 1), query("given", 2, features=[-0.5])],
            [(LOW, [-1.0]), (HIGH, [1.0]), (LOW, [-0.5])],
        ),
        (
            {"input_features": 1},
            [query("rows", 1, 1), query("with", 2, 2, features=[1.0])],
            [(LOW, None), (HIGH, [1.0])],
        ),
        (
            {"input_features": 1, "policy": make_policy("single", {})},
            [query("a", 3), query("b", 4, features=[0.5])],
            [(LOW, [3.0]), (LOW, [0.5])],
        ),
        ({}, [query("q", 7, models=[LOW], features=[1.0])], [(LOW, [1.0])]),
    ],
    ids=["its own", "numbers of its input", "packed", "whatever the policy makes of them", "models that it names"],
)
def test_each_query_is_decided_by_its_own_features(changes, asked, expected):
    assert decided(replace(APP, **changes), *asked) == expected


@pytest.mark.parametrize(
    ("spec", "row", "features"),
    [
        (RowSpec("float32", (2, 2)), [[0.1, 2], [3, 4]], [0.10000000149011612, 2.0, 3.0]),
        (RowSpec("uint8"), [1], [1.0]),
        (RowSpec("int64", ()), -5, [-5.0]),
        (RowSpec("float64", (2,)), [1.0, 1.5e6], None),
        (RowSpec("text"), "four", None),
        (RowSpec("json"), {"a": 1}, None),
    ],
    ids=["a matrix", "fewer than wanted", "a plain number", "too large", "text", "anything"],
)
def test_features_of_an_input_are_the_numbers_that_the_models_get(spec, row, features):
    app = replace(APP, spec=spec, input_features=3)
    ((_, noted),) = decided(app, query("q", rows=[row]))
    assert noted == features


def test_audits_and_trials_go_with_the_choice_for_the_features():
    app = application("app", (LOW, HIGH), audit_ratio=0.25, canaries={"new:1": 0.5}, shadows={"shy:1": 0.25})
    choice = replace(app, policy=LinUcb(exploration=0.2)).choice(learned())
    assert isinstance(choice, ContextualChoice)
    by_low, by_high = (outcomes(choice.given([feature])) for feature in (-1.0, 1.0))
    for drawn, greedy in ((by_low, LOW), (by_high, HIGH)):
        served = defaultdict(float)
        for decision, probability in drawn:
            served[decision.served] += probability
        assert served == pytest.approx({(LOW,): 0.05, (HIGH,): 0.05, ("new:1",): 0.5} | {(greedy,): 0.45})
    assert choice.given([-2.0]) is choice.given([-1.0])  # made once a state, not once a query


def test_the_audit_that_was_lost_is_that_of_the_decision_by_features():
    app = replace(APP, audit_ratio=1.0, input_features=1)
    for number, value in enumerate((-1, 1, -1, 1)):
        one = query(f"q{number}", value, offset=number)
        requests = router_of(app).receive([one._replace(rows=[*one.rows])], NOW_S).requests
        assert {request.ref for request in requests} == {LOW, HIGH}
        lost = router_of(app).lost_audit(one, [], NOW_S)
        assert [each.ref for each in lost.missing] == [HIGH if value < 0 else LOW]
