import msgspec
from builders.rollout_logs import PLAIN, answered, control_of, decided, with_trials

from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.rollout.query_losses import QueryLosses
from clipper_agents.rollout.trial_evidence import ApplicationEvidence
from clipper_stream.feedback.join import join
from clipper_topics.manifests import Trial

KEPT = msgspec.structs.replace(PLAIN, models=["a:1", "b:1"], keep_best=1)


def standings():
    return ApplicationEvidence(comparison_specs(control_of(KEPT))["digits"], 3600.0)


def of(ref, loss, *, silent=False):
    return QueryLosses(models={ref: loss}, answer=loss, silent=frozenset({ref} if silent else ()))


def test_a_candidate_whose_host_is_still_starting_is_not_retired_for_it():
    found = standings()
    for _ in range(200):
        found.observe(9, of("a:1", 0.0), "label", ())
        found.observe(9, of("b:1", 1.0, silent=True), "label", ())
    assert list(found.decisions()) == []
    assert {one.model: one.feedbacks for one in found.comparisons()} == {"a:1": 200, "b:1": 0}


def test_silence_is_no_loss_of_a_candidate_that_has_answered_before():
    found = standings()
    found.observe(9, of("b:1", 0.0), "label", ())
    for _ in range(200):
        found.observe(9, of("a:1", 0.0), "label", ())
        found.observe(9, of("b:1", 1.0, silent=True), "label", ())
    assert list(found.decisions()) == []
    assert {one.model: one.loss for one in found.comparisons()} == {"a:1": 0.0, "b:1": 0.0}


CANARY = Trial(model="new:1", stage="canary", share=0.2)


def test_while_a_canary_has_no_host_nobody_draws_for_it_and_that_is_no_wrong_share():
    found = ApplicationEvidence(comparison_specs(control_of(with_trials(CANARY)))["digits"], 3600.0)
    evidence = found._trials["new:1"].evidence

    def decide(second, *asked, probability):
        decision = join(decided("q", *asked, served_propensity=probability))
        return found.decide(1, decision, (), second * 1000)

    canary = decide(1, answered("new:1", 1, propensity=0.2), answered("a:1", 1, served=False), probability=0.2)
    assert [one.model for one in canary] == ["new:1"]
    assert len(decide(2, answered("a:1", 1), probability=0.8)) == 1
    for second in range(3, 400):
        assert decide(second, answered("a:1", 1), probability=1.0) == []
    assert evidence.share.capital().scores == 2
    assert decide(400, answered("new:1", 1, propensity=0.5), probability=0.5) == []
    assert found.mismatched == 1
