"""Detections follow from the logs alone: read live, read again, and read from later on."""

import random
import sys
from types import SimpleNamespace

import msgspec
import pytest
from builders.rollout_logs import PLAIN, answered, audit_of, control_of, decided, missing, with_trials

from clipper_agents.rollout.comparison_spec import DriftSpec, comparison_specs, needs_history
from clipper_agents.rollout.decisions import is_newer
from clipper_agents.rollout.drift_monitor import MOST, DriftMonitor
from clipper_agents.rollout.evidence import EvidenceFold
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import DriftRule, Trial

CATALOGUE = Catalogue(partitions=1)
RULE = DriftRule()


def record(topic, value, offset):
    return SimpleNamespace(topic=topic, partition=0, offset=offset, value=value, headers=())


def log(*phases, seed=1, context=None):
    """Records of queries to `a:1`, in order; each phase is how many, and how often the model is wrong."""
    draw, found, number = random.Random(seed), [], 0
    for count, wrong in phases:
        for _ in range(count):
            query_id = f"0-{number}"
            prediction = decided(query_id, answered("a:1", int(draw.random() >= wrong)), context=context)
            found.append(record(CATALOGUE.predictions, codec.predictions.encode(prediction), number))
            found.append(
                record(CATALOGUE.feedback, codec.feedback.encode(Feedback(query_id=query_id, label=1)), number)
            )
            number += 1
    return found


LOG = log((400, 0.1), (300, 0.6), (400, 0.1))


def detected(records, control=None, known=None):
    """Every detection of a fold over these records, a record a millisecond."""
    control = control or control_of(msgspec.structs.replace(PLAIN, drift=RULE))
    fold = EvidenceFold(CATALOGUE, control.current, 3600.0, 1000, known)
    fold.follow(comparison_specs(control))
    for one in records:
        fold.take(one, one.offset)
    return fold.detected


def test_drift_is_watched_from_the_revision_that_asks_for_it():
    assert comparison_specs(control_of(PLAIN)) == {}
    watches = msgspec.structs.replace(PLAIN, drift=RULE)
    found = comparison_specs(control_of(PLAIN, watches, msgspec.structs.replace(watches, objective_ms=7)))["digits"]
    assert (found.drift, found.since, found.begins_ms) == (DriftSpec(rule=RULE, since=2), 2, 2000)
    other = msgspec.structs.replace(watches, loss="absolute")
    assert comparison_specs(control_of(watches, other))["digits"].drift.since == 2
    assert comparison_specs(control_of(watches), drift=False) == {}


def test_what_is_watched_since_before_what_was_read_needs_history():
    before = comparison_specs(control_of(PLAIN, PLAIN))
    now = comparison_specs(control_of(msgspec.structs.replace(PLAIN, drift=RULE)))
    assert needs_history(before, now, {"digits": 2})
    assert not needs_history(before, now, {})


def test_a_rise_and_the_fall_after_it_are_detected_with_the_losses_of_both_sides():
    rise, fall = detected(LOG)
    assert (rise.application, rise.model, rise.detector, rise.revision, rise.context) == (
        "digits",
        "a:1",
        "adwin",
        1,
        None,
    )
    assert rise.worse
    assert not fall.worse
    assert abs(rise.loss_before - 0.1) < 0.06, "four standard errors of 400"
    assert rise.loss_after > 0.3
    assert 400 <= rise.offset < 500
    assert 700 <= fall.offset < 800
    assert (rise.topic, rise.partition, rise.at_ms) == (CATALOGUE.feedback, 0, rise.offset)


def test_losses_that_do_not_change_are_no_drift():
    assert detected(log((3_000, 0.2))) == []


def test_reading_again_comes_to_the_same_detections_also_when_they_are_known():
    first = detected(LOG)
    assert detected(LOG) == first
    assert detected(LOG, known={("digits", "a:1"): first[-1]}) == first
    assert not is_newer(first[0], first[-1])
    assert not is_newer(first[-1], first[-1])
    assert is_newer(first[-1], first[0])


@pytest.mark.parametrize("cut", [50, 333, 401])
def test_reading_from_later_on_finds_the_same_later_detections(cut):
    rise, fall = detected(LOG)
    again = detected(LOG[2 * cut :], known={("digits", "a:1"): rise})
    assert [one for one in again if is_newer(one, rise)] == [fall]


def test_a_version_is_watched_by_its_own_answers_only():
    control = control_of(msgspec.structs.replace(with_trials(Trial(model="new:1")), drift=RULE))
    fold = EvidenceFold(CATALOGUE, control.current, 3600.0, 1000)
    fold.follow(comparison_specs(control))
    for number in range(600):
        query_id, gone = f"0-{number}", number >= 300
        prediction = decided(query_id, missing("a:1") if gone else answered("a:1", 1), audited=True)
        fold.take(record(CATALOGUE.predictions, codec.predictions.encode(prediction), number), number)
        audit = audit_of(query_id, answered("new:1", int(number < 300)))
        fold.take(record(CATALOGUE.audits, codec.audits.encode(audit), number), number)
        feedback = Feedback(query_id=query_id, label=1)
        fold.take(record(CATALOGUE.feedback, codec.feedback.encode(feedback), number), number)
    assert {one.model for one in fold.detected} == {"new:1"}


def drifts(per_context=False, detector="adwin"):
    watched = DriftSpec(rule=DriftRule(detector=detector, per_context=per_context), since=1)
    return DriftMonitor("digits", watched, "zero_one", {})


def observed(monitor, loss, offset, context=None):
    return monitor.observe({"a:1": loss}, record("feedback", None, offset), offset, revision=1, context=context)


def test_each_context_has_a_detector_of_its_own_where_that_is_wanted():
    apart, together = drifts(per_context=True), drifts()
    found = {"apart": [], "together": []}
    for number in range(1_200):
        context = "ada" if number % 12 == 0 else "others"
        loss = float(context == "ada" and number >= 600)
        found["apart"] += observed(apart, loss, number, context)
        found["together"] += observed(together, loss, number, context)
    assert [one.context for one in found["apart"]] == ["ada"]
    assert all(one.context is None for one in found["together"])


def test_contexts_without_end_do_not_fill_the_memory():
    found = drifts(per_context=True)
    for number in range(2 * MOST):
        observed(found, 0.0, number, str(number))
    assert len(found._watches) == MOST


def test_queries_of_an_older_revision_are_not_watched():
    watched = DriftSpec(rule=DriftRule(), since=2)
    found = DriftMonitor("digits", watched, "zero_one", {})
    for number in range(600):
        assert observed(found, float(number >= 300), number) == []


def test_an_unknown_or_missing_detector_is_reported_and_stops_nothing(monkeypatch):
    wrong = DriftSpec(rule=DriftRule(detector="ddm"), since=1)
    assert "use one of adwin" in DriftMonitor("digits", wrong, "absolute", {}).refused
    monkeypatch.setitem(sys.modules, "river.drift", None)
    found = drifts()
    assert "pip install 'clipper-stream[drift]'" in found.refused
    assert observed(found, 1.0, 1) == []
    control = control_of(msgspec.structs.replace(PLAIN, drift=RULE))
    fold = EvidenceFold(CATALOGUE, control.current, 3600.0, 1000)
    fold.follow(comparison_specs(control))
    assert fold.refused == {"digits": found.refused}
