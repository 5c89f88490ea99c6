import random
import sys
from collections import Counter

import msgspec
import pytest
from builders.rollout_logs import answered, decided, missing
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
    specs_of,
    with_trials,
)

from clipper_agents.rollout.comparison_spec import DriftSpec, comparison_specs, needs_history
from clipper_agents.rollout.decisions import is_newer
from clipper_agents.rollout.drift_monitor import MOST, DriftMonitor
from clipper_agents.rollout.evidence import UnknownRevision
from clipper_agents.rollout.query_losses import QueryLosses
from clipper_agents.rollout.trial_evidence import ApplicationEvidence, OpenTrial
from clipper_stream.errors import install_command
from clipper_stream.feedback.join import join
from clipper_stream.selection.trials import context_number
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import DriftRule, RolloutPlan, RolloutRule, Trial
from clipper_topics.restore import RESTORE

RULE = RolloutRule(margin=0.2, steps=[1.0], least=20)
AUTOMATIC = Trial(model="new:1", automatic=True)
STEPPED = Trial(model="new:1", stage="canary", share=1.0, automatic=True)
ASKED = {1: ("a:1", "new:1"), 2: ("new:1", "a:1")}
"""By revision, who serves and who is asked besides."""


def queries(count, revision, seed=1):
    """Records of queries of one revision, which the canary of the second one answers."""
    draw, found = random.Random(seed), []
    for number in range(count):
        served, beside = (answered(ref, int(draw.random() < 0.8)) for ref in ASKED[revision])
        found += query(f"0-{revision}-{number}", served, beside=[beside], revision=revision)
    return found


def better(fold, count, revision=1):
    """So many more queries of a revision, at each of which the trial alone is right."""
    for number in range(count):
        served, beside = (answered(ref, int(ref == "new:1")) for ref in ASKED[revision])
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


def test_a_rule_fires_for_an_automatic_trial_alone_while_it_is_watched():
    by_hand, automatic = (fold_of(control_of(with_trials(trial, rollout=RULE))) for trial in (SHADOW, AUTOMATIC))
    assert [made for _, made in better(by_hand, 200) if made] == []
    feedbacks, (step,) = next((count, made) for count, made in better(automatic, 200) if made)
    assert (step.command, step.share, step.revision, step.numbers["scores"]) == ("step", 1.0, 1, feedbacks)
    assert RULE.least <= feedbacks < 30
    assert (len(automatic.comparisons()), len(automatic.decisions(["digits"], all_read=True))) == (2, 1)
    automatic.follow({})
    assert (automatic.comparisons(), automatic.decisions(["digits"], all_read=True)) == ([], [])


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


# --- candidates and shares --------------------------------------------------------------------------------------------
def evidence_of(*trials, **fields):
    return ApplicationEvidence(specs_of(with_trials(*trials, **fields)), 3600.0)


@pytest.mark.parametrize(
    ("losses", "answers", "retired"),
    [([1.0] * 200, 200, [("retire", "b:1", 200)]), ([None] * 200, 0, []), ([0.0] + [None] * 199, 1, [])],
    ids=["the worst", "silent", "answered once"],
)
def test_the_worst_candidate_is_retired_by_losses_over_the_same_queries_and_silence_is_none(losses, answers, retired):
    """The host of who is silent may be starting; `a:1` is always right."""
    found = evidence_of(models=["a:1", "b:1"], keep_best=1)
    for second, loss in enumerate(losses):
        known = {"a:1": 0.0} if loss is None else {"a:1": 0.0, "b:1": loss}
        said = [answered("a:1", 0), missing("b:1") if loss is None else answered("b:1", 0)]
        (opened,) = found.decide(9, join(decided("q", *said)), {}, second * 1000)
        opened.learn(QueryLosses(models=known, chances=dict.fromkeys(known, 1.0), answer=0.0), "label")
    assert [(one.command, one.model, one.numbers["feedbacks"]) for one in found.decisions()] == retired
    assert {one.model: one.feedbacks for one in found.comparisons()} == {"a:1": 200, "b:1": answers}


@pytest.mark.parametrize(
    ("scale", "command", "waits_for"),
    [
        (None, "scale", "the losses of the trial stand at the bound"),
        (2.0, None, "100.0% of the losses of the trial stand at the bound, where they may be any larger ones"),
        (100.0, "promote", "promoted"),
    ],
)
def test_losses_at_the_bound_decide_nothing_and_an_undeclared_scale_is_learned(scale, command, waits_for):
    one = Trial(model="new:1", stage="canary", share=1.0, automatic=True)
    fold = fold_of(control_of(with_trials(one, loss="absolute", loss_scale=scale, rollout=RULE)))
    for number in range(200):
        for record in query(f"0-{number}", answered("new:1", 5), beside=[answered("a:1", 71)]):
            fold.take(record, 0)
    found = fold.decisions(["digits"], all_read=True)
    assert [made.command for made in found] == ([] if command is None else [command])
    assert waits_for in fold.comparisons()[0].waits_for
    if command == "scale":
        assert (found[0].numbers, found[0].why) == (
            {"loss_scale": 70.0, "largest": 70.0},
            "of the first 200 labels one was missed by 70",
        )


SMALL = Trial(model="new:1", stage="canary", share=0.2)


def test_while_a_canary_has_no_host_nobody_draws_for_it_and_that_is_no_wrong_share():
    found = evidence_of(SMALL)
    evidence = found._trials["new:1"].evidence

    def decide(second, *asked, probability):
        decision = join(decided("q", *asked, served_propensity=probability))
        return [one for one in found.decide(1, decision, {}, second * 1000) if isinstance(one, OpenTrial)]

    canary = decide(1, answered("new:1", 1, propensity=0.2), answered("a:1", 1, served=False), probability=0.2)
    assert [one.model for one in canary] == ["new:1"]
    assert len(decide(2, answered("a:1", 1), probability=0.8)) == 1
    for second in range(3, 400):
        assert decide(second, answered("a:1", 1), probability=1.0) == []
    assert evidence.share.capital().scores == 2
    assert decide(400, answered("new:1", 1, propensity=0.5), probability=0.5) == []
    assert found.mismatched == 1


@pytest.mark.parametrize(("ratio", "asked_by"), [(0.0, 0.6), (0.25, 0.7), (1.0, 1.0)])
def test_audits_ask_oftener_than_who_serves_and_that_is_no_wrong_share(ratio, asked_by):
    """All queries that the canary did not answer were left out: it seemed to be asked always."""
    found = evidence_of(SMALL, models=["a:1", "b:1"], audit_ratio=ratio)
    for number in range(1_000):
        one = answered("new:1", 1, propensity=0.2) if number % 5 == 0 else answered("a:1", 1, propensity=asked_by)
        probability = 0.2 if number % 5 == 0 else 0.8 * 0.6
        found.decide(1, join(decided("q", one, served_propensity=probability)), {}, 1_000 * number)
    drawn = found._trials["new:1"].evidence.share.capital()
    assert (drawn.scores, drawn.mean) == (1_000, pytest.approx(0.0))


def test_a_context_that_drew_once_counts_again_only_where_a_larger_share_has_drawn_it_anew():
    """Those below the old share are known to have the trial: they say nothing new."""
    steps = [with_trials(msgspec.structs.replace(SMALL, share=share), assign="context") for share in (0.2, 0.6)]
    found, scored = ApplicationEvidence(specs_of(*steps), 3600.0), Counter()
    evidence = found._trials["new:1"].evidence
    evidence.began = 0

    def decide(revision, share, context, *, asked):
        served = answered("new:1", 1, propensity=share), answered("a:1", 1, served=not asked)
        chosen = decided("q", *served[not asked :], served_propensity=share if asked else 1.0 - share, context=context)
        opened = found.decide(revision, join(chosen), {}, 1_000)
        return [round(one.opened.decision.share, 9) for one in opened if isinstance(one, OpenTrial)]

    numbers = {str(number): context_number(0, "digits", "new:1", str(number)) for number in range(1_000)}
    for revision, share in ((1, 0.2), (1, 0.2), (2, 0.6), (2, 0.6)):
        for context, number in numbers.items():
            scored[revision, number < share, *decide(revision, share, context, asked=number < share)] += 1
    had = scored[1, True, 0.2]
    assert scored.keys() == {(1, True, 0.2), (1, False, 0.2), (2, True, 0.5), (2, False, 0.5), (2, True)}
    assert scored[2, True] == had
    drawn = evidence.share.capital()
    assert (drawn.scores, found.mismatched) == (2_000 - had / 2, 0), "a draw a context"
    assert max(drawn.below, drawn.above) < 2.0
    assert decide(2, 0.6, max(numbers, key=numbers.get), asked=True) == []
    assert found.mismatched == 1, "its number says that it sees the others"


BOTH = Trial(model="new:1", stage="canary", share=0.2, shadow_share=0.3)


@pytest.mark.parametrize("kind", ["label", "reward"])
def test_a_canary_that_is_a_shadow_too_is_compared_by_pairs_where_labels_come_and_drawn_without(kind):
    found = evidence_of(BOTH)
    evidence = found._trials["new:1"].evidence
    serves = answered("new:1", 1, propensity=0.5), answered("a:1", 0, served=False)
    shadow = answered("a:1", 0), answered("new:1", 1, propensity=0.5, served=False)
    for second, (asked, probability) in enumerate(((serves, 0.2), (shadow, 0.8), ((answered("a:1", 0),), 0.8))):
        opened = found.decide(1, join(decided("q", *asked, served_propensity=probability)), {}, second * 1000)
        losses = QueryLosses(models={"new:1": 0.0, "a:1": 1.0}, chances={}, answer=1.0)
        [one.learn(losses, kind) for one in opened if isinstance(one, OpenTrial)]
    whole = evidence.whole.capital()
    assert (whole.scores, found.mismatched) == (2, 0)
    assert whole.totals[0] == pytest.approx(2.0 if kind == "label" else 2 * (2 / 7) * (5 / 7))
    assert evidence.share.capital().scores == 2, "the canary was drawn of those that did not ask a shadow"


def test_a_plan_ends_a_trial_in_the_log_as_it_ends_it_in_memory():
    rule = RolloutRule(margin=0.05, steps=[1.0], least=20, plan=RolloutPlan(feedbacks=60))
    fold = fold_of(control_of(with_trials(AUTOMATIC, rollout=rule)))
    for number in range(60):
        served, beside = (answered(ref, int(ref == "new:1")) for ref in ASKED[1])
        for one in query(f"0-{number}", served, beside=[beside]):
            fold.take(one, 1_000 * number)
    assert [one.command for one in fold.decisions(["digits"], all_read=True)] == ["step"]
    compared = fold.comparisons()[0]
    assert (compared.finding, compared.paired) == ("better", True)
    assert compared.lower <= compared.difference <= compared.upper < 0.0


def test_a_canary_beside_one_that_answers_everything_has_no_evidence():
    """Its share of nothing ended the steward."""
    others = Trial(model="all:1", stage="canary", share=1.0)
    paused = Trial(model="new:1", stage="canary", share=0.0)
    found = evidence_of(others, paused, audit_ratio=1.0)
    for served in ("all:1", "a:1"):
        found.decide(1, join(decided("q", answered(served, 1), served_propensity=1.0)), {}, 1_000)
    assert found._trials["new:1"].evidence.share.capital().scores == 0


# --- drift: detections follow from the logs alone ---------------------------------------------------------------------
DRIFT_RULE = DriftRule()
WATCHED = with_trials(drift=DRIFT_RULE)


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
    found = specs_of(PLAIN, WATCHED, with_trials(drift=DRIFT_RULE, objective_ms=7))
    assert (found.drift, found.since, found.begins_ms) == (DriftSpec(rule=DRIFT_RULE, since=2), 2, 2000)
    assert specs_of(WATCHED, with_trials(drift=DRIFT_RULE, loss="absolute")).drift.since == 2
    assert comparison_specs(control_of(WATCHED), drift=False) == {}
    before, now = comparison_specs(control_of(PLAIN, PLAIN)), comparison_specs(control_of(WATCHED))
    assert [needs_history(before, now, read) for read in ({"digits": 2}, {})] == [True, False]


def test_a_rise_and_the_fall_after_it_are_detected_with_the_losses_of_both_sides():
    rise, fall = detected(LOG)
    assert (rise.application, rise.model, rise.detector, rise.revision) == ("digits", "a:1", "adwin", 1)
    assert (rise.worse, fall.worse, rise.context) == (True, False, None)
    assert abs(rise.loss_before - 0.1) < 0.06, "four standard errors of 400"
    assert rise.loss_after > 0.3
    assert 400 <= rise.offset < 500
    assert 700 <= fall.offset < 900
    assert (rise.topic, rise.partition, rise.at_ms) == (CATALOGUE.feedback, 0, rise.offset)
    assert detected(log((3_000, 0.2))) == [], "losses that do not change are no drift"


@pytest.mark.parametrize("cut", [0, 50, 333, 401])
def test_reading_again_also_from_later_on_finds_the_same_later_detections(cut):
    rise, fall = detected(LOG)
    again = detected(LOG[2 * cut :], known={("digits", "a:1"): rise})
    assert again[-1] == fall
    assert [is_newer(one, rise) for one in again] == [False] * (len(again) - 1) + [True]
    assert cut or again == detected(LOG, known={("digits", "a:1"): fall}) == [rise, fall]


def test_a_version_is_watched_by_its_own_answers_only():
    records = []
    for number in range(600):
        served = missing("a:1") if number >= 300 else answered("a:1", 1)
        beside = [answered("new:1", int(number < 300))]
        records += query(f"0-{number}", served, beside=beside, offset=number)
    found = detected(records, control_of(with_trials(Trial(model="new:1"), drift=DRIFT_RULE)))
    assert {one.model for one in found} == {"new:1"}


def drifts(since=1, **rule):
    return DriftMonitor("digits", DriftSpec(rule=DriftRule(**rule), since=since), "zero_one", {})


def observed(monitor, loss, offset, context=None):
    record = log_record("feedback", None, offset)
    return monitor.observe({"a:1": loss}, record, offset, revision=1, context=context, hour=0)


@pytest.mark.parametrize(("per_context", "contexts"), [(True, {"ada"}), (False, {None})])
def test_each_context_has_a_detector_of_its_own_where_that_is_wanted(per_context, contexts):
    monitor, found = drifts(per_context=per_context), []
    for number in range(2_400):
        context = "ada" if number % 12 == 0 else "others"
        found += observed(monitor, float(context == "ada" and number >= 1_200), number, context)
    assert {one.context for one in found} <= contexts
    assert len(found) == 1 or not per_context


@pytest.mark.parametrize(("hours_apart", "count"), [(0, 2), (12, 0)])
def test_a_loss_is_compared_with_those_of_queries_that_were_asked_in_the_same_hour_of_the_day(hours_apart, count):
    records = []
    for number in range(600):
        is_wrong = 200 <= number < 400
        asked_ms = 1 + is_wrong * hours_apart * 3_600_000
        records += query(f"0-{number}", answered("a:1", int(not is_wrong)), offset=number, queried_at_ms=asked_ms)
    assert len(detected(records)) == count


def test_contexts_without_end_do_not_fill_the_memory():
    found = drifts(per_context=True)
    for number in range(2 * MOST):
        observed(found, 0.0, number, str(number))
    assert len(found._watches) == MOST


def test_queries_of_an_older_revision_are_not_watched():
    found = drifts(since=2)
    assert [one for number in range(600) for one in observed(found, float(number >= 300), number)] == []


def test_a_missing_detector_is_reported_and_stops_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "river.drift", None)
    found = drifts()
    assert install_command("drift") in found.refused
    assert observed(found, 1.0, 1) == []
    assert fold_of(control_of(WATCHED)).refused == {"digits": found.refused}
