"""A run of the demo that never was: answers, samples and a result, made by a rule."""

from dataclasses import replace
from pathlib import Path

from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import FAILED, POLICIES, DemoPlan, application_of
from clipper_agents.demo.result import demo_result
from clipper_agents.demo.run import load_plan
from clipper_agents.demo.run_recorder import DemoRecorder, DemoSample
from clipper_agents.observability.exposition import Scrape
from clipper_agents.replay.verdicts import PartitionVerdict, Verification
from clipper_loadgen.report import summarise
from clipper_loadgen.run import LoadRun
from clipper_loadgen.script import write_script
from clipper_topics.prediction import ModelAnswer, Prediction

PLAN = DemoPlan(queries=400)
MODELS = [
    TrainedModel("good", "the good one", Path("good.skops"), "0" * 64, 0.03),
    TrainedModel("fair", "the fair one", Path("fair.skops"), "1" * 64, 0.05),
]
VERDICT = PartitionVerdict(
    partition=0, since=0, position=39, behind=0, feedbacks=40, rows=16, checkpoints=16, unproven=0
)


def demo_script(run="0123abcd"):
    """The queries of a demo, encoded for two partitions."""
    load = load_plan(PLAN, draw_traffic(load_digits(PLAN.seed), PLAN.queries, PLAN.seed))
    return write_script(load, load.dataset, partitions=2, run=run)


def begun_recorder(flag=Path("/nonexistent/flag")):
    """The recorder of a run without Kafka and without feedback, of which nothing is sent yet."""
    recorder = DemoRecorder(PLAN, MODELS, flag)
    plan = load_plan(PLAN, draw_traffic(load_digits(0), 1, 0))
    recorder.run = LoadRun(plan, replace(demo_script(), delays_s=None), None, lambda: 0.0, recorder)
    return recorder


def answer_to(script, query):
    """`good` errs in the failure only, `fair` about every 20th query; exp3 asks `fair`, exp4 both and takes `fair`."""
    label = script.labels[query]
    wrong = (label + 1) % 10
    good, fair = wrong if PLAN.phase_of(query) == FAILED else label, wrong if query % 20 < 2 else label
    said = [
        ModelAnswer(model=n, version="1", propensity=1.0, output=digit) for n, digit in (("good", good), ("fair", fair))
    ]
    models = said if query % len(POLICIES) else said[1:]
    return Prediction(query_id=script.query_id(query), application="digits", output=fair, models=models)


def sample(at_s, answered, feedback):
    """A sample in which both models have batches and weights."""
    share = answered / PLAN.queries
    series = [("clipper_cache_lookups_total", 100.0, {}), ("clipper_cache_hits_total", 7.0, {})]
    series += [("clipper_feedback_total", count, {"outcome": outcome}) for outcome, count in feedback.items()]
    for name, weight in (("good", 1 - share), ("fair", share)):
        model = {"model": name, "version": "1"}
        series += [
            ("clipper_batch_rows_sum", 10.0 * at_s, model),
            ("clipper_batch_rows_bucket", 4.0 * at_s, model | {"le": "8.0"}),
            ("clipper_batch_limit_rows", 3.0 + at_s, model),
        ]
        weighed = [{"application": application_of(policy), "model": f"{name}:1"} for policy in POLICIES]
        series += [("clipper_selection_weight", weight, labels) for labels in weighed]
    metrics = Scrape({(name, frozenset(labels.items())): value for name, value, labels in series})
    return DemoSample(metrics=metrics, at_s=at_s, sent=answered, answered=answered, feedback_sent=answered)


def fabricate(skipped=(), twice=()):
    """Recorder and result of a run in which some queries have no answer, and some two."""
    recorder = begun_recorder()
    ledger, script = recorder.run.ledger, recorder.run.script
    for query in range(PLAN.queries):
        sent_s = query / PLAN.rate_per_s
        ledger.sent(query, began_s=sent_s, now_s=sent_s)
        for _ in range((query not in skipped) + (query in twice)):
            if ledger.answered(query, sent_s + 0.01 + 0.0001 * query, reason=None):
                recorder.answered(query, answer_to(script, query))
    recorder.samples = [sample(float(second), 100 * second, {"applied": 100.0 * second}) for second in range(5)]
    result = demo_result(
        recorder,
        summarise(ledger, application="digits", mode="bounded", distinct_inputs=360, feedback_sent=400),
        uncommitted={},
        verification=Verification(equal=True, seconds=0.5, partitions=[VERDICT]),
        seconds=12.0,
        setup_seconds=4.0,
        embedded=True,
    )
    return recorder, result
