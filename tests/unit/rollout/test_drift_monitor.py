"""Detections follow from the logs alone: read live, read again, and read from later on."""

import random
import sys

import pytest
from builders.rollout_logs import answered, missing
from unit.rollout.rig import CATALOGUE, PLAIN, control_of, fold_of, log_record, query, specs_of, with_trials

from clipper_agents.rollout.comparison_spec import DriftSpec, comparison_specs, needs_history
from clipper_agents.rollout.decisions import is_newer
from clipper_agents.rollout.drift_monitor import MOST, DriftMonitor
from clipper_topics.manifests import DriftRule, Trial

RULE = DriftRule()
WATCHED = with_trials(drift=RULE)


def log(*phases):
    """Records of queries to `a:1`, in order; each phase is how many, and how often the model is wrong."""
    draw = random.Random(1)
    wrongs = [wrong for count, wrong in phases for _ in range(count)]
    answers = [answered("a:1", int(draw.random() >= wrong)) for wrong in wrongs]
    return [one for number, said in enumerate(answers) for one in query(f"0-{number}", said, offset=number)]


LOG = log((400, 0.1), (300, 0.6), (400, 0.1))


def detected(records, control=None, known=None):
    """Every detection of a fold over these records, a record a millisecond."""
    fold = fold_of(control or control_of(WATCHED), known)
    for one in records:
        fold.take(one, one.offset)
    return fold.detected


def test_drift_is_watched_from_the_revision_that_asks_for_it():
    found = specs_of(PLAIN, WATCHED, with_trials(drift=RULE, objective_ms=7))
    assert (found.drift, found.since, found.begins_ms) == (DriftSpec(rule=RULE, since=2), 2, 2000)
    assert specs_of(WATCHED, with_trials(drift=RULE, loss="absolute")).drift.since == 2
    assert comparison_specs(control_of(WATCHED), drift=False) == {}


def test_what_is_watched_since_before_what_was_read_needs_history():
    before, now = comparison_specs(control_of(PLAIN, PLAIN)), comparison_specs(control_of(WATCHED))
    assert needs_history(before, now, {"digits": 2})
    assert not needs_history(before, now, {})


def test_a_rise_and_the_fall_after_it_are_detected_with_the_losses_of_both_sides():
    rise, fall = detected(LOG)
    assert (rise.application, rise.model, rise.detector, rise.revision) == ("digits", "a:1", "adwin", 1)
    assert (rise.worse, fall.worse, rise.context) == (True, False, None)
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
    pairs = ((first[0], first[-1]), (first[-1], first[-1]), (first[-1], first[0]))
    assert [is_newer(*pair) for pair in pairs] == [False, False, True]


@pytest.mark.parametrize("cut", [50, 333, 401])
def test_reading_from_later_on_finds_the_same_later_detections(cut):
    rise, fall = detected(LOG)
    again = detected(LOG[2 * cut :], known={("digits", "a:1"): rise})
    assert [one for one in again if is_newer(one, rise)] == [fall]


def test_a_version_is_watched_by_its_own_answers_only():
    records = []
    for number in range(600):
        served = missing("a:1") if number >= 300 else answered("a:1", 1)
        beside = [answered("new:1", int(number < 300))]
        records += query(f"0-{number}", served, beside=beside, offset=number)
    found = detected(records, control_of(with_trials(Trial(model="new:1"), drift=RULE)))
    assert {one.model for one in found} == {"new:1"}


def drifts(since=1, **rule):
    return DriftMonitor("digits", DriftSpec(rule=DriftRule(**rule), since=since), "zero_one", {})


def observed(monitor, loss, offset, context=None):
    return monitor.observe({"a:1": loss}, log_record("feedback", None, offset), offset, revision=1, context=context)


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
    found = drifts(since=2)
    assert [one for number in range(600) for one in observed(found, float(number >= 300), number)] == []


def test_an_unknown_or_missing_detector_is_reported_and_stops_nothing(monkeypatch):
    assert "use one of adwin" in drifts(detector="ddm").refused
    monkeypatch.setitem(sys.modules, "river.drift", None)
    found = drifts()
    assert "pip install 'clipper-stream[drift]'" in found.refused
    assert observed(found, 1.0, 1) == []
    assert fold_of(control_of(WATCHED)).refused == {"digits": found.refused}
