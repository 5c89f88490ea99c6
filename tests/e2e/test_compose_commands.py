"""The commands of the compose file serve what is deployed live, and a second start keeps it."""

import json
from contextlib import ExitStack

import pytest
from builders.compose import CONFIG, ROOT, SERVICES, program, settled
from e2e.programs import Done, Program, environment_of, run

from clipper_agents.control.apply import KEPT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_the_services_serve_what_is_deployed_live_and_a_second_apply_keeps_it(kafka, catalogue, tmp_path):
    def environ(service: str) -> dict[str, str]:
        given = {name: settled(value) for name, value in SERVICES[service]["environment"].items()}
        for role in ("ROUTER", "HOST", "STEWARD", "GATEWAY"):
            given[f"CLIPPER_{role}_METRICS_PORT"] = "0"
            given[f"CLIPPER_{role}_METRICS_ADDRESS"] = "127.0.0.1"
        data = {f"CLIPPER_{role}_DATA_DIR": str(tmp_path / "data") for role in ("ROUTER", "HOST")}
        return environment_of(kafka, catalogue, **data) | {name: value for name, value in given.items() if value} | data

    def words(service: str) -> list[str]:
        config = str(ROOT / "deploy/clipper.toml")
        return [word.replace(CONFIG, config) for word in program(service)[1:]]

    def once(service: str) -> list[str]:
        done = run(*words(service), folder=tmp_path, environ=environ(service))
        assert done.code == 0, done.err
        return done.out.splitlines()

    def command(*arguments: str) -> Done:
        done = run(*arguments, folder=tmp_path, environ=environment_of(kafka, catalogue))
        assert done.code == 0, done.err
        return done

    once("topics")
    assert once("apply")[-1] == "application sums revision 1: create"
    with ExitStack() as stack:
        for service in ("hosts", "router"):
            started = Program(*words(service), folder=tmp_path / service, environ=environ(service))
            stack.enter_context(started).ready()
        uri = "clipper_agents.examples.models:sum_of_row"
        command("model", "deploy", "sum:2", "--uri", uri, "--application", "sums", "--wait", "60")
        command("model", "promote", "sum:2", "--application", "sums")
        answer = json.loads(command("predict", "sums", "[1, 2, 3]", "--model", "sum:2").out)
        assert (answer["output"], answer["models"][0]["version"]) == (6.0, "2")
        said = once("apply")
        assert (said[0], said[-1]) == (KEPT, "nothing changed")
        assert "    # sums revision 3, promote sum:2" in "\n".join(said)
