"""Is a model that turns bad reported by the steward, once, and shown by `status` and `watch`?"""

import json

import pytest
from builders.rollout_logs import RecordedChanges, answered, steward, until, writing

from clipper_agents import exits
from clipper_agents.control.state import read_control
from clipper_agents.rollout.read_comparisons import read_comparisons
from clipper_topics.manifests import ApplicationManifest, DriftRule

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

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
    good = answered("good:1", 1)
    async with writing(kafka, catalogue) as logs:
        async with steward(kafka, catalogue, changes) as (_, metrics):
            await logs.queries(150, [good, answered("bad:1", 1)])
            await logs.queries(120, [good, answered("bad:1", 0)])
            rise = (await until("the rise", lambda: changes.noted))[0]
            assert counted(metrics, "up") == 1
        shown = await drifts()
        page = "\n".join(await command("status", code=exits.FAILURE))
        compared = await read_comparisons(kafka, catalogue, await read_control(kafka, catalogue))
        assert compared == (), "nothing is compared"
        async with steward(kafka, catalogue, changes) as (_, metrics):
            await logs.queries(200, [good, answered("bad:1", 1)])
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
    assert "drift bad:1: loss 0.000 -> 1.000, " in page
    assert (live[-1].model, live[-1].worse) == ("bad:1", False)
    assert control.drifts == {("digits", "bad:1"): live[-1]}
    assert not control.manifests.unreadable


def test_the_declaration_of_an_unknown_detector_or_parameter_is_refused(shell):
    (shell.folder / "clipper.toml").write_text(
        '[[model]]\nname = "sum"\nuri = "clipper_agents.examples.models:sum_of_row"\n'
        '[[application]]\nname = "sums"\nmodels = ["sum:1"]\n'
    )
    shell("apply")
    for drift, code, said in (
        ('{"parameters": {"nose": 1}}', exits.FAILURE, "parameter 'nose' of detector 'adwin': use one of delta"),
        ('{"parameters": {"delta": 7}}', exits.FAILURE, "delta is 7: give a number above 0"),
        ('{"detector": "nose"}', exits.FAILURE, "nose"),
        ('{"detector": "adwin", "parameters": {"delta": 0.01}}', exits.OK, ""),
    ):
        shell("application", "update", "sums", "--field", f"drift={drift}", code=code, said=said)
