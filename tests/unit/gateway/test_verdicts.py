"""The verdict about a trial, as controllers of rollouts ask for it."""

import re
import time

import pytest
import yaml
from builders.pages import blocks
from builders.status import compared, facts
from sources import ROOT
from unit.gateway.rig import NO_KAFKA
from unit.gateway.wires import HttpWire

from clipper_gateway.api import VERDICTS
from clipper_gateway.pipeline import DeployedApplications
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.comparison import GuardrailReport
from clipper_topics.control_keys import change_key

PAGE = ROOT / "docs/how-to/judge-a-kubernetes-rollout.md"
PATH = "/v1/trials/digits/rf:2/verdict"
P99 = GuardrailReport(name="p99", state="within", bound=0.01, estimate=0.002, lower=0.0, upper=0.0091)


def changed(view, *commands):
    """A deployment whose last changes of `new:1` are these."""
    for number, command in enumerate(commands, 5):
        one = Change(application="digits", revision=number, command=command, model="new:1", at_ms=9, by="rollout")
        one.why, one.numbers = f"why {command}", {"feedbacks": 60}
        view.control(change_key("digits", number), codec.changes.encode(one))


@pytest.fixture
def deployed():
    found = DeployedApplications(*NO_KAFKA)
    found._facts = facts()
    found._state = found._facts.declared
    found.control.caught_up.set()
    found.comparisons.caught_up.set()
    record = codec.comparisons.encode(compared("rf:2", "it is to be promoted", guardrails=[P99]))
    found._facts.comparison(b"digits/rf:2", record, at_s=time.time())
    return found


@pytest.fixture
async def wire(deployed):
    async with HttpWire() as wire:
        wire.calls.applications = deployed
        yield wire


async def test_a_trial_has_its_verdict_with_estimate_interval_and_guardrails(wire):
    found = await wire.client.get(PATH, headers=wire.headers)
    told = found.json()
    assert (found.status_code, told["verdict"], told["why"]) == (200, "better", "it is to be promoted")
    assert (told["application"], told["model"], told["stage"], told["share"]) == ("digits", "rf:2", "canary", 0.05)
    evidence = told["evidence"]
    assert [evidence[name] for name in ("difference", "lower", "upper")] == [-0.1, -0.2, -0.01]
    assert evidence["guardrails"] == [
        {"name": "p99", "state": "within", "bound": 0.01, "estimate": 0.002, "lower": 0.0, "upper": 0.0091}
    ]


@pytest.mark.parametrize(
    ("method", "query", "status"),
    [
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("POST", "", 200),
        ("POST", "?expect=better,not_worse", 200),
        ("GET", "?expect=worse,aborted", 409),
        ("POST", "?expect=worse", 409),
        ("POST", "?expect=promote", 400),
        ("DELETE", "", 405),
    ],
)
async def test_the_status_says_whether_the_verdict_is_one_that_is_expected(wire, method, query, status):
    body = {"json": {"name": "digits", "phase": "Progressing", "metadata": {}}} if method == "POST" else {}
    found = await wire.client.request(method, PATH + query, headers=wire.headers, **body)
    assert found.status_code == status
    if status in (200, 409) and method != "HEAD":
        assert found.json()["verdict"] == "better"


@pytest.mark.parametrize(
    ("commands", "verdict"),
    [
        (["shadow", "abort"], "aborted"),
        (["abort", "shadow", "promote"], "retired"),
        (["promote", "retire"], "retired"),
    ],
)
async def test_a_trial_that_has_ended_says_how_and_why(wire, deployed, commands, verdict):
    changed(deployed._facts, *commands)
    found = (await wire.client.get("/v1/trials/digits/new:1/verdict", headers=wire.headers)).json()
    assert (found["verdict"], found["why"], found["numbers"]) == (verdict, f"why {commands[-1]}", {"feedbacks": 60})
    assert "evidence" not in found
    if verdict == "retired" and commands[-1] == "promote":
        deployed._facts.declared.manifests.applications["digits"].models.append("new:1")
        found = await wire.client.get("/v1/trials/digits/new:1/verdict", headers=wire.headers)
        assert found.json()["verdict"] == "promoted"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/trials/digits/svm:1/verdict", "all", 404),
        ("/v1/trials/digits/shadow:1/verdict", "all", 404),
        ("/v1/trials/nothing/rf:2/verdict", "all", 404),
        (PATH, "", 401),
        (PATH, "predict", 403),
        (PATH, "read", 403),
        ("/v1/trials/texts/rf:2/verdict", "read", 404),
    ],
    ids=["a model", "only named", "no application", "no key", "no right", "not this application", "unknown to it"],
)
async def test_an_unknown_trial_is_404_and_who_may_not_read_the_application_learns_nothing(wire, path, key, status):
    for method in ("GET", "POST"):
        found = await wire.client.request(method, path, headers={"x-api-key": key} if key else {})
        assert found.status_code == status


async def test_a_gateway_that_has_not_read_the_comparisons_says_so_and_an_old_one_is_no_evidence(wire, deployed):
    deployed.comparisons.caught_up.clear()
    assert (await wire.client.get(PATH, headers=wire.headers)).status_code == 503
    deployed.comparisons.caught_up.set()
    deployed._facts.comparison(b"digits/rf:2", codec.comparisons.encode(compared("rf:2")), at_s=time.time() - 200)
    found = (await wire.client.get(PATH, headers=wire.headers)).json()
    assert (found["verdict"], found["evidence"]) == ("undecided", None)


def test_the_page_expects_verdicts_that_there_are():
    template, canary = map(yaml.safe_load, blocks(PAGE, "yaml"))
    (metric,) = template["spec"]["metrics"]
    asked = {word for name in ("successCondition", "failureCondition") for word in re.findall('"(.*?)"', metric[name])}
    urls = [hook["url"] for hook in canary["spec"]["analysis"]["webhooks"]]
    asked |= {word for url in urls for word in url.partition("?expect=")[2].split(",")}
    assert asked <= VERDICTS
    assert asked >= VERDICTS - {"undecided"}
    for url in [metric["provider"]["web"]["url"], *urls]:
        assert re.search(r"/v1/trials/digits/(\{\{args\.model\}\}|svm:2)/verdict", url)
