"""The fold of the logs: what is known at a place does not depend on when the control topic was read."""

import random
from types import SimpleNamespace

import pytest
from builders.rollout_logs import (
    CANARY,
    PLAIN,
    SHADOW,
    answered,
    audit_of,
    control_of,
    control_records,
    decided,
    with_trials,
)

from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.rollout.evidence import EvidenceFold, UnknownRevision
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import RolloutRule, Trial
from clipper_topics.restore import RESTORE

CATALOGUE = Catalogue(partitions=1)
RULE = RolloutRule(margin=0.2, steps=[1.0], least=20)
AUTOMATIC = Trial(model="new:1", automatic=True)


def record(topic, value, offset=0, headers=()):
    return SimpleNamespace(topic=topic, partition=0, offset=offset, value=value, headers=headers)


def queries(count, revision, seed=1):
    """Records of queries of one revision, in order: prediction, audit, feedback of each."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        query_id = f"0-{revision}-{number}"
        asked = ("a:1", "new:1") if revision == 1 else ("new:1", "a:1")
        served, beside = (answered(ref, int(draw.random() < 0.8)) for ref in asked)
        prediction = decided(query_id, served, revision=revision, audited=True)
        feedback = Feedback(query_id=query_id, label=1)
        found += [
            record(CATALOGUE.predictions, codec.predictions.encode(prediction)),
            record(CATALOGUE.audits, codec.audits.encode(audit_of(query_id, beside))),
            record(CATALOGUE.feedback, codec.feedback.encode(feedback)),
        ]
    return found


def fold_of(control):
    fold = EvidenceFold(CATALOGUE, control.current, 3600.0, 1000)
    fold.follow(comparison_specs(control))
    return fold


def test_a_step_that_is_heard_of_late_or_early_makes_no_difference():
    early = control_of(with_trials(SHADOW), with_trials(CANARY))
    from_the_past = fold_of(early)
    logs = queries(60, revision=1) + queries(40, revision=2)
    for at_ms, one in enumerate(logs):
        from_the_past.take(one, at_ms)
    late = control_of(with_trials(SHADOW))
    live = fold_of(late)
    heard = []
    for at_ms, one in enumerate(logs):
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
    fold = fold_of(control_of(PLAIN))
    ahead = decided("0-1", answered("a:1", 1), revision=7)
    with pytest.raises(UnknownRevision, match="revision 7 of digits"):
        fold.take(record(CATALOGUE.predictions, codec.predictions.encode(ahead)), 0)


def test_queries_of_before_the_trial_are_no_evidence_and_are_not_remembered():
    fold = fold_of(control_of(PLAIN, with_trials(SHADOW)))
    for one in queries(10, revision=1):
        if one.topic != CATALOGUE.audits:
            fold.take(one, 0)
    assert fold.remembered == 0
    assert {one.feedbacks for one in fold.comparisons()} == {0}


def test_a_rule_fires_for_an_automatic_trial_alone():
    by_hand, automatic = (fold_of(control_of(with_trials(trial, rollout=RULE))) for trial in (SHADOW, AUTOMATIC))
    fired = []
    for number in range(200):
        for fold in (by_hand, automatic):
            query_id = f"0-{number}"
            prediction = decided(query_id, answered("a:1", 0), audited=True)
            fold.take(record(CATALOGUE.predictions, codec.predictions.encode(prediction)), 0)
            fold.take(record(CATALOGUE.audits, codec.audits.encode(audit_of(query_id, answered("new:1", 1)))), 0)
            fold.take(record(CATALOGUE.feedback, codec.feedback.encode(Feedback(query_id=query_id, label=1))), 0)
        if not fired and (found := automatic.decisions(["digits"], all_read=True)):
            fired.append((number + 1, *found))
    assert by_hand.decisions(["digits"], all_read=True) == []
    ((feedbacks, step),) = fired
    assert (step.command, step.share, step.revision, step.numbers["scores"]) == ("step", 1.0, 1, feedbacks)
    assert RULE.least <= feedbacks < 30


def test_late_feedback_about_queries_of_the_step_before_does_not_make_the_next_step():
    canary = Trial(model="new:1", stage="canary", share=1.0, automatic=True)
    fold = fold_of(control_of(with_trials(AUTOMATIC, rollout=RULE), with_trials(canary, rollout=RULE)))

    def better(count, revision):
        for number in range(count):
            query_id = f"0-{revision}-{number}"
            served, beside = answered("a:1", 0), answered("new:1", 1)
            if revision == 2:
                served, beside = beside, served
            prediction = decided(query_id, served, revision=revision, audited=True)
            fold.take(record(CATALOGUE.predictions, codec.predictions.encode(prediction)), 0)
            fold.take(record(CATALOGUE.audits, codec.audits.encode(audit_of(query_id, beside))), 0)
            fold.take(record(CATALOGUE.feedback, codec.feedback.encode(Feedback(query_id=query_id, label=1))), 0)

    better(60, revision=1)
    assert fold.decisions(["digits"], all_read=True) == []
    better(RULE.least - 1, revision=2)
    assert fold.decisions(["digits"], all_read=True) == []
    better(RULE.least, revision=2)
    assert [one.command for one in fold.decisions(["digits"], all_read=True)] == ["promote"]


def test_records_that_say_nothing_stop_nobody_and_are_counted():
    fold = fold_of(control_of(with_trials(SHADOW, loss="absolute")))
    for topic in (CATALOGUE.predictions, CATALOGUE.audits, CATALOGUE.feedback):
        fold.take(record(topic, b"{"), 0)
        fold.take(record(topic, None), 0)
    fold.take(record(CATALOGUE.feedback, b"rows of a state", headers=((RESTORE, b"7"),)), 0)
    fold.take(record(CATALOGUE.predictions, codec.predictions.encode(decided("0-1", answered("a:1", 1.0)))), 0)
    for label in ("no number", 1.0):
        fold.take(record(CATALOGUE.feedback, codec.feedback.encode(Feedback(query_id="0-1", label=label))), 0)
    assert fold.dropped == {"undecodable": 6, "invalid": 1}
    (candidate,) = [one for one in fold.comparisons() if one.stage == "live"]
    assert (candidate.model, candidate.feedbacks, candidate.loss) == ("a:1", 1, 0.0)


def test_who_is_no_longer_watched_is_forgotten():
    fold = fold_of(control_of(with_trials(SHADOW)))
    assert len(fold.comparisons()) == 2
    fold.follow({})
    assert fold.comparisons() == []
    assert fold.decisions(["digits"], all_read=True) == []
