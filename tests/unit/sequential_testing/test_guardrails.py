import math

import pytest

from clipper_stream.sequential_testing.guardrails import GuardrailEvidence, within_guardrails
from clipper_stream.sequential_testing.rollout_rule import TrialRule, TrialVerdict
from clipper_stream.sequential_testing.score_sums import ScoreSums

RULE = TrialRule(guardrails=2)


def guardrail(name, *values, **fields):
    """Evidence of one value a second, against a margin of 0.1."""
    means = ScoreSums(0.1)
    for second, value in enumerate([*values, 0.0]):
        means.add_query(second, value)
    return GuardrailEvidence(name=name, **{"whole": means.capital(), "step": means.capital()} | fields)


WITHIN, OUTSIDE, SHORT = (guardrail(name, *values) for name, values in (
    ("good", [0.0] * 99), ("bad", [0.9] * 20), ("new", [0.0] * 3),
))  # fmt: skip
EXCEEDS = guardrail("odd", *[0.2] * 20)


@pytest.mark.parametrize(
    ("action", "guardrails", "becomes", "said"),
    [
        ("step", [], "step", "its loss"),
        ("promote", [WITHIN], "promote", "its loss"),
        ("promote", [WITHIN, SHORT], "wait", "guardrail new is not within for sure: 0 in ["),
        ("step", [WITHIN, SHORT], "step", "its loss"),
        ("step", [WITHIN, EXCEEDS], "wait", "guardrail odd is not within for sure: 0.2 in ["),
        ("wait", [WITHIN, EXCEEDS], "wait", "its loss"),
        ("wait", [SHORT, OUTSIDE], "abort", "guardrail bad is outside for sure: 0.9 in ["),
        ("promote", [SHORT, OUTSIDE], "abort", "guardrail bad is outside for sure"),
        ("abort", [OUTSIDE, SHORT], "abort", "its loss"),
        ("wait", [guardrail("bad", *[0.9] * 20, waits_for="a:1 declares no cost")], "wait", "its loss"),
        ("promote", [guardrail("odd", *[0.0] * 99, waits_for="a:1 declares no cost")], "wait", "a:1 declares no cost"),
        ("promote", [guardrail("new")], "wait", "guardrail new is not within for sure: no score yet"),
    ],
)
def test_a_guardrail_aborts_what_is_outside_and_holds_up_what_is_not_within(action, guardrails, becomes, said):
    said_of_loss = {"abort": "worse", "wait": "undecided"}.get(action, "better")
    share = 0.5 if action == "step" else None
    verdict = TrialVerdict(action=action, why="its loss", share=share, numbers={"finding": said_of_loss})
    found = within_guardrails(RULE, verdict, guardrails)
    assert found.action == becomes
    assert said in found.why
    assert (found.share is None) == (becomes != "step")
    sure = {"abort": "worse"}.get(becomes, "better" if guardrails in ([], [WITHIN]) else "undecided")
    assert found.numbers["finding"] == sure
    assert [one["name"] for one in found.numbers.get("guardrails", ())] == [one.name for one in guardrails]


def test_the_alpha_of_an_abort_is_divided_and_that_of_a_promotion_is_not():
    alone = TrialRule()
    assert (RULE.alpha, RULE.alpha_of_abort) == (alone.alpha, alone.alpha_of_abort / 3)
    assert RULE.alpha_of_step == alone.alpha_of_step / 3
    sure = next(count for count in range(99) if guardrail("bad", *[0.4] * count).figures(alone)["state"] == "outside")
    last = guardrail("bad", *[0.4] * sure)
    assert -math.log(alone.alpha / 2) <= last.whole.above < -math.log(RULE.alpha_of_abort / 2)
    assert last.figures(RULE)["state"] == "undecided"


def test_what_was_fine_for_long_and_is_outside_at_this_step_is_not_saved_by_its_past():
    saved, failing = guardrail("p99", *[0.0] * 2_000, *[0.9] * 20), guardrail("p99", *[0.9] * 20)
    assert saved.figures(RULE)["state"] == "within"
    found = GuardrailEvidence(name="p99", whole=saved.whole, step=failing.step)
    figures = found.figures(RULE)
    assert (figures["state"], figures["estimate"]) == ("outside", pytest.approx(0.9))
    assert 0.1 < figures["lower"] < 0.9
    wait, promote = (TrialVerdict(action=one, why="", numbers={"finding": "better"}) for one in ("wait", "promote"))
    assert within_guardrails(RULE, wait, [found]).action == "abort"
    odd = GuardrailEvidence(name="p99", whole=saved.whole, step=EXCEEDS.step)
    assert within_guardrails(RULE, promote, [odd]).action == "wait"


@pytest.mark.parametrize(("unit", "sign"), [(50.0, 1), (-50.0, -1)])
def test_figures_are_in_the_unit_of_the_metric_whichever_values_are_good(unit, sign):
    found = guardrail("revenue", *[0.3] * 40, unit=unit).figures(RULE)
    assert (found["bound"], found["estimate"]) == (pytest.approx(5.0 * sign), pytest.approx(15.0 * sign))
    assert found["lower"] < found["estimate"] < found["upper"]


def test_a_second_is_one_score_however_many_queries_it_has():
    means = ScoreSums(0.1)
    for second, values in enumerate(([0.0, 1.0], [1.0] * 500, [0.5])):
        for value in values:
            means.add_query(second, value)
    found = means.capital()
    assert (found.scores, found.mean) == (2, 0.75), "the third is not over"
