"""When the rule steps a trial up, promotes it, aborts it, or waits."""

import numpy as np
import pytest

from clipper_stream.errors import InvalidSetting
from clipper_stream.sequential_testing.planned_test import TrialPlan
from clipper_stream.sequential_testing.rollout_rule import TrialRule, judge
from clipper_stream.sequential_testing.trial_evidence import Misses, TrialDecision, TrialEvidence

RULE = TrialRule(margin=0.1, steps=(0.05, 0.5), least=30)
FULL = TrialRule(margin=0.1, steps=(0.5, 1.0), least=30)


def pair(second=0, **fields):
    return TrialDecision(second=second, share=1.0, asked=True, canary=False, **fields)


def after(count, trial, answer, evidence=None, *, second=0):
    """So many pairs."""
    evidence = evidence or TrialEvidence(RULE.margin)
    for _ in range(count):
        evidence.learn(evidence.decide(pair(second)), "label", trial, answer)
    return evidence


def stepped(evidence):
    evidence.next_step()
    return evidence


def drawn(count, evidence=None):
    """So many queries that the trial answered without loss, and as many that the others answered with all."""
    evidence = evidence or TrialEvidence(RULE.margin)
    for _ in range(count):
        for asked in (True, False):
            opened = evidence.decide(TrialDecision(second=0, share=0.5, asked=asked, canary=True))
            evidence.learn(opened, "reward", 0.0 if asked else None, None if asked else 1.0)
    return evidence


def given_up(count, evidence):
    for _ in range(count):
        evidence.give_up(evidence.decide(pair()))
    return evidence


def waiting(count, evidence=None, **fields):
    evidence = evidence or TrialEvidence(RULE.margin)
    for _ in range(count):
        evidence.decide(pair(**fields))
    return evidence


def asked_too_often():
    evidence = drawn(150)
    for number in range(400):
        evidence.decide(TrialDecision(second=1, share=0.5, asked=number % 4 > 0, canary=True))
    return evidence


def missed(count, trial_at_bound, answer_at_bound, trial=1.0, answer=0.0):
    """So many pairs, with the shares of their numbers whose loss stands at the bound."""
    evidence = TrialEvidence(RULE.margin)
    for _ in range(count):
        misses = Misses(trial_at_bound, answer_at_bound, 7.0)
        evidence.learn(evidence.decide(pair()), "label", trial, answer, misses)
    return evidence


STORIES = {
    "nothing is known": (lambda: waiting(0), "wait", "has not answered yet"),
    "it has answered": (lambda: waiting(1), "wait", "no feedback"),
    "few equal": (lambda: after(40, 0.5, 0.5), "wait", "below the margin 0.1"),
    "many equal": (lambda: after(100, 0.5, 0.5), "step", "0.1 more was allowed"),
    "few without loss": (lambda: after(30, 0.0, 0.0), "wait", "below the margin 0.1"),
    "and many with the same outputs": (lambda: waiting(70, after(30, 0.0, 0.0), apart=0.0), "step", "0.1 more"),
    "few that are worse": (lambda: after(15, 1.0, 0.0), "abort", "above the margin 0.1"),
    "many unknown": (lambda: given_up(100, after(100, 0.0, 0.0)), "wait", "by losses that are not known"),
    "many wait": (lambda: waiting(2, after(8, 0.0, 1.0)), "wait", "10 queries do not count yet"),
    "fewer wait": (lambda: after(11, 0.0, 1.0, waiting(2, after(8, 0.0, 1.0)), second=1), "wait", "at least 30"),
    "the trial's at the bound": (lambda: missed(100, 0.06, 0.0, 0.0, 0.5), "wait", "6.0% of the losses of the trial"),
    "few at the bound": (lambda: missed(100, 0.04, 0.04, 0.0, 0.5), "step", "less than the answers"),
    "the trial's at the bound, and worse": (lambda: missed(100, 1.0, 0.0), "abort", "above the margin"),
    "the answers' at the bound": (lambda: missed(100, 0.0, 1.0, 0.5, 1.0), "step", "less than the answers"),
    "more often than the share": (asked_too_often, "wait", "more often than its share says"),
}


@pytest.mark.parametrize(("evidence", "action", "said"), STORIES.values(), ids=STORIES)
def test_a_verdict_about_a_version_says_why(evidence, action, said):
    verdict = judge(RULE, "shadow", 1.0, evidence())
    assert verdict.action == action
    assert said in verdict.why
    assert (verdict.numbers["difference"] is None) == (verdict.numbers["scores"] == 0)
    assert (verdict.numbers["lower"] > RULE.margin) == (action == "abort")


def test_a_better_version_goes_from_shadow_to_canary_to_candidate():
    evidence = after(60, 0.0, 1.0)
    first = judge(RULE, "shadow", 1.0, evidence)
    assert (first.action, first.share) == ("step", 0.05)
    assert first.numbers["scores"] == 60
    assert first.numbers["lower"] <= first.numbers["difference"] == -1.0
    assert first.numbers["upper"] < first.numbers["margin"] == 0.1
    assert first.numbers["confidence"] == 0.95
    after(30, 0.0, 1.0, stepped(evidence))
    second = judge(RULE, "canary", 0.05, evidence)
    assert (second.action, second.share) == ("step", 0.5)
    after(30, 0.0, 1.0, stepped(evidence))
    assert judge(RULE, "canary", 0.5, evidence).action == "promote"


def test_a_step_needs_its_least_feedbacks_however_sure_the_interval():
    evidence = stepped(after(1000, 0.0, 1.0))
    assert "0 feedbacks about it at this step of at least 30" in judge(RULE, "canary", 0.05, evidence).why
    assert judge(RULE, "canary", 0.05, after(29, 0.0, 1.0, evidence)).action == "wait"
    assert judge(RULE, "canary", 0.05, after(1, 0.0, 1.0, evidence)).action == "step"


def test_a_version_that_fails_only_as_a_canary_is_aborted_quickly():
    evidence = stepped(after(2_000, 0.1, 0.1))
    after(20, 1.0, 0.1, evidence)
    assert evidence.whole.capital().upper(RULE.alpha) < RULE.margin, "the whole of it would not have told"
    assert judge(RULE, "canary", 0.05, evidence).action == "abort"


def test_a_step_above_the_margin_waits_although_the_whole_is_below_it():
    evidence = after(3, 1.0, 0.1, after(30, 0.1, 0.1, stepped(after(2_000, 0.1, 0.1))))
    assert evidence.step.capital().mean < RULE.margin
    assert judge(RULE, "canary", 0.05, evidence).action == "step"
    after(3, 1.0, 0.1, evidence)
    assert evidence.step.capital().mean > RULE.margin
    assert judge(RULE, "canary", 0.05, evidence).action == "step", "within one standard error"
    after(4, 1.0, 0.1, evidence)
    verdict = judge(RULE, "canary", 0.05, evidence)
    assert verdict.action == "wait"
    assert "at this step it lost" in verdict.why


def test_losses_of_separate_queries_are_evidence_and_promote_a_canary_that_answers_everything():
    evidence = drawn(150)
    verdict = judge(RULE, "canary", 0.05, evidence)
    assert verdict.action == "step"
    assert verdict.numbers["scores"] == 300
    assert verdict.numbers["difference"] == pytest.approx(-1.0, abs=0.1)
    evidence.next_step()
    for _ in range(30):
        opened = evidence.decide(TrialDecision(second=1, share=1.0, asked=True, canary=True))
        evidence.learn(opened, "reward", 0.0, None)
    assert judge(FULL, "canary", 1.0, evidence).action == "promote"


def test_losing_at_first_and_being_better_for_long_is_no_abort():
    """The interval of the version before crossed itself, and the better version was aborted by the crossed one."""
    evidence = after(40, 1.0, 0.0, TrialEvidence(0.02))
    for number in range(2_000):
        after(1, 0.0, float(number % 8 == 0), evidence)
    evidence.next_step()
    after(50, 0.0, 0.0, evidence)
    verdict = judge(TrialRule(steps=(1.0,)), "canary", 1.0, evidence)
    assert verdict.action == "promote"
    assert verdict.numbers["lower"] < verdict.numbers["difference"] < verdict.numbers["upper"] < 0.02


def test_a_host_is_waited_for_while_it_starts_and_for_a_while():
    evidence = TrialEvidence(0.02)
    for number in range(1_000):
        evidence.decide(pair(number // 20, silent=True))
    assert "has not answered yet, of 1000 queries" in judge(RULE, "shadow", 1.0, evidence).why
    for number in range(1_000):
        evidence.decide(pair(50 + number // 20, silent=number >= 900))
    after(1, 0.0, 0.0, evidence, second=99)
    assert judge(RULE, "shadow", 1.0, evidence).action == "wait"
    for number in range(1_000):
        evidence.decide(pair(100 + number // 20, silent=True))
    verdict = judge(RULE, "shadow", 1.0, evidence)
    assert verdict.action == "abort"
    assert "of its queries unanswered" in verdict.why


def test_losses_at_the_bound_do_not_abort_when_they_are_those_of_the_answers():
    verdict = judge(RULE, "shadow", 1.0, missed(100, 0.0, 0.06))
    assert (verdict.action, "of the losses of the answer stand at the bound" in verdict.why) == ("wait", True)
    assert (verdict.numbers["lower"], verdict.numbers["upper"]) == (-1.0, 1.0)


def test_a_host_that_has_never_answered_is_given_up_ten_minutes_after_it_was_first_asked():
    evidence = TrialEvidence(0.02)
    for second in range(0, 601, 60):
        assert judge(RULE, "shadow", 1.0, evidence).action == "wait"
        evidence.decide(pair(second, silent=True))
    verdict = judge(RULE, "shadow", 1.0, evidence)
    assert (verdict.action, verdict.why) == ("abort", "none of 11 queries was answered by it, in 600 seconds")


@pytest.mark.parametrize(("share", "expected"), [(1.0, "abort"), (0.01, "wait")], ids=["of all queries", "of few"])
def test_a_version_without_a_host_is_given_up_after_an_hour_of_queries_that_were_to_ask_it(share, expected):
    evidence = TrialEvidence(0.02)
    for second in range(0, 3_601, 60):
        assert judge(RULE, "shadow", 1.0, evidence).action == "wait"
        evidence.pass_over(second, share)
    verdict = judge(RULE, "shadow", 1.0, evidence)
    assert (verdict.action, "it had no host to ask" in verdict.why) == (expected, expected == "abort")
    evidence.decide(pair(3_601))
    assert judge(RULE, "shadow", 1.0, evidence).action == "wait"


# --- with a plan, a relative margin, a sample, days ------------------------------------------------------------------
PLAN = TrialRule(margin=0.1, steps=(0.5,), least=30, plan=TrialPlan(feedbacks=400))


def in_plan(count, trial, answer, draw=None, rule=PLAN):
    """So many pairs, with losses of these means."""
    draw, evidence = (
        draw or np.random.default_rng(3),
        TrialEvidence(rule.margin, relative=rule.relative, plan=rule.plan),
    )
    for number in range(count):
        of_all = draw.random()
        losses = float(of_all < trial), float(of_all < answer)
        evidence.learn(evidence.decide(pair(number)), "label", *losses)
    return evidence


@pytest.mark.parametrize(
    ("story", "action", "finding", "said"),
    [
        ((39, 0.1, 0.5), "wait", "undecided", "39 feedbacks, and 0 of 10 parts of its plan are over"),
        ((400, 0.1, 0.5), "step", "better", "better: it loses"),
        ((400, 0.5, 0.1), "abort", "worse", "by its plan"),
        ((400, 0.20, 0.2), "step", "no difference that matters", "0.1 more was allowed"),
        ((400, 0.23, 0.15), "abort", "worse", "since the trial began it lost at least 0."),
    ],
)
def test_a_plan_finds_a_version_better_or_worse_or_without_a_difference_that_matters(story, action, finding, said):
    verdict = judge(PLAN, "shadow", 1.0, in_plan(*story))
    assert (verdict.action, verdict.numbers["finding"]) == (action, finding), verdict
    assert said in verdict.why
    assert verdict.numbers["lower"] <= (verdict.numbers["difference"] or 0.0) <= verdict.numbers["upper"]


def test_a_plan_that_is_over_ends_the_trial_that_it_left_undecided():
    draw = np.random.default_rng(1)
    evidence = TrialEvidence(PLAN.margin, plan=PLAN.plan)
    for number in range(400):
        trial, answer = float(draw.random() < 0.55), float(draw.random() < 0.5)
        assert judge(PLAN, "shadow", 1.0, evidence).action == "wait"
        evidence.learn(evidence.decide(pair(number)), "label", trial, answer)
    verdict = judge(PLAN, "shadow", 1.0, evidence)
    assert (verdict.action, verdict.numbers["finding"]) == ("abort", "undecided")
    assert "its plan is over and leaves it undecided: it loses from -0" in verdict.why


def test_what_a_plan_has_found_is_stepped_up_by_and_by_and_a_step_that_fails_is_aborted():
    evidence = in_plan(400, 0.1, 0.5)
    evidence.next_step()
    assert "0 feedbacks about it at this step" in judge(PLAN, "canary", 0.5, evidence).why
    fails = after(30, 1.0, 0.0, evidence, second=500)
    assert judge(PLAN, "canary", 0.5, fails).action == "abort"


@pytest.mark.parametrize(("relative", "action"), [(0.0, "step"), (1.0, "abort")], ids=["0.02", "as many again"])
def test_rare_failures_are_held_against_a_multiple_of_the_answers_own(relative, action):
    """.002 to .010 was within the margin of 0.02."""
    rule = TrialRule(relative=relative)
    draw, evidence = np.random.default_rng(1), TrialEvidence(rule.margin, relative=relative)
    for number in range(6_000):
        failing = draw.random()
        opened = evidence.decide(pair(number))
        evidence.learn(opened, "label", float(failing < 0.01), float(failing < 0.002))
    assert judge(rule, "shadow", 1.0, evidence).action == action


@pytest.mark.parametrize("relative", [0.0, 0.5])
def test_a_relative_margin_is_that_of_losses_that_are_known_drawn_or_paired(relative):
    """The mean of the scores is the trial's loss less 1.5 times that of the answers."""
    draw = np.random.default_rng(2)
    for pairs in (False, True):
        evidence = TrialEvidence(0.02, relative=relative)
        for number in range(1_500):
            asked, losses = bool(draw.random() < 0.5), draw.random(2)
            if pairs:
                evidence.learn(evidence.decide(pair(number)), "label", *losses)
            else:
                opened = evidence.decide(TrialDecision(second=number, share=0.5, asked=asked, canary=True))
                evidence.learn(opened, "reward", losses[0] if asked else None, None if asked else losses[1])
        whole = evidence.whole.capital()
        assert whole.mean == pytest.approx(whole.estimate(relative))
        assert whole.mean == pytest.approx(0.5 - (1.0 + relative) * 0.5, abs=0.05)
        assert whole.lower(0.025) < whole.mean < whole.upper(0.025)


@pytest.mark.parametrize("missing", [0.5, 0.0], ids=["half of the trial's failures are not heard", "of both as many"])
def test_a_sample_of_the_feedback_is_not_believed_where_it_follows_who_answered(missing):
    draw, evidence, waiting = np.random.default_rng(1), TrialEvidence(0.02, 100.0, sampled=True), []
    for number in range(4_000):
        asked, lost = bool(draw.random() < 0.5), bool(draw.random() < 0.4)
        opened = evidence.decide(TrialDecision(second=number, share=0.5, asked=asked, canary=True))
        if opened is None:
            continue
        waiting.append(opened)
        if draw.random() > (missing if asked and lost else 0.05):
            evidence.learn(opened, "reward", float(lost) if asked else None, None if asked else float(lost))
            waiting.pop()
        while waiting and waiting[0].decision.second < number - 100:
            evidence.give_up(waiting.pop(0))
    verdict = judge(TrialRule(), "canary", 0.5, evidence)
    assert ("sampled_feedback is not believed" in verdict.why) is (missing > 0.0), verdict
    assert missing == 0.0 or verdict.action == "wait"


def test_a_promotion_waits_for_the_whole_days_that_it_is_to_last():
    rule = TrialRule(margin=0.1, steps=(1.0,), least=30, least_days=2)
    evidence = after(100, 0.0, 1.0)
    assert "on trial for 0.0 days of at least 2" in judge(rule, "canary", 1.0, evidence).why
    after(30, 0.0, 1.0, evidence, second=2 * 86_400)
    assert judge(rule, "canary", 1.0, evidence).action == "promote"
    assert judge(rule, "shadow", 1.0, after(100, 0.0, 1.0)).action == "step"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("confidence", [1.0, 0.0]),
        ("margin", [-0.1, 1.1]),
        ("steps", [(), (0.5, 0.1), (0.1, 0.1), (0.0, 0.1), (0.5, 1.5)]),
    ],
)
def test_a_rule_of_impossible_values_is_refused(name, values):
    for value in values:
        with pytest.raises(InvalidSetting, match=name):
            TrialRule(**{name: value})


def test_a_share_between_two_steps_goes_to_the_next_one():
    assert [RULE.next_share(share) for share in (0.0, 0.05, 0.1, 0.5, 0.9)] == [0.05, 0.5, 0.5, None, None]


def test_all_aborts_of_all_attempts_together_have_the_alpha_of_a_side():
    rules = [TrialRule(steps=(0.05, 0.25, 0.5), attempt=attempt) for attempt in range(1, 20)]
    spent = [rule.alpha / 2 + 4 * rule.alpha_of_step + rule.alpha / 4 for rule in rules]
    assert sum(spent) == pytest.approx((1 - RULE.confidence) / 2)
    assert spent[0] > 0.9 * sum(spent[:2]), "the first one is decided nearly as soon as if it were the only one"
    assert TrialRule(at_once=3).alpha == pytest.approx(TrialRule().alpha / 3), "trials that are on at once share it"
