import random

import msgspec
import pytest
from builders.rollout_logs import answered, audit_of, decided, missing
from unit.rollout.rig import CATALOGUE, control_of, fold_of, log_record, specs_of, with_trials

from clipper_agents.rollout.comparison_spec import comparison_specs, needs_history
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import Guardrail, ModelManifest, RolloutRule, Trial

SHADOW = Trial(model="new:1", automatic=True)
CANARY = Trial(model="new:1", stage="canary", share=0.5, automatic=True)
P99 = Guardrail(name="p99", metric="latency", bound_ms=80.0)
REVENUE = Guardrail(name="money", metric="revenue", range=(0.0, 50.0), margin=5.0, better="higher")


def of(metric):
    return Guardrail(name=metric, metric=metric, margin=0.05)


def folded(guardrail, *queries, trial=SHADOW, costs=(0.01, 0.01), **sampled):
    """The fold over queries, a second each: what the trial and the models did, and the feedback about it."""
    rule = RolloutRule(margin=1.0, guardrails=[guardrail], **sampled)
    control = control_of(with_trials(trial, rollout=rule), published=["a:1", "new:1"])
    for ref, cost in zip(("a:1", "new:1"), costs, strict=True):
        control.manifests.models[ref] = msgspec.structs.replace(control.manifests.models[ref], cost=cost)
    fold = fold_of(control)
    for number, (served, beside, *said) in enumerate(queries):
        about = {"audited": bool(beside), "queried_at_ms": 1000 * number, "served_propensity": 1.0}
        about |= dict(said[1:])
        records = [(CATALOGUE.predictions, codec.predictions.encode(decided(f"0-{number}", served, **about)))]
        if beside:
            records.append((CATALOGUE.audits, codec.audits.encode(audit_of(f"0-{number}", beside))))
        if said and said[0] is not None:
            about = Feedback(query_id=f"0-{number}", label=1, metrics=said[0])
            records.append((CATALOGUE.feedback, codec.feedback.encode(about)))
        for topic, value in records:
            fold.take(log_record(topic, value, number), 1000 * number)
    return fold


def shadowed(new, live=None, **fields):
    return (live or answered("a:1", 1), new, None, *fields.items())


def report(fold):
    (found,) = fold.comparisons()[0].guardrails
    return found


def state(fold):
    """The guardrail's state, and what is decided by it."""
    return report(fold).state, [one.command for one in fold.decisions(["digits"], all_read=True)]


FAST, SLOW = answered("new:1", 1, latency_ms=20.0), answered("new:1", 1, latency_ms=81.0)
LATE, ERROR, OWN_ERROR = missing("new:1"), missing("new:1", reason="error"), missing("a:1", reason="error")


@pytest.mark.parametrize(
    ("guardrail", "queries", "found"),
    [
        (P99, [shadowed(FAST)] * 700, ("within", [])),
        (P99, [shadowed(FAST)] * 50 + [shadowed(SLOW)] * 50, ("outside", ["abort"])),
        (P99, [shadowed(FAST)] + [shadowed(LATE)] * 50, ("outside", ["abort"])),
        (P99, [shadowed(FAST)] + [shadowed(ERROR)] * 8, ("undecided", [])),
        (of("errors"), [shadowed(FAST)] + [shadowed(ERROR)] * 16, ("outside", ["abort"])),
        (of("errors"), [shadowed(FAST)] + [shadowed(ERROR, OWN_ERROR)] * 12, ("undecided", [])),
        (of("errors"), [shadowed(FAST)] * 200, ("within", [])),
        (of("defaults"), [shadowed(FAST)] + [shadowed(ERROR)] * 16, ("outside", ["abort"])),
        (of("defaults"), [shadowed(FAST)] + [shadowed(ERROR, OWN_ERROR)] * 12, ("undecided", [])),
    ],
)
def test_what_the_log_has_at_once_is_measured_with_what_the_models_did(guardrail, queries, found):
    """Silence, which has a test of its own, has a margin of 1."""
    assert state(folded(guardrail, *queries)) == found


def test_nothing_counts_before_the_first_answer_of_the_trial():
    fold = folded(P99, *[shadowed(LATE)] * 50, *[shadowed(FAST)] * 700)
    assert (report(fold).estimate, report(fold).state) == (0.0, "within")


@pytest.mark.parametrize(
    ("costs", "cached", "found"),
    [
        ((0.01, 0.3), False, "outside"),
        ((0.01, 0.3), True, "within"),
        ((0.01, 0.02), False, "within"),
        ((0.01, None), False, "undecided"),
    ],
)
def test_a_query_from_a_cache_costs_nothing_and_a_cost_that_nobody_declares_decides_nothing(costs, cached, found):
    queries = [shadowed(answered("new:1", 1, cached=cached))] * 300
    fold = folded(of("cost"), *queries, costs=costs)
    assert report(fold).state == found
    if found == "outside":
        assert report(fold).estimate == pytest.approx(0.29)


def drawn(count, worth, seed=1):
    """Queries of which the trial answers half: revenue of the answers by who gave it."""
    draw = random.Random(seed)
    for _ in range(count):
        asked = draw.random() < 0.5
        ref = "new:1" if asked else "a:1"
        one = answered(ref, 1, propensity=0.5 if asked else 1.0)
        yield one, answered("a:1", 1) if asked else None, {"revenue": worth[ref](draw)}, ("served_propensity", 0.5)


@pytest.mark.parametrize(
    ("new", "found"), [(0.1, ("outside", ["abort"])), (0.5, ("within", [])), (0.9, ("within", []))]
)
def test_a_metric_of_feedback_is_compared_by_who_was_drawn(new, found):
    worth = {"new:1": lambda draw: 50.0 * (draw.random() < new), "a:1": lambda draw: 50.0 * (draw.random() < 0.5)}
    fold = folded(REVENUE, *drawn(2_500, worth), trial=CANARY)
    seen = report(fold)
    assert seen.state == found[0]
    assert seen.bound == pytest.approx(-5.0)
    assert seen.lower < seen.estimate < seen.upper
    assert ("abort" in state(fold)[1]) == (found[0] == "outside")


@pytest.mark.parametrize(("new", "told", "state"), [(0.5, 0.3, "undecided"), (0.2, 1.0, "outside")])
def test_a_sample_is_not_believed_where_who_answered_says_which_metrics_are_told(new, told, state):
    """Of the trial's good ones a part is told. A declared sample is looked at without the last hour."""
    worth = {"new:1": lambda draw: 50.0 * (draw.random() < new), "a:1": lambda draw: 50.0 * (draw.random() < 0.5)}
    draw, queries = random.Random(5), list(drawn(7_000, worth))
    for at, (one, beside, metrics, *about) in enumerate(queries):
        is_told = one.model != "new" or not metrics["revenue"] or draw.random() < told
        queries[at] = one, beside, metrics if is_told else None, *about
    found = report(folded(REVENUE, *queries, trial=CANARY, sampled_feedback=True))
    assert (found.state, found.estimate < -5.0) == (state, True), "what was heard alone has it outside"


def test_values_beyond_the_range_or_of_other_names_decide_nothing():
    wide = {ref: lambda draw: 500.0 * draw.random() for ref in ("new:1", "a:1")}
    fold = folded(REVENUE, *drawn(500, wide), trial=CANARY)
    assert report(fold).state == "undecided"
    others = ((one, beside, {"clicks": 1.0}) for one, beside, *_ in drawn(200, wide))
    assert report(folded(REVENUE, *others, trial=CANARY)).state == "undecided"


def test_a_promotion_names_the_guardrail_that_it_waits_for():
    guarded = RolloutRule(margin=0.2, steps=[0.5], least=20, guardrails=[P99])
    control = control_of(with_trials(CANARY, rollout=guarded))
    fold = fold_of(control)
    for number in range(200):
        found = decided(f"0-{number}", answered("new:1", 1, propensity=0.5), audited=True, queried_at_ms=1000 * number)
        found.served_propensity = 0.5
        for topic, value in (
            (CATALOGUE.predictions, codec.predictions.encode(found)),
            (CATALOGUE.audits, codec.audits.encode(audit_of(f"0-{number}", answered("a:1", 0)))),
            (CATALOGUE.feedback, codec.feedback.encode(Feedback(query_id=f"0-{number}", label=1))),
        ):
            fold.take(log_record(topic, value, number), 1000 * number)
    assert "asked +0.5000 of the queries more often" in fold.comparisons()[0].waits_for
    fold = fold_of(control_of(with_trials(msgspec.structs.replace(CANARY, share=1.0), rollout=guarded)))
    assert fold.comparisons()[0].guardrails[0].state == "undecided"


def test_guardrails_that_change_in_a_trial_are_looked_at_from_its_beginning():
    before, after = (
        comparison_specs(control_of(with_trials(SHADOW), *[with_trials(SHADOW, rollout=rule)] * later))
        for later, rule in ((0, RolloutRule()), (1, RolloutRule(guardrails=[P99])))
    )
    assert after["digits"].trials[0].since == 1, "it is the same trial"
    assert needs_history(before, after, {"digits": 1})
    assert not needs_history(after, after, {"digits": 2})


def test_costs_are_part_of_a_comparison_only_where_a_guardrail_counts_them():
    priced = ModelManifest(name="a", uri="m:f", cost=0.5)
    for guardrails, costs in (([P99], {}), ([of("cost")], {"a:1": None, "new:1": None})):
        found = specs_of(with_trials(SHADOW, rollout=RolloutRule(guardrails=guardrails)))
        assert (found.costs, found.rule.guardrails) == (costs, 1)
    assert priced.cost == 0.5
