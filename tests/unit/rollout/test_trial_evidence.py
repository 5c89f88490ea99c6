import pytest
from builders.rollout_logs import answered, decided, missing
from unit.rollout.rig import specs_of, with_trials

from clipper_agents.rollout.query_losses import QueryLosses
from clipper_agents.rollout.trial_evidence import ApplicationEvidence, OpenTrial
from clipper_stream.feedback.join import join
from clipper_topics.manifests import Trial


def evidence_of(*trials, **fields):
    return ApplicationEvidence(specs_of(with_trials(*trials, **fields)), 3600.0)


def standings():
    return evidence_of(models=["a:1", "b:1"], keep_best=1)


def asked(found, second, **losses):
    """A query that asked both candidates, and its label; a loss of None: no answer."""
    said = [missing(f"{name}:1") if loss is None else answered(f"{name}:1", 0) for name, loss in losses.items()]
    known = {f"{name}:1": loss for name, loss in losses.items() if loss is not None}
    (opened,) = found.decide(9, join(decided("q", *said)), (), second * 1000)
    opened.learn(QueryLosses(models=known, chances=dict.fromkeys(known, 1.0), answer=0.0), "label")


def test_the_worst_candidate_is_retired_by_losses_over_the_same_queries():
    found = standings()
    for second in range(200):
        asked(found, second, a=0.0, b=1.0)
    (decision,) = found.decisions()
    assert (decision.command, decision.model, decision.numbers["feedbacks"]) == ("retire", "b:1", 200)


@pytest.mark.parametrize("answers", [0, 1])
def test_silence_is_no_loss_of_a_candidate(answers):
    """Its host may be starting."""
    found = standings()
    for second in range(200):
        asked(found, second, a=0.0, b=0.0 if second < answers else None)
    assert list(found.decisions()) == []
    assert {one.model: one.feedbacks for one in found.comparisons()} == {"a:1": 200, "b:1": answers}


CANARY = Trial(model="new:1", stage="canary", share=0.2)


def test_while_a_canary_has_no_host_nobody_draws_for_it_and_that_is_no_wrong_share():
    found = evidence_of(CANARY)
    evidence = found._trials["new:1"].evidence

    def decide(second, *asked, probability):
        decision = join(decided("q", *asked, served_propensity=probability))
        return [one for one in found.decide(1, decision, (), second * 1000) if isinstance(one, OpenTrial)]

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
    found = evidence_of(CANARY, models=["a:1", "b:1"], audit_ratio=ratio)
    for number in range(1_000):
        one = answered("new:1", 1, propensity=0.2) if number % 5 == 0 else answered("a:1", 1, propensity=asked_by)
        probability = 0.2 if number % 5 == 0 else 0.8 * 0.6
        found.decide(1, join(decided("q", one, served_propensity=probability)), (), 1_000 * number)
    drawn = found._trials["new:1"].evidence.share.capital()
    assert (drawn.scores, drawn.mean) == (1_000, pytest.approx(0.0))


def test_a_canary_beside_one_that_answers_everything_has_no_evidence():
    """Its share of nothing ended the steward."""
    others = Trial(model="all:1", stage="canary", share=1.0)
    paused = Trial(model="new:1", stage="canary", share=0.0)
    found = evidence_of(others, paused, audit_ratio=1.0)
    for served in ("all:1", "a:1"):
        found.decide(1, join(decided("q", answered(served, 1), served_propensity=1.0)), (), 1_000)
    assert found._trials["new:1"].evidence.share.capital().scores == 0
