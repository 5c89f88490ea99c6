"""A run that never was: answers, samples and a result, made by a rule."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipper_agents.demo.answers import Answer, Answers, SaidBy
from clipper_agents.demo.data import load_digits
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.phases import FAILED, phase_of
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.result import DemoResult, learning_fields, metric_fields, traffic_fields
from clipper_agents.demo.scoring import model_outcomes, policy_outcomes
from clipper_agents.demo.script import Scripted, policy_of, write_scripted
from clipper_agents.demo.story import Story
from clipper_agents.demo.watching import Batches, Sample

PLAN = DemoPlan(queries=400)
MODELS = [
    TrainedModel("good", "the good one", Path("good.skops"), "0" * 64, 0.03),
    TrainedModel("fair", "the fair one", Path("fair.skops"), "1" * 64, 0.05),
]
REFS = [model.ref for model in MODELS]


@dataclass(frozen=True)
class Fabricated:
    """All parts of the run."""

    scripted: Scripted
    answers: Answers
    result: DemoResult
    story: Story


def answer_to(scripted: Scripted, query: int) -> Answer:
    """`good` errs in the failure only, `fair` about every 20th query; exp3 asks `fair`, exp4 both and takes `fair`."""
    label = scripted.labels[query]
    wrong = (label + 1) % 10
    good = wrong if phase_of(query, PLAN) == FAILED else label
    fair = wrong if query % 20 < 2 else label
    said = [SaidBy("good", "1", good), SaidBy("fair", "1", fair)]
    asked = said if policy_of(query) == "exp4" else said[1:]
    return Answer(scripted.script.query_id(query), output=fair, models=asked)


def sample(at_s: float, answered: int, feedback: dict[str, float]) -> Sample:
    """A sample in which both models have batches and weights."""
    share = answered / PLAN.queries
    batches = Batches(rows=10.0 * at_s, count=4.0 * at_s, largest=8.0, limit=3.0 + at_s)
    return Sample(
        at_s=at_s,
        sent=answered,
        answered=answered,
        weights={policy: {"good:1": 1 - share, "fair:1": share} for policy in ("exp3", "exp4")},
        batches=dict.fromkeys(REFS, batches),
        lookups=100.0,
        hits=7.0,
        defaults=0.0,
        truths=answered,
        feedback=feedback,
    )


def fabricate(skipped: frozenset[int] = frozenset(), twice: frozenset[int] = frozenset()) -> Fabricated:
    """The run.

    Args:
        skipped: Queries without an answer.
        twice: Queries with two answers.
    """
    scripted = write_scripted(PLAN, load_digits(0), partitions=2)
    answers = Answers(scripted.script, REFS)
    for query, due_s in enumerate(scripted.due_s):
        answers.ledger.sent(query, began_s=due_s, now_s=due_s)
        if query not in skipped:
            for _ in range(2 if query in twice else 1):
                answers.take(answer_to(scripted, query), due_s + 0.01 + 0.0001 * query)
    policies, models = policy_outcomes(answers, scripted.labels), model_outcomes(answers, scripted.labels)
    samples = [sample(float(second), 100 * second, {"applied": 100.0 * second}) for second in range(5)]
    result = DemoResult(
        distinct_inputs=scripted.distinct_inputs,
        committed=True,
        uncommitted={},
        verified={"equal": True, "rows": 16, "feedbacks": 40, "seconds": 0.5},
        seconds=12.0,
        setup_seconds=4.0,
        versions={"python": "3.x"},
        **traffic_fields(answers, PLAN),
        **metric_fields(samples[-1], feedback_sent=400),
        **learning_fields(policies, models, "good:1", PLAN),
    )
    story = Story(
        plan=PLAN,
        broken="good:1",
        policies=policies,
        models=models,
        samples=samples,
        sent_s=np.asarray(scripted.due_s),
        latencies_s=answers.ledger.latencies_s(),
    )
    return Fabricated(scripted, answers, result, story)
