import asyncio
import math
from types import SimpleNamespace

import msgspec
import pytest
from builders.messages import CANDIDATE_COMPARISON, COMPARISON
from builders.rollout_logs import answered
from unit.rollout.rig import CATALOGUE, control_of, control_records, fold_of, query, with_trials

from clipper_agents.control.errors import WriteContention
from clipper_agents.observability.metrics import StewardMetrics
from clipper_agents.rollout import app
from clipper_agents.rollout.app import AGAIN_S, CHANGED_S, ComparisonReports
from clipper_agents.rollout.decisions import plan_of
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import StewardSection
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
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
        section = StewardSection()
        settings = WorkerSettings(kafka=kafka, catalogue=CATALOGUE, instance="steward", section=section)
        self.controller = app.RolloutController(settings, self, StewardMetrics())
        self.controller._control, self.controller._caught_up = self.control, True
        self.fold = fold_of(self.control)
        self.asked, self.made, self.errors, self.queries = [], [], [], 0

    async def apply(self, decision):
        self.asked.append((decision.command, decision.model))
        if self.errors:
            raise self.errors.pop()
        (edit,) = plan_of(decision, self.control.manifests).changes
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
        metrics.counter("clipper_decisions_total", name, "step", "made").inc()
        metrics.counter("clipper_drifts_total", name, f"{name}:1", "up").inc()
    rollout.controller._take_control([])
    found = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert {one.labels["application"] for one in found if "application" in one.labels} == {"digits"}


KEY, OTHER = b"digits/svm:2", b"digits/forest:2"


class Written:
    """What is written at each second."""

    def __init__(self):
        self.at_s, self.due = {}, {}
        self.reports = ComparisonReports(self.due.__setitem__)

    def put(self, now_s, *comparisons):
        self.due.clear()
        self.reports.put(comparisons, now_s)
        for key in self.due:
            self.at_s.setdefault(key, []).append(now_s)
        return dict(self.due)


def counted(feedbacks):
    return msgspec.structs.replace(COMPARISON, feedbacks=feedbacks)


@pytest.mark.parametrize(
    ("feedbacks", "written_s"),
    [(range(12), [0, CHANGED_S, 2 * CHANGED_S]), ([1] * 90 + [2] * 40, [0, AGAIN_S, 90])],
    ids=["it changes each second", "it stays for a minute, and changes"],
)
def test_a_comparison_is_written_each_minute_or_when_it_changes_though_not_each_second(feedbacks, written_s):
    written = Written()
    for second, count in enumerate(feedbacks):
        written.put(second, counted(count))
    assert written.at_s == {KEY: written_s}


def test_a_version_that_is_not_compared_any_more_is_said_once():
    written = Written()
    written.put(0, COMPARISON, CANDIDATE_COMPARISON)
    assert written.put(1, CANDIDATE_COMPARISON) == {KEY: None}
    assert written.put(2, CANDIDATE_COMPARISON) == {}
    assert written.put(3) == {OTHER: None}
    assert written.put(4, COMPARISON) == {KEY: codec.comparisons.encode(COMPARISON)}


class GrowingLog:
    """A consumer of logs that are empty when they are first asked about, and grow with each question."""

    def __init__(self):
        self.records, self.sought = 0, set()
        self._client = SimpleNamespace(cluster=SimpleNamespace(leader_for_partition=lambda tp: 0))

    def assign(self, partitions):
        pass

    async def end_offsets(self, partitions):
        self.records += 1
        return dict.fromkeys(partitions, self.records - 1)

    async def offsets_for_times(self, times):
        self.records += 1
        return dict.fromkeys(times)  # none of that time or later

    def seek(self, tp, offset):
        self.sought.add(offset)


def test_what_is_written_while_a_reading_of_empty_logs_begins_is_not_passed():
    """The end was asked for after the time: records written in between were neither of that time nor behind the end."""
    log = GrowingLog()
    logs = MergedLogTailer(KafkaConnection("127.0.0.1:1"), Catalogue(partitions=1))
    logs._reader._consumer = log
    asyncio.run(logs.start(0))
    assert log.sought == {0}
