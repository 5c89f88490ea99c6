"""What each query says about a trial."""

import numpy as np
import pytest

from clipper_stream.errors import InvalidLabel
from clipper_stream.sequential_testing.planned_test import TrialPlan
from clipper_stream.sequential_testing.rollout_rule import TrialRule, numbers_of
from clipper_stream.sequential_testing.score_sums import Score, ScoreSums
from clipper_stream.sequential_testing.trial_evidence import LossForecast, TrialDecision, TrialEvidence


def pair(second=1, **given):
    return TrialDecision(second=second, share=1.0, asked=True, canary=False, **given)


def canary(share=0.25, *, asked=True, second=1, **given):
    return TrialDecision(second=second, share=share, asked=asked, canary=True, **given)


def begun(kind="label"):
    """Evidence of a version that has answered, and is decided by labels or rewards."""
    evidence = TrialEvidence(0.02)
    evidence.began, evidence.kind = 0, kind
    return evidence


def test_until_its_feedback_a_pair_is_as_far_apart_as_its_outputs_can_be():
    evidence = begun()
    same, near = (evidence.decide(pair(apart=apart)) for apart in (0.0, 0.25))
    assert (same.score, near.score) == (Score(1.0, 0.0, 0.0, waiting=False), Score(1.0, -0.25, 0.25, waiting=True))
    evidence.give_up(near)
    assert near.score == Score(1.0, -0.25, 0.25, waiting=False)


@pytest.mark.parametrize(("trial", "answer"), [(0.0, 1.0), (1.0, 0.0)])
def test_known_losses_have_one_difference_however_alike_the_outputs_were(trial, answer):
    """The lower end of the interval lay above the upper one."""
    evidence = begun()
    for apart in (0.0, 0.25) * 20:
        opened = evidence.decide(pair(apart=apart))
        evidence.learn(opened, "label", trial, answer)
        assert (opened.score.low, opened.score.high) == (trial - answer, trial - answer)
    found = evidence.whole.capital()
    assert found.lower(0.025) <= trial - answer <= found.upper(0.025)


@pytest.mark.parametrize("kind", ["label", "reward"])
def test_the_difference_that_is_told_is_of_the_losses_that_feedback_told(kind):
    """Half of a loss stood for each that was not known: a trial without errors seemed worse than one with some."""
    evidence = begun(kind)
    for number in range(400):
        asked = number % 4 == 0
        silent, heard = asked and number % 3 == 0, number % 10 < 8
        opened = evidence.decide(canary(asked=asked, second=number, silent=silent))
        answer = number % 8 / 8 if kind == "label" or not asked else None
        if heard:
            evidence.learn(opened, kind, 0.0 if asked and not silent else None, answer)
        else:
            evidence.give_up(opened)
    found = numbers_of(TrialRule(), evidence, evidence.whole.capital())
    numbers = range(0, 400, 4) if kind == "label" else range(400)
    told = [number for number in numbers if number % 10 < 8 and (number % 4 or number % 3)]
    answers = [number % 8 / 8 for number in told if kind == "label" or number % 4]
    trials = [number for number in told if number % 4 == 0]
    assert (found["trial_feedbacks"], found["answer_feedbacks"]) == (len(trials), len(answers))
    assert (found["trial_loss"], found["answer_loss"]) == (0.0, pytest.approx(np.mean(answers)))
    assert found["difference"] == pytest.approx(found["trial_loss"] - found["answer_loss"])
    assert found["lower"] < found["difference"] < found["upper"]


def test_the_estimate_is_of_the_queries_that_its_interval_is_of():
    """It was that of 100 queries, of which the trial lost 30 more; the interval was of 900 others as well."""
    evidence = begun()
    for number in range(1_000):
        opened = evidence.decide(pair(number, apart=float(number < 100)))
        if number < 100:
            evidence.learn(opened, "label", float(number < 30), 0.0)
        else:
            evidence.give_up(opened)
    found = numbers_of(TrialRule(), evidence, evidence.whole.capital())
    assert (found["difference"], found["trial_loss"] - found["answer_loss"]) == (pytest.approx(0.03), 0.3)
    assert found["lower"] < found["difference"] < found["upper"] < 0.3


@pytest.mark.parametrize("seed", range(20))
def test_the_difference_lies_in_its_interval_also_when_the_share_was_raised_while_losses_changed(seed):
    """The difference of plain means compared most answers of an easy time with most of the trial's of a hard one."""
    rng, evidence = np.random.default_rng(seed), begun("reward")
    for number in range(4_000):
        share, hardness = (0.05, 0.1) if number < 3_000 else (0.5, 0.6)
        asked = bool(rng.random() < share)
        opened = evidence.decide(canary(asked=asked, share=share, second=number // 10))
        loss = float(rng.random() < hardness + 0.05 * asked)
        evidence.learn(opened, "reward", loss if asked else None, None if asked else loss)
    found = numbers_of(TrialRule(), evidence, evidence.whole.capital())
    assert found["lower"] < found["difference"] < found["upper"]
    assert abs(found["difference"] - 0.05) < 0.1


def test_of_a_canary_that_labels_do_not_compare_who_served_is_scored_by_the_share():
    evidence = begun("reward")
    served, others = evidence.decide(canary()), evidence.decide(canary(asked=False))
    assert served.score == Score(0.1875, 0.75 * -0.5, 0.75 * 0.5, waiting=True, known=0.75)
    assert others.score == Score(0.1875, -0.25 * 0.5, -0.25 * -0.5, waiting=True, known=0.25)
    evidence.learn(served, "reward", 1.0, None)
    evidence.learn(others, "reward", None, 1.0)
    assert (served.score.low, served.score.high) == (0.375, 0.375)
    assert (others.score.low, others.score.high) == (-0.125, -0.125)
    later = evidence.decide(canary())
    assert later.recent > 0.8, "losses are compared with those that came before the query was drawn"


def test_a_label_that_knows_no_answer_where_the_canary_served_scores_who_served():
    ensemble = begun()
    opened = ensemble.decide(canary(0.5, answer_known=False))
    ensemble.learn(opened, "label", 1.0, None)
    assert opened.score == Score(0.25, 0.25, 0.25, waiting=False, trial=1.0, known=0.5)


def test_nothing_counts_before_its_first_answer():
    evidence = TrialEvidence(0.02)
    assert [evidence.decide(pair(second, silent=True)) for second in (1, 2)] == [None, None]
    assert evidence.decide(pair(5)) is not None
    assert evidence.decide(pair(4)) is None
    assert (evidence.began, evidence.asked) == (5, 4)
    assert evidence.silence.capital().mean is None


def test_who_did_not_answer_is_left_out_of_pairs_and_unknown_where_one_is_drawn():
    for silent in ({"silent": True}, {"models_silent": True}):
        drawn, asked = begun("reward"), "silent" in silent
        assert begun().decide(pair(**silent)).score is None
        opened = drawn.decide(canary(0.5, asked=asked, **silent))
        assert (opened.score.high - opened.score.low, opened.score.waiting) == (0.5, False)
        drawn.learn(opened, "reward", 1.0 if asked else None, None if asked else 1.0)
        assert opened.score.high - opened.score.low == 0.5, "the feedback is about what was given instead"


def test_silence_is_counted_by_the_second_and_less_that_of_the_models():
    evidence = begun()
    for second, silent, models_silent in ((1, True, False), (1, False, False), (2, True, True), (3, False, False)):
        evidence.decide(pair(second, silent=silent, models_silent=models_silent))
    found = evidence.silence.capital()
    assert (found.scores, found.mean) == (2, 0.25), "half of one second, none of the next, and the third is not over"


def test_the_first_feedback_says_by_what_a_trial_is_decided():
    evidence = TrialEvidence(0.02)
    first, second, third = (evidence.decide(canary()) for _ in range(3))
    evidence.give_up(third)
    assert evidence.whole.capital().scores == 0
    evidence.learn(first, "reward", 1.0, None)
    assert (second.score.waiting, third.score) == (True, None), "who came before it is waited for, if nobody gave it up"
    evidence.learn(second, "label", 1.0, 0.0)
    assert second.score.waiting, "a label says nothing where rewards decide"
    evidence.give_up(second)
    assert evidence.whole.capital().scores == 2


@pytest.mark.parametrize("sampled", [False, True])
def test_a_stray_first_label_decides_nothing_once_rewards_have_come(sampled):
    """8,000 rewards counted for nothing."""
    draw, voted, known = np.random.default_rng(3), *(TrialEvidence(0.02, sampled=sampled) for _ in range(2))
    known.began, known.kind = 0, "reward"
    for number in range(200):
        asked, kind = bool(draw.random() < 0.25), "reward" if number else "label"
        loss = float(draw.random() < 0.3)
        for evidence in (voted, known):
            opened = evidence.decide(canary(asked=asked or not number, second=number))
            if number % 5 == 4:
                evidence.give_up(opened)
            else:
                evidence.learn(opened, kind, loss if asked else None, None if asked else loss)
    assert (voted.kind, voted.whole.capital().scores) == ("reward", known.whole.capital().scores)
    assert voted.whole.capital().waiting == known.whole.capital().waiting
    assert voted.whole.capital().mean == pytest.approx(known.whole.capital().mean, abs=0.1)


def test_late_feedback_about_an_earlier_step_does_not_count_for_the_next():
    evidence = begun()
    early = evidence.decide(pair())
    evidence.next_step()
    evidence.learn(early, "label", 1.0, 0.0)
    evidence.give_up(evidence.decide(pair(), of_step=False))
    evidence.learn(evidence.decide(pair()), "label", 0.0, 0.0)
    assert (evidence.whole.capital().scores, evidence.step.capital().scores) == (3, 1)
    assert evidence.step.capital().mean == 0.0


def test_queries_left_out_by_chance_count_as_drawn_alone_and_a_loss_outside_of_its_range_is_refused():
    evidence = begun()
    assert evidence.decide(canary(0.5, scored=False)) is None
    assert (evidence.share.capital().mean, evidence.whole.capital().scores) == (0.5, 0)
    with pytest.raises(InvalidLabel):
        evidence.learn(evidence.decide(pair()), "label", 1.5, 0.0)


def by_formula(kind, decision, recent, trial, answer):
    """The scores of a query once all is known, as the formulas of the page have them."""
    p = decision.share
    if kind == "label":
        return [Score(1.0, trial - answer, trial - answer)] if decision.asked else []
    drawn = (1 - p) * (trial - recent) if decision.asked else -p * (answer - recent)
    return [Score(p * (1 - p), drawn, drawn)]


@pytest.mark.parametrize("kind", ["label", "reward"])
def test_in_whichever_order_feedback_comes_the_evidence_is_that_of_the_formulas(kind):
    rng, evidence, known, waiting = np.random.default_rng(11), begun(kind), ScoreSums(0.02), []

    def learn_one():
        late, (trial, answer) = waiting.pop(int(rng.integers(len(waiting))))
        asked = late.decision.asked
        evidence.learn(late, kind, trial if asked else None, answer if kind == "label" or not asked else None)

    for second in range(300):
        share, losses = 0.1 + 0.8 * second / 300, (float(rng.random()), float(rng.random()))
        decision = canary(share, asked=bool(rng.random() < share), second=second)
        opened = evidence.decide(decision)
        for score in by_formula(kind, decision, opened.recent, *losses):
            known.add(0, score)
        waiting.append((opened, losses))
        if rng.random() < 0.5:
            learn_one()
    while waiting:
        learn_one()
    found, expected = evidence.whole.capital(), known.capital()
    assert (found.scores, found.waiting) == (expected.scores, 0)
    assert (found.below, found.above, found.mean) == pytest.approx((expected.below, expected.above, expected.mean))


def test_a_forecast_from_before_the_draw_leaves_less_to_chance_and_the_expectation_as_it_is():
    draw = np.random.default_rng(5)
    evidence, blind = begun("reward"), begun("reward")
    for number in range(3_000):
        hard, asked = bool(draw.random() < 0.5), bool(draw.random() < 0.25)
        context, loss = f"{hard} {draw.integers(5)}", float(draw.random() < 0.1 + 0.8 * hard)
        for one, known in ((evidence, {"context": context}), (blind, {})):
            opened = one.decide(canary(asked=asked, second=number, **known))
            one.learn(opened, "reward", loss if asked else None, None if asked else loss)
    found, plain = evidence.whole.capital(), blind.whole.capital()
    assert found.standard_error < 0.75 * plain.standard_error
    assert abs(found.mean) < 3 * found.standard_error


def test_a_forecast_remembers_the_contexts_that_came_last(monkeypatch):
    monkeypatch.setattr("clipper_stream.sequential_testing.trial_evidence.MOST_CONTEXTS", 3)
    forecast = LossForecast()
    for number in range(200):
        forecast.learn(f"context {number}", float(number > 150))
    assert len(forecast._sums) == 3
    assert forecast.of("context 199") > forecast.of("context 0") == forecast.of("")


def planned(feedbacks, draw, worse, evidence=None):
    """Evidence of so many pairs, in a plan of 1,000 feedbacks."""
    evidence = evidence or TrialEvidence(0.05, plan=TrialPlan(feedbacks=1_000))
    for number in range(feedbacks):
        opened = evidence.decide(pair(number))
        evidence.learn(opened, "label", float(draw.random() < 0.2 + worse), float(draw.random() < 0.2))
    return evidence


def test_looks_are_taken_at_parts_of_the_plan_however_often_somebody_asks():
    seldom, often = planned(0, None, 0.0), planned(0, None, 0.0)
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    planned(1_400, one, 0.0, seldom)
    for _ in range(1_400):
        planned(1, other, 0.0, often)
        often.whole.capital()
    assert [look.fraction for look in seldom.looks] == pytest.approx([part / 10 for part in range(1, 11)])
    assert [look.scores.scores for look in seldom.looks] == [100 * part for part in range(1, 11)]
    assert [look.scores.mean for look in often.looks] == [look.scores.mean for look in seldom.looks]


def test_a_plan_in_days_takes_its_looks_by_the_time_of_the_queries():
    evidence = TrialEvidence(0.05, plan=TrialPlan(days=1.0))
    evidence.kind = "label"
    for second in range(0, 90_000, 1_000):
        evidence.decide(pair(second, apart=0.0))
    assert [look.scores.upto for look in evidence.looks][:2] == [9_001 - 1_000, 18_001 - 1_000]
    assert len(evidence.looks) == 10
