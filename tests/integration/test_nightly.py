import asyncio
import json
import time

from aiokafka import AIOKafkaProducer
from builders.decision_logs import answer, decided
from builders.router_deployment import publish_manifests

from clipper_agents import exits
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec

MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("a", "b")]
APP = ApplicationManifest(name="app", models=["a:1", "b:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="exp3"))


async def logged(kafka, catalogue, numbers):
    """A decision a number: by a:1, wrong in two of five, or by b:1, always right; and one without feedback at last."""
    since_ms = round(time.time() * 1000) - 10 * len(numbers)
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        for number in numbers:
            query_id, ref = f"0-{number:032x}", ("a:1", "b:1")[number * 7 % 13 % 2]
            label = int(ref == "a:1" and number % 5 < 2)
            at_ms = since_ms + 10 * (number - numbers[0])
            chosen = answer(ref, 0, 0.5)
            made = decided(query_id, chosen, predicted_at_ms=at_ms, query_offset=number, features=[number % 2])
            await producer.send(catalogue.predictions, codec.predictions.encode(made), partition=0)
            truth = Feedback(query_id=query_id, label=label)
            await producer.send(catalogue.feedback, codec.feedback.encode(truth), partition=0)
        later = decided(f"0-{number + 1:031x}f", answer("a:1", 0, 0.5), predicted_at_ms=at_ms + 3_600_000)
        await producer.send_and_wait(catalogue.predictions, codec.predictions.encode(later), partition=0)


def test_each_night_says_what_to_try_and_judges_what_was_learned_by_a_later_day(kafka, catalogue, shell):
    asyncio.run(publish_manifests(kafka, catalogue, [*MODELS, APP]))
    asyncio.run(logged(kafka, catalogue, range(600)))
    nightly, reports = ("replay", "nightly", "--out", "nightly"), shell.folder / "nightly"
    (said,) = shell(*nightly)
    assert said.startswith("app: try model b:1: it gains 0.2")
    assert {file.name for file in reports.iterdir()} == {"app.html", "app.json"}
    learn = ("replay", "learn", "app", "--out", "nightly", "--policy")
    shell(*learn, "split:a:1=0.5,b:1=0.5", code=exits.USAGE, said="give a policy that learns")
    assert shell(*learn, "lin_ucb:alpha=0.5") == ["nightly/app.learned.json: lin_ucb:alpha=0.5, 1 rows"]
    (said,) = shell(*nightly)
    assert said.startswith("app: nothing is known since nightly/app.learned.json was learned: no decisions")
    asyncio.run(logged(kafka, catalogue, range(600, 1_000)))
    (said,) = shell(*nightly)
    assert said.startswith("app: try model b:1: it gains 0.")
    found = json.loads((reports / "app.json").read_bytes())
    learned = next(one for one in found["candidates"] if one["name"] == "frozen lin_ucb:alpha=0.5")
    assert (found["decisions"], learned["standing"]["unsupported_ratio"]) == (401, 0.0)
    assert learned["difference"]["high"] < 0.0
