"""Audits and trials: who is asked for the log besides whom the policy chose, and how probable each of it is."""

import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
from builders.bandits import outcomes
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.errors import InvalidSetting
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from clipper_stream.selection.distribution import all_of, audited, forced_decision, one_of
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState
from clipper_stream.selection.trials import NOBODY, ChoiceWithTrials, context_number, with_trials

ONE = one_of({"a:1": 0.75, "b:1": 0.25}, (0.75, 0.25))
UNEVEN = one_of({"a:1": 0.9, "b:1": 0.08, "new:2": 0.02}, (0.9, 0.08, 0.02))
ENSEMBLE = all_of({"a:1": 0.75, "b:1": 0.25})


def test_without_audits_and_trials_the_choice_is_the_same():
    assert audited(ONE, 0.0).decisions == ONE.decisions
    assert {d.propensities for d in audited(ENSEMBLE, 0.3).decisions} == {(1.0, 1.0)}, "it is audited already"
    assert with_trials(ONE, {}, {}) is ONE
    assert with_trials(ONE, {"new:1": 0.0}, {"shadow:1": 0.0}) is ONE


def test_an_audit_serves_whom_the_policy_chose_and_asks_the_others_for_the_log():
    decisions = audited(UNEVEN, 1.0).decisions
    assert [d.served for d in decisions] == [("a:1",), ("b:1",), ("new:2",)]
    assert all(d.models == ("a:1", "b:1", "new:2") for d in decisions)
    assert decisions[1].split()[1].models == ("a:1", "new:2")


def test_a_model_that_the_policy_never_serves_is_asked_as_often_as_audits_happen():
    never = one_of({"a:1": 1.0, "b:1": 0.0}, (1.0, 0.0))
    audit = next(d for d in audited(never, 0.25).decisions if len(d.models) == 2)
    assert audit.propensities == (1.0, 0.25)


def test_a_query_that_names_its_models_has_no_chance_in_it():
    decision = forced_decision(["b:1", "a:1"])
    assert (decision.models, decision.propensities, decision.served_propensity) == (("b:1", "a:1"), (1.0, 1.0), 1.0)


@pytest.mark.parametrize(
    ("choice", "canaries", "shadows", "expected"),
    [
        pytest.param(
            ENSEMBLE, {}, {"shadow:1": 1.0}, [(("a:1", "b:1"), 1.0, ("shadow:1",))],
            id="a shadow of every query leaves an ensemble certain",
        ),
        pytest.param(
            ENSEMBLE, {"new:1": 0.25}, {}, [(("new:1",), 0.25, ("a:1", "b:1")), (("a:1", "b:1"), 0.75, ())],
            id="where a canary serves, the whole ensemble is asked for the log",
        ),
        pytest.param(
            NOBODY, {"new:1": 0.25}, {"shadow:1": 1.0}, [(("new:1",), 0.25, ()), ((), 0.75, ())],
            id="without candidates a canary answers its share, and no shadow is asked",
        ),
    ],
)  # fmt: skip
def test_who_serves_how_often_and_who_is_asked_for_the_log(choice, canaries, shadows, expected):
    with_them = with_trials(choice, canaries, shadows)
    found = outcomes(with_them)
    assert with_them.certain == (found[0][0] if len(found) == 1 else None)
    assert [
        (decision.served, decision.served_propensity, decision.split()[1].models) for decision, _ in found
    ] == expected
    assert [chance for _, chance in found] == [served_propensity for _, served_propensity, _ in expected]


def test_canaries_that_answer_everything_leave_the_policy_nothing_to_serve():
    shares = {f"new:{number}": 0.1 for number in range(10)}  # their sum is rounded below 1
    found = outcomes(with_trials(ONE, shares, {}))
    assert {decision.served for decision, _ in found} == {(ref,) for ref in shares}
    assert all(len(decision.split()[1].models) == 1 for decision, _ in found)


def test_a_trial_changes_no_choice_of_the_policy():
    choice = with_trials(audited(ONE, 0.25), {"new:1": 0.3}, {"shadow:1": 0.5})
    for number in range(200):
        chosen = choice.select(query_rng(1, f"0-{number}"))
        without = audited(ONE, 0.25).select(query_rng(1, f"0-{number}"))
        assert without.models == chosen.models[: len(without.models)]
        assert chosen.served in (without.served, ("new:1",))


def test_decisions_grow_by_the_trials_and_not_by_their_combinations():
    shadows = {f"shadow:{number}": (number + 1) / 20 for number in range(14)}
    choice = with_trials(ENSEMBLE, {"new:1": 0.1, "new:2": 0.1}, shadows)
    assert len(choice.treatments) <= len(shadows) + 2 + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("shares", [({"new:1": 0.6, "new:2": 0.6}, {}), ({"new:1": -0.1}, {}), ({}, {"new:1": 1.5})])
def test_shares_out_of_bounds_are_refused(shares):
    with pytest.raises(InvalidSetting, match=r"share of new:1 is|together"):
        with_trials(ONE, *shares)


def test_a_canary_that_is_a_shadow_too_is_asked_with_both_shares_and_never_twice():
    choice = with_trials(ENSEMBLE, {"new:1": 0.25}, {"new:1": 0.5, "other:1": 0.1})
    answers = ("a:1", "b:1")
    assert [(one.models, one.served, one.propensities[2:], round(chance, 9)) for one, chance in outcomes(choice)] == [
        ((*answers, "new:1"), ("new:1",), (0.75,), 0.25),
        (answers, answers, (), 0.25),
        ((*answers, "new:1"), answers, (0.75,), 0.4),
        ((*answers, "new:1", "other:1"), answers, (0.75, 0.1), 0.1),
    ]
    capped = with_trials(ENSEMBLE, {"new:1": 0.7}, {"new:1": 0.5})
    assert {one.propensities[2:] for one, _ in outcomes(capped)} == {(1.0,)}, "of what no canary answers"


class Numbers:
    """A source whose numbers are all the same."""

    def __init__(self, number):
        self.random = lambda: number


shares = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(0.0, 1.0))
canary_shares = st.lists(shares, max_size=4).map(lambda found: [one / max(1.0, math.fsum(found)) for one in found])


@given(
    canary_shares,
    st.lists(shares, max_size=4),
    st.sampled_from([ONE, ENSEMBLE, audited(ONE, 0.3), NOBODY]),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_probabilities_of_all_decisions_sum_to_one_and_explain_every_propensity(canaries, shadows, choice, draw):
    canary_refs = {f"new:{number}": share for number, share in enumerate(canaries)}
    shadow_refs = {f"shadow:{number}": share for number, share in enumerate(shadows)}
    found = with_trials(choice, canary_refs, shadow_refs)
    if not isinstance(found, ChoiceWithTrials):
        assert found is choice
        return
    all_of_them = outcomes(found)
    assert math.isclose(sum(chance for _, chance in all_of_them), 1.0, abs_tol=1e-9)
    asked, served = {}, {}
    for decision, chance in all_of_them:
        assert set(decision.served) <= set(decision.models)
        assert len(set(decision.models)) == len(decision.models)
        for model in decision.models:
            asked[model] = asked.get(model, 0.0) + chance
        served[decision.served] = served.get(decision.served, 0.0) + chance
    for decision, chance in all_of_them:
        assert chance > 0.0
        assert math.isclose(decision.served_propensity, served[decision.served], abs_tol=1e-9)
        for model, propensity in zip(decision.models, decision.propensities, strict=True):
            assert 0.0 < propensity <= 1.0
            assert math.isclose(propensity, asked[model], abs_tol=1e-9)
    refs = canary_refs if choice is NOBODY else canary_refs | shadow_refs
    assert all(math.isclose(asked.get(ref, 0.0), share, abs_tol=1e-9) for ref, share in refs.items())
    assert found.select(Numbers(draw)) in [decision for decision, _ in all_of_them]


# --- contexts that are drawn once -------------------------------------------------------------------------------------
def drawn_by(numbers, canaries):
    """Who answers each context: a canary, or None."""
    answering = {}
    for context, own in numbers.items():
        choice = with_trials(ENSEMBLE, canaries, {}, own.__getitem__)
        if choice.certain is not None:
            served, share = choice.certain.served, choice.certain.served_propensity
            answering[context] = None if served == ("a:1", "b:1") else served[0]
            assert math.isclose(share, canaries.get(served[0], 1.0 - math.fsum(canaries.values())), abs_tol=1e-9)
    return answering


@given(canary_shares.filter(bool), st.data())
def test_a_share_that_grows_keeps_its_contexts_and_sends_none_back_to_the_models(canaries, data):
    refs = [f"new:{number}" for number in range(len(canaries))]
    one_number = st.floats(0.0, 1.0, exclude_max=True)
    numbers = dict(enumerate(data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(refs, one_number)), max_size=9))))
    shares, growing = dict(zip(refs, canaries, strict=True)), data.draw(st.sampled_from(refs))
    room = max(0.0, 1.0 - math.fsum(canaries))
    grown = {**shares, growing: min(1.0, shares[growing] + room * data.draw(st.floats(0.0, 1.0)))}
    before, after = drawn_by(numbers, shares), drawn_by(numbers, grown)
    for context, ref in before.items():
        assert after[context] in ((ref, growing) if ref != growing else (growing,))


def test_contexts_see_one_version_each_as_many_as_its_share_says_and_shadows_are_drawn_by_the_query():
    canaries, served = {"new:1": 0.3, "new:2": 0.1}, Counter()
    for context in range(4_000):
        numbers = partial(context_number, 7, "digits", context=str(context))
        choice = with_trials(ONE, canaries, {"shadow:1": 0.5}, numbers)
        chosen = [choice.select(query_rng(1, f"0-{number}")) for number in range(8)]
        (answering,) = {one.served if one.served[0] in canaries else None for one in chosen}
        assert {"shadow:1" in one.models for one in chosen} == {True, False}
        served[answering] += 1
    for answering, share in {("new:1",): 0.3, ("new:2",): 0.1, None: 0.6}.items():
        assert abs(served[answering] / 4_000 - share) < 4 * (share * (1 - share) / 4_000) ** 0.5


def test_a_query_without_a_context_draws_for_itself_and_each_version_has_contexts_of_its_own():
    trials = (TrialModel(candidate=CandidateModel(ref="new:1", digest=b""), stage="canary", share=0.5),)
    given = {"candidates": (CandidateModel(ref="a:1", digest=b""),), "policy": make_policy("exp3"), "trials": trials}
    apps = [Application(name="digits", draws_contexts=by_context, **given) for by_context in (False, True)]
    plain, drawing = (app.choice(SelectionState(), None) for app in apps)
    assert plain == drawing == apps[0].choice(SelectionState(), "ada")
    assert apps[1].choice(SelectionState(), "ada").certain is not None
    numbers = [[context_number(0, "digits", ref, str(context)) for context in range(2_000)] for ref in ("a:1", "a:2")]
    assert abs(float(np.corrcoef(numbers)[0, 1])) < 4 / 2_000**0.5
