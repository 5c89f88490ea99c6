"""The commands of the compose file serve what is deployed live, and a second start keeps it."""

import json
from contextlib import ExitStack

import pytest
from builders.compose import CONFIG, ROOT, SERVICES, program, settled
from e2e.programs import Program, environment_of, run_here

from clipper_agents.control.apply import KEPT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_the_services_serve_what_is_deployed_live_and_a_second_apply_keeps_it(kafka, catalogue, tmp_path):
    def environ(service: str) -> dict[str, str]:
        given = {name: settled(value) for name, value in SERVICES[service]["environment"].items()}
        for role in ("ROUTER", "HOST", "STEWARD", "GATEWAY"):
            given |= {f"CLIPPER_{role}_METRICS_PORT": "0", f"CLIPPER_{role}_METRICS_ADDRESS": "127.0.0.1"}
        data = {f"CLIPPER_{role}_DATA_DIR": str(tmp_path / "data") for role in ("ROUTER", "HOST")}
        return environment_of(kafka, catalogue, **data) | {name: value for name, value in given.items() if value} | data

    def words(service: str) -> list[str]:
        return [word.replace(CONFIG, str(ROOT / "deploy/clipper.toml")) for word in program(service)[1:]]

    def typed(*arguments: str, service: str = "") -> str:
        settings = environ(service) if service else environment_of(kafka, catalogue)
        done = run_here(*arguments, folder=tmp_path, environ=settings)
        assert done.code == 0, done.err
        return done.out

    typed(*words("topics"), service="topics")
    assert typed(*words("apply"), service="apply").splitlines()[-1] == "application sums revision 1: create"
    with ExitStack() as stack:
        for service in ("hosts", "router"):
            started = Program(*words(service), folder=tmp_path / service, environ=environ(service))
            stack.enter_context(started).ready()
        uri = "clipper_agents.examples.models:sum_of_row"
        typed("model", "deploy", "sum:2", "--uri", uri, "--application", "sums", "--wait", "60")
        typed("model", "promote", "sum:2", "--application", "sums")
        answer = json.loads(typed("predict", "sums", "[1, 2, 3]", "--model", "sum:2"))
        assert (answer["output"], answer["models"][0]["version"]) == (6.0, "2")
        said = typed(*words("apply"), service="apply")
        assert (said.splitlines()[0], said.splitlines()[-1]) == (KEPT, "nothing changed")
        assert "    # sums revision 3, promote sum:2" in said
