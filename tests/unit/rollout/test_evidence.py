"""The fold of the logs: what is known at a place does not depend on when the control topic was read."""

import random

import pytest
from builders.rollout_logs import answered, decided
from unit.rollout.rig import (
    CANARY,
    CATALOGUE,
    PLAIN,
    SHADOW,
    control_of,
    control_records,
    fold_of,
    log_record,
    query,
    with_trials,
)

from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.rollout.evidence import UnknownRevision
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import RolloutRule, Trial
from clipper_topics.restore import RESTORE

RULE = RolloutRule(margin=0.2, steps=[1.0], least=20)
AUTOMATIC = Trial(model="new:1", automatic=True)
STEPPED = Trial(model="new:1", stage="canary", share=1.0, automatic=True)


def queries(count, revision, seed=1):
    """Records of queries of one revision, which the canary of the second one answers."""
    draw, asked = random.Random(seed), ("a:1", "new:1") if revision == 1 else ("new:1", "a:1")
    found = []
    for number in range(count):
        served, beside = (answered(ref, int(draw.random() < 0.8)) for ref in asked)
        found += query(f"0-{revision}-{number}", served, beside=[beside], revision=revision)
    return found


def better(fold, count, revision=1):
    """So many more queries of a revision, at each of which the trial alone is right."""
    for number in range(count):
        served, beside = answered("a:1", 0), answered("new:1", 1)
        if revision == 2:
            served, beside = beside, served
        for one in query(f"0-{revision}-{number}", served, beside=[beside], revision=revision):
            fold.take(one, 0)
        yield number + 1, fold.decisions(["digits"], all_read=True)


def test_a_step_that_is_heard_of_late_or_early_makes_no_difference():
    from_the_past = fold_of(control_of(with_trials(SHADOW), with_trials(CANARY)))
    late = control_of(with_trials(SHADOW))
    live, heard = fold_of(late), []
    for at_ms, one in enumerate(queries(60, revision=1) + queries(40, revision=2)):
        from_the_past.take(one, at_ms)
        try:
            live.take(one, at_ms)
        except UnknownRevision as ahead:
            heard.append((ahead.application, ahead.revision, at_ms))
            late.take(control_records(with_trials(CANARY), 2))
            live.follow(comparison_specs(late))
            live.take(one, at_ms)
    assert heard == [("digits", 2, 180)]
    assert live.comparisons() == from_the_past.comparisons()
    trial = live.comparisons()[0]
    assert (trial.stage, trial.feedbacks) == ("canary", 100)
    assert -1.0 < trial.lower <= trial.difference <= trial.upper < 1.0


def test_a_revision_that_is_not_followed_yet_is_said_of_any_application():
    with pytest.raises(UnknownRevision, match="revision 7 of digits"):
        fold_of(control_of(PLAIN)).take(query("0-1", answered("a:1", 1), revision=7)[0], 0)


def test_queries_of_before_the_trial_are_no_evidence_and_are_not_remembered():
    fold = fold_of(control_of(PLAIN, with_trials(SHADOW)))
    for one in queries(10, revision=1):
        if one.topic != CATALOGUE.audits:
            fold.take(one, 0)
    assert fold.remembered == 0
    assert {one.feedbacks for one in fold.comparisons()} == {0}


def test_a_rule_fires_for_an_automatic_trial_alone():
    by_hand, automatic = (fold_of(control_of(with_trials(trial, rollout=RULE))) for trial in (SHADOW, AUTOMATIC))
    assert [made for _, made in better(by_hand, 200) if made] == []
    feedbacks, (step,) = next((count, made) for count, made in better(automatic, 200) if made)
    assert (step.command, step.share, step.revision, step.numbers["scores"]) == ("step", 1.0, 1, feedbacks)
    assert RULE.least <= feedbacks < 30


def test_late_feedback_about_queries_of_the_step_before_does_not_make_the_next_step():
    fold = fold_of(control_of(with_trials(AUTOMATIC, rollout=RULE), with_trials(STEPPED, rollout=RULE)))
    assert [made for _, made in better(fold, 60) if made] == []
    *before, (_, last) = better(fold, RULE.least, revision=2)
    assert ([made for _, made in before if made], [one.command for one in last]) == ([], ["promote"])


def test_records_that_say_nothing_stop_nobody_and_are_counted():
    fold = fold_of(control_of(with_trials(SHADOW, loss="absolute")))
    useless = Feedback(query_id="0-1", label="no number")
    for one in (
        *(log_record(topic, value) for topic in (CATALOGUE.predictions, CATALOGUE.audits, CATALOGUE.feedback)
          for value in (b"{", None)),
        log_record(CATALOGUE.feedback, b"rows of a state", headers=((RESTORE, b"7"),)),
        log_record(CATALOGUE.predictions, codec.predictions.encode(decided("0-1", answered("a:1", 1.0)))),
        log_record(CATALOGUE.feedback, codec.feedback.encode(useless)),
        log_record(CATALOGUE.feedback, codec.feedback.encode(Feedback(query_id="0-1", label=1.0))),
    ):  # fmt: skip
        fold.take(one, 0)
    assert fold.dropped == {"undecodable": 6, "invalid": 1}
    (candidate,) = [one for one in fold.comparisons() if one.stage == "live"]
    assert (candidate.model, candidate.feedbacks, candidate.loss) == ("a:1", 1, 0.0)


def test_who_is_no_longer_watched_is_forgotten():
    fold = fold_of(control_of(with_trials(SHADOW)))
    assert len(fold.comparisons()) == 2
    fold.follow({})
    assert (fold.comparisons(), fold.decisions(["digits"], all_read=True)) == ([], [])
