import asyncio
import json
import re
import signal

import pytest
from builders.router_deployment import WITHIN_S
from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of, until
from integration.test_console_view import followed

from clipper_agents import exits

CONFIGURATION = """
[[application]]
name = "slow"
models = ["slow-sum:1"]
policy = { name = "single" }
objective_ms = 4000
default_output = -1

[[model]]
name = "slow-sum"
uri = "clipper_agents.examples.models:slow"
"""


async def test_a_deployment_is_seen_while_it_comes_up_runs_and_loses_its_host(catalogue, shell, at):
    (shell.folder / "clipper.toml").write_text(CONFIGURATION)
    model = {"name": "slow-sum", "uri": "clipper_agents.examples.models:slow"}

    async def status(holds=lambda seen: True):
        async with asyncio.timeout(WITHIN_S):
            while True:
                done = await asyncio.to_thread(shell.run, "status", "--json")
                if holds(seen := json.loads(done.out)):
                    return seen, done.code

    await asyncio.to_thread(shell, "apply")
    seen, code = await status()
    assert code == exits.FAILURE
    assert any("no router runs" in reason for reason in seen["reasons"])
    await at.send(catalogue.queries, b"no query")
    host = at.worker("host", "slow-sum:1", name="h", model=[model], host={"data_dir": str(at.folder)})
    async with at.router():
        async with host:
            seen, code = await status(lambda seen: not seen["reasons"] and seen["cluster"]["dead_letters"] == 1)
            assert code == exits.OK
            assert seen["cluster"]["brokers"][0]["reachable"] is True
            routers, hosts = [group["members"] for group in seen["cluster"]["groups"]]
            assert [(one["instance"], one["partitions"][catalogue.queries]) for one in routers] == [
                ("router-0", [0, 1])
            ]
            assert [one["instance"] for one in hosts] == ["h"]
            await at.ask({"application": "slow", "input": [1, 2]})

            def limits(seen):
                return [one["declared"]["batch_limit"] for one in seen["applications"]["slow"]["versions"]]

            seen, _ = await status(lambda seen: limits(seen) != [None])
            assert limits(seen) >= [1], "the host reports where its metrics are"
            nobody = await asyncio.to_thread(shell.run, "status", "--set", "kafka.prefix=nobody")
            assert nobody.code == exits.FAILURE
        missed = "model slow-sum:1 has 0 of 1 hosts"
        await status(lambda seen: any(missed in reason for reason in seen["reasons"]))


STANDS_STILL = {
    "router": r"router router-0 on N finishes nothing, so N .*|router router-0 says .*|no router runs, so N .*",
    "host": r"host of slow-sum:1 h on N finishes nothing, so N .*|host h of model .*|model slow-sum:1 has N of .*",
}
"""What names who stands still: its session has ended where status and console are as slow."""


@pytest.mark.parametrize("frozen", STANDS_STILL)
async def test_who_stands_still_is_named_within_seconds_and_alike_by_status_and_console(
    kafka, catalogue, shell, at, frozen
):
    """With the only router frozen, or none at all, the console said that nothing is wrong."""
    (shell.folder / "clipper.toml").write_text(CONFIGURATION.replace("4000", "1000"))
    await asyncio.to_thread(shell, "apply")
    model = {"name": "slow-sum", "uri": "clipper_agents.examples.models:slow"}
    topics = {catalogue.queries: "QUERIES", catalogue.requests("slow-sum", "1"): "REQUESTS"}

    def plain(reasons):
        """What is said without numbers and addresses, and with the topics' kinds."""
        for name, kind in topics.items():
            reasons = [line.replace(name, kind) for line in reasons]
        return sorted({re.sub(r"(?<![\w:-])[\d.]+(?![\w])", "N", line) for line in reasons})

    async def told(holds):
        """What status and console say, once both say the same and it is as wanted."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                done = await asyncio.to_thread(shell.run, "status", "--json")
                said = plain(json.loads(done.out)["reasons"])
                if said == plain(map(str, view.problems())) and holds(said):
                    return said

    host = at.worker("host", "slow-sum:1", name="h", model=[model], host={"data_dir": str(at.folder)})
    async with host as sums, at.router() as router, followed(kafka, catalogue, shell.folder / "history") as view:
        await at.ask({"application": "slow", "input": [1, 2]})
        await told(lambda said: said == [])
        stopped = router if frozen == "router" else sums
        stopped.signal(signal.SIGSTOP)
        await at.ask(*[{"application": "slow", "input": [number, 2]} for number in range(5)])
        await told(lambda said: any(re.match(STANDS_STILL[frozen], line) for line in said))
        stopped.signal(signal.SIGCONT)
        await told(lambda said: said == [])
    await at.ask({"application": "slow", "input": [1, 2]})
    async with followed(kafka, catalogue, shell.folder / "history") as view:
        await told(lambda said: any("no router runs, so N records of QUERIES wait" in line for line in said))


def test_a_model_that_raises_is_told_and_its_traceback_is_in_the_log(kafka, catalogue, tmp_path, shell):
    failing = CONFIGURATION.replace("slow-sum", "fails").replace("slow", "flaky").replace("4000", "20000")
    (tmp_path / "clipper.toml").write_text(failing + "parameters = { failing_ratio = 1.0 }\n")
    settings = ("--config", "clipper.toml", "--set", f"router.data_dir={tmp_path / 'data'}")
    client = AnyClient(kafka.bootstrap)
    with Program("up", *settings, folder=tmp_path, environ=environment_of(kafka, catalogue)) as up:
        up.ready()
        for _ in range(3):
            client.send_json(catalogue.queries, {"application": "flaky", "input": [1, 2]})
        told = "application flaky: model fails:1 failed 3 of 3 queries"
        seen = until("the failures are told", lambda: (found := shell.run("status")).out.count(told) and found)
        assert seen.code == 1
        assert "ValueError: row 0 is one that this model cannot stand" in seen.out
        assert "correct it, or take it out by `clipper-stream model retire fails:1 -a flaky`" in seen.out
        until("a traceback", lambda: up.log.count("Traceback (most recent call last)") == 1)
        assert 'msg="model fails model=fails:1' in up.log
