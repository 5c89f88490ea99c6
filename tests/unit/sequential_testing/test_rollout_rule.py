"""When the rule steps a trial up, promotes it, aborts it, or waits."""

import pytest

from clipper_stream.errors import InvalidSetting
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
