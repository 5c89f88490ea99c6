"""From a model to its first answer: one file, two commands, and nothing said twice."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import skops.io
from e2e.programs import Program, environment_of, run_here
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROWS = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)


SLOW = [pytest.param(f"larger.{kind}", marks=pytest.mark.slow) for kind in ("skops", "onnx")]


@pytest.mark.parametrize("target", ["shop:larger", *SLOW])
def test_two_commands_lead_from_one_file_to_its_first_answer(
    target: str, kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path
):
    """A function in a module, or an estimator as skops or ONNX has it."""
    (tmp_path / "shop.py").write_text("def larger(rows):\n    return (rows.mean(axis=1) > 0.5).astype(int)\n")
    estimator = LogisticRegression(C=100.0).fit(ROWS, [0, 1])
    skops.io.dump(estimator, tmp_path / "larger.skops")
    (tmp_path / "larger.onnx").write_bytes(to_onnx(estimator, ROWS).SerializeToString())
    with Program("up", target, folder=tmp_path, environ=environment_of(kafka, catalogue)) as up:
        assert up.ready() == {"bootstrap": kafka.bootstrap}
        assert not any("kafka.Kafka" in process.command for process in up.children()), "one of its own"
        asked = run_here("predict", "larger", "[0.9, 0.8]", folder=tmp_path)
        assert asked.code == 0, asked.err
        assert asked.err == [f"using {kafka.bootstrap}, where `up` runs in this folder"]
        answer = json.loads(asked.out)
        assert (answer["output"], answer["default"], answer["query_id"][1]) == (1, False, "-")
        outside = "model deploy other:1 --uri os.path:join -a larger --unchecked --wait 60"
        refused = run_here(*outside.split(), folder=tmp_path)
        assert (refused.code, "outside of what this process may load" in refused.err[-1]) == (1, True)
        up.signal(signal.SIGTERM)
        assert up.ended() == 0, up.log[-4000:]
