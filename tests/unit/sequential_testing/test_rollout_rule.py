"""When the rule steps a trial up, promotes it, aborts it, or waits."""

import random

import pytest

from clipper_stream.errors import InvalidLabel, InvalidSetting
from clipper_stream.sequential_testing.evidence import DifferenceEvidence
from clipper_stream.sequential_testing.rollout_rule import TrialEvidence, TrialRule, judge

RULE = TrialRule(margin=0.1, steps=(0.05, 0.5), least=30)


def after(count, trial, answer, evidence=None, *, of_step=True):
    evidence = evidence or TrialEvidence.of(RULE)
    for _ in range(count):
        evidence = evidence.observe(trial, answer, of_step=of_step)
    return evidence


def test_nothing_is_done_while_nothing_is_known():
    verdict = judge(RULE, "shadow", 1.0, TrialEvidence.of(RULE))
    assert (verdict.action, verdict.numbers["feedbacks"], verdict.numbers["difference"]) == ("wait", 0, None)


def test_a_better_version_goes_from_shadow_to_canary_to_candidate():
    evidence = after(60, 0.0, 1.0)
    first = judge(RULE, "shadow", 1.0, evidence)
    assert (first.action, first.share) == ("step", 0.05)
    assert first.numbers["feedbacks"] == 60
    assert first.numbers["lower"] <= first.numbers["difference"] == -1.0
    assert first.numbers["upper"] < first.numbers["margin"] == 0.1
    assert first.numbers["confidence"] == 0.95
    evidence = after(30, 0.0, 1.0, evidence.at_next_step(RULE))
    second = judge(RULE, "canary", 0.05, evidence)
    assert (second.action, second.share) == ("step", 0.5)
    evidence = after(30, 0.0, 1.0, evidence.at_next_step(RULE))
    assert judge(RULE, "canary", 0.5, evidence).action == "promote"


def test_a_step_needs_its_least_feedbacks_however_sure_the_interval():
    evidence = after(1000, 0.0, 1.0).at_next_step(RULE)
    assert judge(RULE, "canary", 0.05, evidence).why == "0 feedbacks about it at this step of at least 30"
    assert judge(RULE, "canary", 0.05, after(29, 0.0, 1.0, evidence)).action == "wait"
    assert judge(RULE, "canary", 0.05, after(30, 0.0, 1.0, evidence)).action == "step"


def test_feedback_about_queries_of_an_earlier_step_counts_for_the_interval_alone():
    evidence = after(100, 0.0, 1.0, after(100, 0.0, 1.0).at_next_step(RULE), of_step=False)
    assert (evidence.whole.feedbacks, evidence.step.feedbacks) == (200, 0)


def test_an_equal_version_is_stepped_up_once_the_interval_lies_below_the_margin():
    assert judge(RULE, "shadow", 1.0, after(40, 0.5, 0.5)).action == "wait"
    assert judge(RULE, "shadow", 1.0, after(400, 0.5, 0.5)).action == "step"


def test_a_worse_version_is_aborted_before_the_least_number_of_feedbacks():
    verdict = judge(RULE, "shadow", 1.0, after(25, 1.0, 0.0))
    assert verdict.action == "abort"
    assert verdict.numbers["lower"] > RULE.margin
    assert "above the margin 0.1" in verdict.why


def test_a_version_that_fails_only_as_a_canary_is_aborted_quickly():
    fine = after(2_000, 0.1, 0.1).at_next_step(RULE)
    failing = after(30, 1.0, 0.1, fine)
    assert failing.whole.upper < RULE.margin, "the whole of it would not have told"
    assert judge(RULE, "canary", 0.05, failing).action == "abort"


def test_a_step_above_the_margin_waits_although_the_whole_is_below_it():
    fine = after(2_000, 0.1, 0.1).at_next_step(RULE)
    doubtful = after(8, 1.0, 0.1, after(30, 0.1, 0.1, fine))
    noisy = after(4, 1.0, 0.1, after(30, 0.1, 0.1, fine))
    verdict = judge(RULE, "canary", 0.05, doubtful)
    assert verdict.action == "wait"
    assert "at this step it lost" in verdict.why
    assert noisy.step.difference > RULE.margin
    assert judge(RULE, "canary", 0.05, noisy).action == "step", "within one standard error"


def test_losses_of_separate_queries_are_evidence_as_well():
    evidence = TrialEvidence.of(RULE)
    for _ in range(150):
        evidence = evidence.observe(0.0, None).observe(None, 1.0)
    verdict = judge(RULE, "canary", 0.05, evidence)
    assert verdict.action == "step"
    assert (verdict.numbers["feedbacks"], verdict.numbers["difference"]) == (150, -1.0)


def test_a_canary_that_answers_everything_is_promoted_by_earlier_evidence():
    evidence = TrialEvidence.of(TrialRule(margin=0.1, steps=(0.5, 1.0), least=30))
    for _ in range(150):
        evidence = evidence.observe(0.0, None).observe(None, 1.0)
    evidence = after(30, 0.0, None, evidence.at_next_step(RULE))
    assert judge(TrialRule(margin=0.1, steps=(0.5, 1.0), least=30), "canary", 1.0, evidence).action == "promote"


def test_answers_alone_say_nothing_about_a_trial():
    evidence = after(1_000, None, 1.0)
    assert evidence.whole.difference is None
    assert judge(RULE, "shadow", 1.0, evidence).action == "wait"


def test_pairs_are_narrower_than_two_samples_when_versions_make_the_same_mistakes():
    draw = random.Random(5)
    pairs = samples = DifferenceEvidence.of(0.05)
    for _ in range(500):
        loss = float(draw.random() < 0.3)
        pairs = pairs.observe(loss, loss)
        samples = samples.observe(loss, None).observe(None, float(draw.random() < 0.3))
    widths = [one.upper - one.lower for one in (pairs, samples)]
    assert widths[0] < widths[1] / 3


def test_a_loss_outside_of_its_range_is_refused():
    with pytest.raises(InvalidLabel):
        DifferenceEvidence.of(0.05).observe(1.5, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 1.0},
        {"confidence": 0.0},
        {"margin": -0.1},
        {"margin": 1.1},
        {"steps": ()},
        {"steps": (0.5, 0.1)},
        {"steps": (0.1, 0.1)},
        {"steps": (0.0, 0.1)},
        {"steps": (0.5, 1.5)},
    ],
)
def test_a_rule_of_impossible_values_is_refused(wrong):
    with pytest.raises(InvalidSetting, match="such as"):
        TrialRule(**wrong)


def test_a_share_between_two_steps_goes_to_the_next_one():
    assert [RULE.next_share(share) for share in (0.0, 0.05, 0.1, 0.5, 0.9)] == [0.05, 0.5, 0.5, None, None]


def test_all_intervals_of_a_trial_together_have_the_confidence_that_was_asked_for():
    rule = TrialRule(steps=(0.05, 0.25, 0.5))
    assert rule.alpha_of_trial + 4 * rule.alpha_of_step == pytest.approx(1 - rule.confidence)
    one = DifferenceEvidence.of(rule.alpha_of_trial)
    assert one.pairs.alpha + one.trial.alpha + one.answers.alpha == pytest.approx(rule.alpha_of_trial)
