import msgspec
from builders.rollout_logs import PLAIN, control_of

from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.rollout.query_losses import QueryLosses
from clipper_agents.rollout.trial_evidence import ApplicationEvidence

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


def test_silence_after_its_first_answer_counts():
    found = standings()
    found.observe(9, of("b:1", 0.0), "label", ())
    for _ in range(200):
        found.observe(9, of("a:1", 0.0), "label", ())
        found.observe(9, of("b:1", 1.0, silent=True), "label", ())
    (decision,) = found.decisions()
    assert (decision.command, decision.model) == ("retire", "b:1")
