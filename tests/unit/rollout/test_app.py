"""What the controller does about decisions: none keeps another from being made, and an abort is made first."""

import math

import pytest
from builders.rollout_logs import answered
from unit.rollout.rig import CATALOGUE, control_of, control_records, fold_of, query, with_trials

from clipper_agents.control.errors import WriteContention
from clipper_agents.observability.metrics import StewardMetrics
from clipper_agents.rollout import app
from clipper_agents.rollout.decisions import plan_of
from clipper_agents.settings.workers import StewardSettings
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import RolloutRule, Trial

RULE = RolloutRule(margin=0.2, steps=[0.25, 0.5], least=20)
SHARES = {"half:1": 0.5, "better:1": 0.25, "worse:1": 0.25}
TRIALS = [Trial(model=ref, stage="canary", share=share, automatic=ref != "half:1") for ref, share in SHARES.items()]


class Rollout:
    """A controller whose changes are made in memory, and what it reads."""

    def __init__(self):
        self.control = control_of(with_trials(*TRIALS, rollout=RULE), published=("a:1", *SHARES))
        kafka = KafkaConnection(bootstrap="nowhere:9092")
        settings = StewardSettings(kafka=kafka, catalogue=CATALOGUE, instance="steward")
        self.controller = app.RolloutController(settings, self, StewardMetrics())
        self.controller._control, self.controller._caught_up = self.control, True
        self.fold = fold_of(self.control)
        self.asked, self.made, self.errors, self.queries = [], [], [], 0

    async def apply(self, decision):
        self.asked.append((decision.command, decision.model))
        if self.errors:
            raise self.errors.pop()
        (edit,) = plan_of(decision, self.control.manifests).edits
        self.made.append((decision.command, decision.model))
        self.control.take(control_records(edit.after, decision.revision + 1))

    def read(self, count, **outputs):
        """So many queries with the true output 1, each served by a canary; the versions of these names say this."""
        for _ in range(count):
            self.queries += 1
            canaries = [one.model for one in self.control.manifests.applications["digits"].trials]
            turn = [ref for ref in canaries for _ in range(int(4 * SHARES[ref]))]
            ref = turn[self.queries % len(turn)]
            canary = answered(ref, outputs.get(ref.partition(":")[0], outputs["a"]), propensity=SHARES[ref])
            revision = self.control.current("digits")
            beside = [answered("a:1", outputs["a"])]
            yield from query(f"0-{self.queries}", canary, beside=beside, offset=self.queries, revision=revision)

    async def follow(self, count, **outputs):
        """The controller's loop over these queries, each record the last for a while."""
        for record in self.read(count, **outputs):
            await self.controller._take(self.fold, record, self.queries)
            self.controller._news_s = -math.inf
            await self.controller._look(self.fold, news=False)


@pytest.fixture
def rollout():
    return Rollout()


async def test_a_step_that_is_refused_keeps_no_other_trial_from_its_abort(rollout):
    await rollout.follow(120, a=0, better=1)
    assert rollout.asked == [("step", "better:1")], "it is refused, and not asked for again at this revision"
    await rollout.follow(120, a=1, better=1, worse=0)
    assert rollout.made[:2] == [("abort", "worse:1"), ("step", "better:1")], "with the share of the other there is room"


async def test_of_several_changes_an_abort_is_made_first(rollout):
    for answers in ({"a": 0, "better": 1}, {"a": 1, "worse": 0}):
        for record in rollout.read(120, **answers):
            rollout.fold.take(record, rollout.queries * 1000)
    await rollout.controller._follow(rollout.fold)
    assert rollout.asked[0] == ("abort", "worse:1")


async def test_a_change_that_other_writers_interrupt_is_tried_again(rollout):
    rollout.errors = [WriteContention("a command runs in a loop")]
    await rollout.follow(60, a=1, worse=0)
    assert (rollout.asked, rollout.made) == ([("abort", "worse:1")] * 2, [("abort", "worse:1")])


async def test_the_series_of_an_application_that_is_withdrawn_end(rollout):
    metrics = rollout.controller._metrics
    for name in ("digits", "gone"):
        metrics.count_decision(name, "step", "made")
        metrics.count_drift(name, f"{name}:1", worse=True)
    rollout.controller._take_control([])
    found = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert {one.labels["application"] for one in found if "application" in one.labels} == {"digits"}
