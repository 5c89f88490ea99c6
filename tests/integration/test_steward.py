import asyncio
import json
import random
import time

import msgspec
import pytest
from builders.messages import COMPARISON
from builders.rollout_logs import answered
from integration.running_steward import RecordedChanges, read_comparisons, steward, until, writing

from clipper_agents import exits
from clipper_agents.control.state import read_control
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_agents.status.cluster import readable_partitions
from clipper_agents.status.collect import read_status
from clipper_agents.status.tailer import DeploymentTailer
from clipper_topics import codec
from clipper_topics.comparison import comparison_key
from clipper_topics.manifests import ApplicationManifest, DriftRule, RolloutRule, Trial

RULE = RolloutRule(margin=0.1, steps=[0.2], least=20)
RISING, FAILING, BY_HAND = (
    ApplicationManifest(name=name, models=["old:1"], trials=[trial], rollout=rule)
    for name, trial, rule in (
        ("rising", Trial(model="new:1", automatic=True), RULE),
        ("failing", Trial(model="broken:1", stage="canary", share=0.2, automatic=True), RULE),
        ("by-hand", Trial(model="new:1"), RolloutRule()),
    )
)
CROWDED = ApplicationManifest(name="crowded", models=["good:1", "bad:1"], keep_best=1)


async def test_trials_go_up_or_end_and_candidates_are_retired_by_what_the_logs_say(kafka, catalogue):
    old, new = answered("old:1", 0), answered("new:1", 1)
    changes = RecordedChanges(kafka, catalogue)
    await changes.create(RISING, FAILING, CROWDED, BY_HAND)
    async with writing(kafka, catalogue) as logs, steward(kafka, catalogue, changes) as (process, _):

        async def made(command):
            return await until(command, lambda: next((one for one in changes.made if one.command == command), None))

        await logs.queries(60, [old], [new], application="by-hand")
        await logs.queries(40, [old], [new], application="rising")
        step = await made("step")
        for _ in range(25):
            await logs.queries(1, [answered("new:1", 1, propensity=0.2)], [old], application="rising", revision=2)
            await logs.queries(4, [old], application="rising", revision=2, served_propensity=0.8)
        right, broken = answered("old:1", 1), answered("broken:1", 0, propensity=0.2)
        for _ in range(20):
            await logs.queries(1, [broken], [right], application="failing")
            await logs.queries(4, [right], application="failing", served_propensity=0.8)
        for _ in range(60):
            await logs.queries(1, [answered("good:1", 1, propensity=0.5)], application="crowded", served_propensity=0.5)
            await logs.queries(1, [answered("bad:1", 0, propensity=0.5)], application="crowded", served_propensity=0.5)
        promotion, abort, retirement = [await made(command) for command in ("promote", "abort", "retire")]
        for label in random.Random(7).choices([0, 1], k=30):
            await logs.queries(1, [old], [new], label=label, application="by-hand")
        await until(
            "all of it", lambda: [one.feedbacks for one in process.comparisons if one.stage == "shadow"] == [90]
        )
        live = process.comparisons
    again = await read_comparisons(kafka, catalogue, await read_control(kafka, catalogue))
    async with steward(kafka, catalogue, changes) as (restarted, _):
        await until("the same", lambda: restarted.comparisons == live)
    assert sorted(one.command for one in changes.made) == ["abort", "promote", "retire", "step"]
    assert (step.application, step.model, step.after.trials[0].share) == ("rising", "new:1", 0.2)
    assert 0 < step.numbers["scores"] <= 40, "without the newest second, of which feedback is still waited for"
    assert step.numbers["upper"] < RULE.margin
    assert step.numbers["difference"] == -1.0
    assert (promotion.after.models, promotion.after.trials) == (["old:1", "new:1"], [])
    assert (abort.application, abort.model, abort.after.trials) == ("failing", "broken:1", [])
    assert abort.numbers["lower"] > RULE.margin
    assert abort.numbers["scores"] <= 20, "a version that is always wrong is found out at once"
    assert (retirement.model, retirement.after.models) == ("bad:1", ["good:1"])
    assert retirement.numbers["loss"] == pytest.approx(1.0, abs=0.02)
    assert again == live, "bit by bit"
    (by_hand,) = [one for one in again if one.application == "by-hand" and one.stage == "shadow"]
    assert by_hand.feedbacks == 90
    assert by_hand.difference == pytest.approx(2 * by_hand.loss - 1), "one of the two is always right"
    assert 0.0 < by_hand.loss < 0.3
    assert not [one for one in again if one.application == "by-hand" and one.stage == "canary"], "nobody may step it up"


async def test_status_shows_what_a_steward_has_published_and_reads_no_log_again(kafka, catalogue, at):
    of, changes = ("by-hand", "new:1"), RecordedChanges(kafka, catalogue)
    await changes.create(BY_HAND)

    async def followed(holds):
        async with asyncio.timeout(60):
            while not holds(following.facts.comparisons):
                await following.poll()
        return following.facts.comparisons

    async with (
        writing(kafka, catalogue) as logs,
        DeploymentTailer(kafka, catalogue) as following,
        steward(kafka, catalogue, changes) as (process, _),
    ):
        await following.catch_up(await readable_partitions(kafka, catalogue))
        await logs.queries(30, [answered("old:1", 0)], [answered("new:1", 1)], application="by-hand")
        found = await followed(lambda found: of in found and found[of][0].feedbacks == 30)
        assert found[of][0] == next(one for one in process.comparisons if (one.application, one.model) == of)
        assert following.facts.fresh_comparison(of, time.time())
        (trial,) = (await read_status(kafka, catalogue)).applications["by-hand"].trials
        assert (trial.compared.feedbacks, trial.compared.difference) == (30, -1.0)
        assert trial.waits_for == f"somebody to decide, it is not automatic; {found[of][0].waits_for}"

        await changes.create(msgspec.structs.replace(BY_HAND, trials=[]))
        await followed(lambda found: of not in found)
    await changes.create(BY_HAND)
    only_there = msgspec.structs.replace(COMPARISON, application="by-hand", model="new:1", waits_for="for nobody")
    await at.send(catalogue.comparisons, codec.comparisons.encode(only_there), key=comparison_key(*of))
    (trial,) = (await read_status(kafka, catalogue)).applications["by-hand"].trials
    assert trial.waits_for.endswith("for nobody"), "no log says so"


async def test_a_steward_without_the_topic_of_comparisons_decides_and_says_so_once(kafka, catalogue, caplog):
    changes = RecordedChanges(kafka, catalogue)
    await changes.create(RISING)
    await delete_topics(kafka, [catalogue.comparisons])
    async with writing(kafka, catalogue) as logs, steward(kafka, catalogue, changes) as (process, _):
        await logs.queries(40, [answered("old:1", 0)], [answered("new:1", 1)], application="rising")
        await until("a step", lambda: changes.made)
        said = f"records of {catalogue.comparisons} are not written yet"
        lines = await until("it", lambda: [one for one in caplog.records if said in one.getMessage()])
    assert len(lines) == 1
    assert f"topic {catalogue.comparisons} does not exist" in lines[0].getMessage()
    assert process.comparisons
    assert catalogue.comparisons not in await existing_topics(kafka), "nobody makes it on demand"
    (trial,) = (await read_status(kafka, catalogue)).applications["rising"].trials
    assert trial.compared is None, "nobody else compares"


WATCHED = ApplicationManifest(name="digits", models=["good:1", "bad:1"], drift=DriftRule())


def counted(metrics, direction):
    labels = {"application": "digits", "model": "bad:1", "direction": direction}
    return metrics.registry.get_sample_value("clipper_drifts_total", labels)


async def test_a_model_that_turns_bad_is_reported_once_and_is_shown_until_it_is_good_again(kafka, catalogue, command):
    async def drifts():
        """Versions that drift, as the status says."""
        found = json.loads("\n".join(await command("status", "--json", code=exits.FAILURE)))
        return {one["model"]: one["drift"] for one in found["applications"]["digits"]["versions"] if one["drift"]}

    changes = RecordedChanges(kafka, catalogue)
    await changes.create(WATCHED)
    good, in_one_hour = answered("good:1", 1), {"queried_at_ms": 1}
    async with writing(kafka, catalogue) as logs:
        async with steward(kafka, catalogue, changes) as (_, metrics):
            await logs.queries(150, [good, answered("bad:1", 1)], **in_one_hour)
            await logs.queries(120, [good, answered("bad:1", 0)], **in_one_hour)
            rise = (await until("the rise", lambda: changes.noted))[0]
            assert counted(metrics, "up") == 1
        shown = await drifts()
        page = "\n".join(await command("status", code=exits.FAILURE))
        compared = await read_comparisons(kafka, catalogue, await read_control(kafka, catalogue))
        assert compared == (), "nothing is compared"
        async with steward(kafka, catalogue, changes) as (_, metrics):
            await logs.queries(200, [good, answered("bad:1", 1)], **in_one_hour)
            await until("the fall", lambda: len(changes.noted) > 1)
            assert (counted(metrics, "up"), counted(metrics, "down")) == (None, 1)
            live = list(changes.noted)
        async with steward(kafka, catalogue, changes) as (process, _):
            await until("all of it", lambda: [one.feedbacks for one in process.comparisons] == [470, 470])
    assert changes.noted == live, "a restart writes none of them again"
    assert await drifts() == {}
    control = await read_control(kafka, catalogue)
    assert (rise.model, rise.loss_before, rise.loss_after, rise.worse) == ("bad:1", 0.0, 1.0, True)
    assert rise.topic == catalogue.feedback
    assert {model: drift["loss_after"] for model, drift in shown.items()} == {"bad:1": 1.0}
    assert "loss of bad:1 for digits has risen from 0.000 to 1.000" in page
    assert (live[-1].model, live[-1].worse) == ("bad:1", False)
    assert control.drifts == {("digits", "bad:1"): live[-1]}
    assert not control.manifests.unreadable
