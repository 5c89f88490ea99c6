import json
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import skops.io
from builders.compose import CONFIG, ROOT, SERVICES, program, settled
from e2e.programs import Program, Shell, environment, environment_of
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from clipper_agents.control.apply import KEPT
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

ROWS = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)
SLOW = [pytest.param(f"larger.{kind}", marks=pytest.mark.slow) for kind in ("skops", "onnx")]


@pytest.mark.parametrize("target", ["shop:larger", *SLOW])
def test_two_commands_lead_from_one_file_to_its_first_answer(
    target: str, kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path
):
    (tmp_path / "shop.py").write_text("def larger(rows):\n    return (rows.mean(axis=1) > 0.5).astype(int)\n")
    estimator = LogisticRegression(C=100.0).fit(ROWS, [0, 1])
    skops.io.dump(estimator, tmp_path / "larger.skops")
    (tmp_path / "larger.onnx").write_bytes(to_onnx(estimator, ROWS).SerializeToString())
    shell = Shell(tmp_path, environment())
    with Program("up", target, folder=tmp_path, environ=environment_of(kafka, catalogue)) as up:
        assert up.ready() == {"bootstrap": kafka.bootstrap}
        assert not any("kafka.Kafka" in process.command for process in up.children()), "one of its own"
        asked = shell.run("predict larger '[0.9, 0.8]'")
        assert (asked.code, asked.err) == (0, [f"using {kafka.bootstrap}, where `up` runs in this folder"])
        answer = json.loads(asked.out)
        assert (answer["output"], answer["default"], answer["query_id"][1]) == (1, False, "-")
        refused = shell.run("model deploy other:1 --uri os.path:join -a larger --unchecked --wait 60")
        assert (refused.code, "outside of what this process may load" in refused.err[-1]) == (1, True)
        up.signal(signal.SIGTERM)
        assert up.ended() == 0, up.log[-4000:]


def test_services_of_compose_serve_what_is_deployed_live_and_a_second_apply_keeps_it(kafka, catalogue, tmp_path):
    def environ(service: str) -> dict[str, str]:
        given = {name: settled(value) for name, value in SERVICES[service]["environment"].items()}
        for role in ("ROUTER", "HOST", "STEWARD", "GATEWAY"):
            given |= {f"CLIPPER_{role}_METRICS_PORT": "0", f"CLIPPER_{role}_METRICS_ADDRESS": "127.0.0.1"}
        data = {f"CLIPPER_{role}_DATA_DIR": str(tmp_path / "data") for role in ("ROUTER", "HOST")}
        return environment_of(kafka, catalogue, **data) | {name: value for name, value in given.items() if value} | data

    def words(service: str) -> list[str]:
        return [word.replace(CONFIG, str(ROOT / "deploy/clipper.toml")) for word in program(service)[1:]]

    def does(service: str) -> list[str]:
        return Shell(tmp_path, environ(service))(*words(service))

    does("topics")
    assert does("apply")[-1] == "application sums revision 1: create"
    operator = Shell(tmp_path, environment_of(kafka, catalogue))
    with ExitStack() as stack:
        for service in ("hosts", "router"):
            started = Program(*words(service), folder=tmp_path / service, environ=environ(service))
            stack.enter_context(started).ready()
        uri = "clipper_agents.examples.models:sum_of_row"
        operator(f"model deploy sum:2 --uri {uri} --application sums --wait 60")
        operator("model promote sum:2 --application sums")
        answer = json.loads("".join(operator("predict sums '[1, 2, 3]' --model sum:2")))
        assert (answer["output"], answer["models"][0]["version"]) == (6.0, "2")
        first, *said, last = does("apply")
        assert (first, last) == (KEPT, "nothing changed")
        assert "~ application sums" in said
