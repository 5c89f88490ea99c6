"""What rivals of the same work do with records, `benchmarks/rivals/same_work.py`, and how their logs are checked.

`benchmarks/rivals/bare_router.py` stands on the router's own objects; a change that breaks it shows here.
"""

import asyncio
import math
import time
from collections import Counter

import msgspec
import pytest
from aiokafka import TopicPartition
from builders.benchmarks import BENCHMARKS, benchmark_module
from builders.kafka import FakeProducer, record

from clipper_agents.settings import load_settings
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.query import Query

same_work = benchmark_module("rivals.same_work")
run = benchmark_module("rig.same_work_run")
CONTENDER = benchmark_module("rig.contenders").contenders("msgpack")["confluent-same-work"]
DecisionFields = benchmark_module("rig.predictions").DecisionFields
NO_DEADLINE_MS = benchmark_module("rig.systems").NO_DEADLINE_MS
CATALOGUE = Catalogue(partitions=4)
NOW_MS = 1_700_000_000_000
ROW = [0.0] * 63 + [1.0]


class Answered:
    """A `Work` on dictionaries, by a clock that stands, or goes on by so many milliseconds at each look."""

    def __init__(self, step_ms=0):
        self.state, self.now_ms, self.step_ms = [{}, {}, {}, {}], NOW_MS, step_ms
        self.work = same_work.Work(*self.state, clock_ms=self.clock_ms)

    def clock_ms(self):
        self.now_ms += self.step_ms
        return self.now_ms - self.step_ms

    def ask(self, *query_ids, row=ROW, timestamp_ms=NOW_MS):
        queries = [{"query_id": each, "application": "digits", "input": row} for each in query_ids]
        answers = self.work.answer([same_work.Received(msgspec.json.encode(query), timestamp_ms) for query in queries])
        assert [query_id for query_id, _ in answers] == [*query_ids]
        return [msgspec.json.decode(value) for _, value in answers]

    def tell(self, query_id, label):
        self.work.learn([msgspec.json.encode({"query_id": query_id, "label": label})])

    def propensity_of(self, model):
        return same_work.propensities(msgspec.json.decode(self.state[2].get("digits", b"{}")))[model]


def test_a_query_is_answered_by_one_model_and_its_repeat_from_the_log_until_the_horizon():
    system = Answered()
    first, second = system.ask("0-a", "0-a")
    (asked,) = first["models"]
    assert (first["output"], first["latency_ms"], asked["propensity"]) == (asked["output"], 0, 0.5)
    assert first == second == system.ask("0-a", row=[1.0] * 64)[0]
    system.now_ms += 3_600_001
    (later,) = system.ask("0-a", timestamp_ms=system.now_ms)
    assert later["predicted_at_ms"] - first["predicted_at_ms"] == 3_600_001


@pytest.mark.parametrize(("sent_ms", "step_ms", "reason"), [(NOW_MS - 501, 0, "arrived_late"), (NOW_MS, 501, "late")])
def test_a_query_that_comes_or_whose_batch_ends_past_its_deadline_gets_the_default(sent_ms, step_ms, reason):
    (answer,) = Answered(step_ms).ask("0-a", timestamp_ms=sent_ms)
    assert (answer["output"], answer["reason"]) == (-1, reason)


def test_a_row_that_was_asked_before_is_answered_from_the_cache():
    system = Answered()
    cold = [answer["models"][0] for answer in system.ask(*(f"0-{number}" for number in range(20)))]
    assert not any(asked["cached"] for asked in cold)
    warm = system.ask("0-warm")[0]["models"][0]
    assert (warm["cached"], warm["output"]) == (True, {each["model"]: each["output"] for each in cold}[warm["model"]])


def test_feedback_moves_the_weights_once_by_its_importance_weighted_loss():
    system = Answered()
    system.tell("0-unknown", label=1)
    assert system.propensity_of("digits:1") == 0.5
    (answer,) = system.ask("0-a")
    asked = answer["models"][0]
    for _ in range(2):
        system.tell("0-a", label=asked["output"] + 1)
    weight = math.exp(-same_work.ETA * 1.0 / 0.5)
    expected = (1 - same_work.EXPLORATION) * weight / (weight + 1) + same_work.EXPLORATION / 2
    assert system.propensity_of(f"{asked['model']}:1") == pytest.approx(expected)


def test_a_mapping_in_memory_keeps_an_entry_for_one_to_two_horizons():
    mapping = same_work.TwoGenerations()
    mapping["a"] = b"1"
    snapshot = mapping.copy()
    for horizons, kept in ((1, b"1"), (2, None)):
        mapping.forget(mapping._since_s + 3_601)
        assert mapping.get("a") == kept, horizons
    assert snapshot.get("a") == b"1"


def test_the_configuration_of_the_same_work_is_that_of_the_rivals():
    settings = load_settings(BENCHMARKS / "configs/same-work.toml", {})
    for application in settings.applications:
        assert application.policy.parameters == {"eta": same_work.ETA, "exploration": same_work.EXPLORATION}
        assert application.default_output == same_work.DEFAULT_OUTPUT
    assert [f"{model.name}:{model.version}" for model in settings.models] == [*same_work.MODELS]
    assert all(model.colocated and model.deterministic for model in settings.models)


def queries_of(records):
    return [record for record in records if record.topic == CATALOGUE.queries]


def log_of(workload, last, scored):
    """The log of a system that does the work; feedback that is not in `scored` counts again."""
    work = same_work.Work({}, scored, {}, {}, {"digits-backlog": NO_DEADLINE_MS})
    written_ms = int(time.time() * 1000) - 10_000
    found = []
    for queries in (workload.earlier, queries_of(workload.later), last):
        answers = work.answer([same_work.Received(one.value, written_ms) for one in queries])
        found += [msgspec.json.decode(value, type=DecisionFields) for _, value in answers]
        if queries is workload.earlier:
            work.learn(one.value for one in workload.later if one.topic == CATALOGUE.feedback)
    return found


LATER = 80
"""Where the first later query stands in the log: nothing is learned from it."""


def changed(log, at=LATER, **fields):
    """The log, with other fields in an answer."""
    return [*log[:at], msgspec.structs.replace(log[at], **fields), *log[at + 1 :]]


class Forgetful(dict[str, bytes]):
    """What counts every feedback again."""

    def __setitem__(self, key, value):
        pass


@pytest.mark.parametrize(
    ("spoil", "scored", "noticed"),
    [
        pytest.param(lambda log: log, {}, set(), id="nothing"),
        pytest.param(lambda log: log[:LATER] + log[LATER + 1 :], {}, {"missing"}, id="a query is not answered"),
        pytest.param(lambda log: [log[LATER], *log], {}, {"duplicates"}, id="a query is answered twice"),
        pytest.param(lambda log: changed(log, output=99), {}, {"wrong"}, id="an output is not the model's"),
        pytest.param(lambda log: changed(log, output=-1, default=True), {}, {"wrong"}, id="a default in time"),
        pytest.param(lambda log: changed(log, 0, application="b"), {}, {"changed"}, id="a repeat is answered anew"),
        pytest.param(lambda log: log, Forgetful(), {"unlearned"}, id="a feedback counts twice"),
    ],
)
def test_a_log_is_complete_when_all_of_the_work_was_done_once(spoil, scored, noticed):
    workload, last = run.make_workload(CATALOGUE, 400), run.last_queries(CATALOGUE, 0)
    assert Counter(record.topic for record in workload.later) == {CATALOGUE.queries: 324, CATALOGUE.feedback: 86}
    checked = run.check(spoil(log_of(workload, last, scored)), workload, last, CONTENDER)
    assert {name for name in ("missing", "duplicates", "wrong", "changed", "unlearned") if checked[name]} == noticed
    assert checked["complete"] == (not noticed)
    assert checked["hit_ratio"] > 0.1
    assert checked["unlearned"] in (0, 4)


def test_the_yardstick_asks_the_declared_model_and_answers(tmp_path):
    bare_router = benchmark_module("rivals.bare_router")
    settings = load_settings(BENCHMARKS / "configs/colocated.toml", {})
    producer, part = FakeProducer(), TopicPartition(settings.catalogue.queries, 0)
    value = codec.queries.encode(Query(application="digits-backlog", input=[0.0] * 64))
    asked = record(0, value, None, part.topic, timestamp=int(time.time() * 1000))

    async def answered():
        router = bare_router.BareRouter(settings, tmp_path, producer, max_in_flight=1)
        await router.declare()
        router.frontiers[0].admit([0])
        now_s = time.time()
        router.effects.run(router.router.receive(router.fresh.of({part: [asked]}, 0, now_s, [], Counter()), now_s))
        async with asyncio.timeout(30):
            while router.frontiers[0].committable is None:
                await asyncio.sleep(0.001)
        await router.colocated.stop()
        return router.registry.application("digits-backlog").refs

    assert asyncio.run(answered()) == ("digits:1",)
    ((_, value, headers),) = producer.logs[settings.catalogue.predictions, 0]
    prediction = codec.predictions.decode(value, headers)
    assert [one.model for one in prediction.models] == ["digits"]
