"""What a query's features are, that a contextual policy chooses by them, and that they are noted for the log."""

from collections import defaultdict
from dataclasses import replace

import pytest
from builders.bandits import outcomes
from builders.query_router import NOW_S, JsonCodec, application, outputs_of, query

from clipper_stream.caching.clock import ClockCache, DictStore
from clipper_stream.query import Router
from clipper_stream.query.inputs import RowSpec
from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.policies.lin_ucb import LinUcb
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
    caches = defaultdict(lambda: ClockCache(DictStore(), 1_000_000))
    choice = app.choice(learned())
    return Router({"app": app}.get, lambda *_: choice, caches.__getitem__, JsonCodec())


def decided(app, *queries):
    """Who is to answer each query, and the features that were noted."""
    router = router_of(app)
    router.receive(queries, NOW_S)
    pendings = [router._queries[one] for one in queries]
    return [(*pending.decision.served, pending.features) for pending in pendings]


def test_queries_of_one_batch_are_decided_each_by_its_own_features():
    asked = [query("a", 7, features=[-1.0]), query("b", 7, features=[1.0]), query("c", 7)]
    assert decided(APP, *asked) == [(LOW, [-1.0]), (HIGH, [1.0]), (LOW, None)]


def test_the_first_numbers_of_an_input_are_the_features_of_a_query_that_gives_none():
    app = replace(APP, input_features=1)
    given = query("given", 1, features=[-0.5])
    assert decided(app, query("low", -1), query("high", 1), given) == [(LOW, [-1.0]), (HIGH, [1.0]), (LOW, [-0.5])]


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


def test_a_packed_query_has_the_features_that_it_gives_and_no_others():
    app = replace(APP, input_features=1)
    asked = [query("rows", 1, 1), query("with", 1, 1, features=[1.0])]
    assert decided(app, *asked) == [(LOW, None), (HIGH, [1.0])]


def test_features_are_noted_whatever_the_policy_makes_of_them():
    app = application("app", (LOW, HIGH), "single", input_features=1)
    assert decided(app, query("a", 3), query("b", 3, features=[0.5])) == [(LOW, [3.0]), (LOW, [0.5])]


def test_a_query_that_names_its_models_is_answered_by_them():
    ((served, _),) = decided(APP, query("q", 7, models=[LOW], features=[1.0]))
    assert served == LOW


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


def test_the_answer_says_by_which_features_it_was_chosen():
    router = router_of(replace(APP, input_features=1))
    (request,) = router.receive([query("q", 1)], NOW_S).requests
    (answer,) = router.gather([outputs_of(request, lambda value: value)], NOW_S).answers
    assert answer.pending.features == [1.0]
