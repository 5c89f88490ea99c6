"""A cascade asks the first model, and the last one where that is unsure: once, in time, and as often as it says."""

from dataclasses import replace

import pytest
from builders.query_router import NOW_S, application, query
from unit.query.rig import Rig, answer_of

from clipper_stream.selection.policies.cascade import Cascade
from clipper_stream.selection.state import SelectionState

SMALL, LARGE = "small:1", "large:1"
UNSURE, SURE = 0.3, 0.995


def learned(policy):
    """Where SMALL is unsure it is wrong, LARGE never is, and a tenth of the queries is so."""
    state = SelectionState()
    for number in range(200):
        confidence, loss = (UNSURE, 1.0) if number % 10 == 0 else (SURE, 0.0)
        state = policy.observe_for(state, {SMALL: loss, LARGE: 0.0}, {SMALL: 1.0, LARGE: 0.5}, [confidence])
    return state


def cascade(exploration=0.0, **changes):
    """Rig of an application whose SMALL model is unsure about numbers below 0."""
    policy = Cascade(budget=0.5, exploration=exploration)
    app = replace(application("app", (SMALL, LARGE), **changes), policy=policy)
    choice = app.choice(learned(policy))
    return Rig(app, choice=lambda *_: choice)


def small(value):
    return {"label": "small", "confidence": UNSURE if value < 0 else SURE}


def large(value):
    return {"label": "large", "confidence": 1.0}


def said(answer):
    return {use.ref: (use.outputs, use.served) for use in answer.used}


def unsure(rig, *values, **how):
    """The requests to LARGE, after SMALL has answered a query about these values."""
    request = rig.ask(query("q", *values, **how))[SMALL]
    return rig.gather(request, small, at_s=0.1)


def test_a_sure_answer_of_the_first_model_is_the_answer():
    answer = answer_of(unsure(cascade(), 1))
    assert (answer.outputs, answer.confidence, said(answer)) == (["small"], 1.0, {SMALL: (["small"], True)})
    assert answer.batch.features == {0: [SURE]}


@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_where_it_is_unsure_the_last_model_answers_and_both_are_logged(threshold):
    rig = cascade(confidence_threshold=threshold)
    effects = unsure(rig, -1)
    assert ([request.ref for request in effects.requests], effects.answers) == ([LARGE], [])
    answer = answer_of(rig.gather(effects.requests[0], large, at_s=0.2))
    assert (answer.outputs, answer.confidence) == (["large"], 1.0)
    assert said(answer) == {SMALL: (["small"], False), LARGE: (["large"], True)}
    assert answer.batch.confidences == {0: UNSURE, 1: 1.0}
    assert (rig.router.recorded(answer), rig.router.in_flight) == ([], 0)


@pytest.mark.parametrize("how", ["late", "error"])
def test_without_the_last_model_the_answer_is_that_of_the_first_with_less_confidence(how):
    rig = cascade()
    (request,) = unsure(rig, -1).requests
    done = rig.expire(2.0) if how == "late" else rig.gather(request, large, failed={0: ("error", "it broke")})
    answer = answer_of(done)
    assert (answer.outputs, answer.confidence, answer.default) == (["small"], 0.5, False)
    assert said(answer) == {SMALL: (["small"], True)}
    assert [(one.ref, one.served, one.failure.reason) for one in answer.missing] == [(LARGE, True, how)]


STORIES = {
    "the first model failed": (dict(failed={0: ("error", "it broke")}), {}, [LARGE]),
    "the query names its models": ({}, dict(models=[SMALL]), []),
    "rows are unsure on average": ({}, dict(values=(-1, -1)), [LARGE]),
    "rows are sure on average": ({}, dict(values=(-1, 1, 1, 1)), []),
    "it has features of its own": ({}, dict(features=[3.0]), [LARGE]),
}


@pytest.mark.parametrize(("output", "asked", "then"), STORIES.values(), ids=STORIES)
def test_whether_the_last_model_is_asked(output, asked, then):
    rig = cascade()
    values = asked.pop("values", (-1,))
    request = rig.ask(query("q", *values, **asked))[SMALL]
    assert [one.ref for one in rig.gather(request, small, **output).requests] == then


def test_without_the_time_that_the_last_model_takes_at_least_nothing_is_decided_again():
    rig = cascade()
    (request,) = unsure(rig, -1).requests
    rig.gather(request, large, at_s=0.9)
    request = rig.ask(query("late", -2, queried_at_s=NOW_S + 1.0), at_s=1.5)[SMALL]
    answer = answer_of(rig.gather(request, small, at_s=1.55))
    assert (answer.outputs, answer.served_propensity, answer.missing, answer.batch.features) == (["small"], 1.0, [], {})


def test_an_output_in_the_cache_answers_at_once_and_a_row_in_flight_is_joined():
    rig = cascade()
    (request,) = unsure(rig, -1).requests
    again = rig.receive(query("joined", -1))
    assert (again.requests, again.answers) == ([], []), "the first output is cached, the second under way"
    assert len(rig.gather(request, large).answers) == 2
    assert answer_of(rig.receive(query("cached", -1))).outputs == ["large"]


def test_a_shadow_is_asked_beside_the_first_model_and_audited_on_its_own():
    rig = cascade(shadows={"shy:1": 1.0})
    requests = rig.ask(query("q", -1))
    assert requests.keys() == {SMALL, "shy:1"}
    (request,) = rig.gather(requests[SMALL], small).requests
    answer = answer_of(rig.gather(request, large))
    assert answer.outputs == ["large"]
    (audit,) = rig.gather(requests["shy:1"]).audits
    assert {use.ref for use in audit.used} == {"shy:1"}
    rig.router.recorded(answer)
    rig.router.audit_recorded(audit)
    assert rig.router.in_flight == 0


def test_others_of_a_batch_are_answered_at_once_and_each_exactly_once():
    rig = cascade()
    effects = rig.gather(rig.ask(*(query(f"q{value}", value) for value in (-2, 1, -1, 2)))[SMALL], small)
    assert sorted(answer.query.query_id for answer in effects.answers) == ["q1", "q2"]
    later = rig.gather(effects.requests[0], large, rows=(0, 1)).answers + rig.expire(2.0).answers
    assert {answer.query.query_id: answer.outputs for answer in later} == {"q-2": ["large"], "q-1": ["small"]}
    assert rig.router.next_deadline_s is None


def test_a_share_of_the_queries_asks_as_the_logged_propensities_say():
    rig = cascade(exploration=0.2)
    asked, expected, count = 0, 0.0, 2_000
    request = rig.ask(*(query(f"q{number}", -1 if number % 10 == 0 else 1, offset=number) for number in range(count)))
    effects = rig.gather(request[SMALL], small)
    effects.answers.extend(rig.gather(effects.requests[0], large).answers)
    assert len(effects.answers) == count
    for answer in effects.answers:
        chances = {use.ref: use.propensity for use in answer.used}
        assert chances[SMALL] == 1.0
        is_asked = LARGE in chances
        chance = chances.get(LARGE, 1.0 - answer.served_propensity)
        assert chance == pytest.approx(0.9 if answer.batch.features[answer.entry] == [UNSURE] else 0.1)
        assert answer.served_propensity == pytest.approx(chance if is_asked else 1.0 - chance)
        asked, expected = asked + is_asked, expected + chance
    assert asked == pytest.approx(expected, abs=4 * (count * 0.09) ** 0.5)
