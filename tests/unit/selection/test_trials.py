"""Trials: canaries that serve, shadows that are asked besides, and how probable each of it is."""

import math

import pytest
from builders.bandits import check_unbiased, outcomes
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.errors import InvalidSetting
from clipper_stream.feedback.values import GivenLoss, Label
from clipper_stream.selection.distribution import all_of, audited, one_of
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.trials import NOBODY, ChoiceWithTrials, with_trials

ERROR = {"a:1": 0.1, "b:1": 0.3, "new:1": 0.2, "new:2": 0.6, "shadow:1": 0.4, "shadow:2": 0.5}
ONE = one_of({"a:1": 0.75, "b:1": 0.25}, (0.75, 0.25))
ENSEMBLE = all_of({"a:1": 0.75, "b:1": 0.25})


def test_without_trials_the_choice_is_the_same_object():
    assert with_trials(ONE, {}, {}) is ONE
    assert with_trials(ONE, {"new:1": 0.0}, {"shadow:1": 0.0}) is ONE


def test_a_shadow_of_every_query_leaves_an_ensemble_certain():
    decision = with_trials(ENSEMBLE, {}, {"shadow:1": 1.0}).certain
    assert (decision.served, decision.split()[1].models, decision.propensities) == (
        ("a:1", "b:1"),
        ("shadow:1",),
        (1.0,) * 3,
    )


def test_where_a_canary_serves_the_whole_ensemble_is_asked_for_the_log():
    (serving, _), (usual, _) = outcomes(with_trials(ENSEMBLE, {"new:1": 0.25}, {}))
    assert (serving.served, serving.served_propensity, serving.split()[1].models) == (("new:1",), 0.25, ("a:1", "b:1"))
    assert (usual.served, usual.served_propensity, usual.split()[1].models) == (("a:1", "b:1"), 0.75, ())


def test_canaries_that_answer_everything_leave_the_policy_nothing_to_serve():
    shares = {f"new:{number}": 0.1 for number in range(10)}  # their sum is rounded below 1
    choice = with_trials(ONE, shares, {})
    assert {decision.served for decision, _ in outcomes(choice)} == {(ref,) for ref in shares}
    assert all(len(decision.split()[1].models) == 1 for decision, _ in outcomes(choice))


def test_without_candidates_a_canary_answers_its_share_and_no_shadow_is_asked():
    served = {
        decision.served: chance
        for decision, chance in outcomes(with_trials(NOBODY, {"new:1": 0.25}, {"shadow:1": 1.0}))
    }
    assert served == {("new:1",): 0.25, (): 0.75}


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
    assert all(math.isclose(asked.get(ref, 0.0), share, abs_tol=1e-9) for ref, share in canary_refs.items())
    if choice is not NOBODY:
        assert all(math.isclose(asked.get(ref, 0.0), share, abs_tol=1e-9) for ref, share in shadow_refs.items())
    drawn = found.select(_Numbers(draw, draw))
    assert drawn in [decision for decision, _ in all_of_them]


class _Numbers:
    def __init__(self, *numbers):
        self._numbers = iter(numbers)

    def random(self):
        return next(self._numbers)


@pytest.mark.parametrize("truth", [Label, GivenLoss])
def test_weighted_losses_estimate_every_trial_without_bias(truth):
    shares = {"new:1": 0.05, "new:2": 0.1}, {"shadow:1": 0.3, "shadow:2": 1.0}
    check_unbiased(with_trials(audited(ONE, 0.05), *shares), ERROR, truth)
