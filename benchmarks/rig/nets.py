"""A feed-forward net for images: 28 x 28 numbers, three hidden layers of 32, ten labels, 27,562 parameters.

Rules of this file:
- Weights are -1, 0 or 1, pixels sixteenths, so that every sum is exact in float32 in whatever order: all runtimes give
  the same label.

Source: Horchidan et al., "Crayfish: Navigating the Labyrinth of Machine Learning Inference in Stream Processing
Systems", EDBT 2024: its smaller model.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

WIDTHS = (784, 32, 32, 32, 10)
LEVELS = 16
"""Of a pixel, from 0 on."""
FOLDER = Path(__file__).resolve().parent.parent / "data"
"""As `configs/net.toml` has it."""


class Net:
    """A net with random weights.

    Args:
        version: Seed of its weights.
    """

    def __init__(self, version: int) -> None:
        rng, self.version = np.random.default_rng(version), version
        shapes = itertools.pairwise(WIDTHS)
        self._weights = [rng.integers(-1, 2, shape).astype(np.float32) for shape in shapes]
        self._biases = [np.zeros(width, np.float32) for width in WIDTHS[1:]]
        self._biases[0] -= self._weights[0].sum(axis=0) * (LEVELS - 1) / 2 / LEVELS  # or bright pixels would decide

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """The label of each row."""
        values, last = rows, len(self._weights) - 1
        for number, (weights, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            values = values @ weights + bias
            values = values if number == last else np.maximum(values, 0)
        labels: NDArray[np.int64] = values.argmax(axis=1)
        return labels

    def write(self, folder: Path = FOLDER) -> Path:
        """The net as an ONNX file from `input` to `label`."""
        folder.mkdir(exist_ok=True)
        path = folder / f"net-{self.version}.onnx"
        path.write_bytes(self._onnx())
        return path

    def _onnx(self) -> bytes:
        nodes, constants, source = [], [], "input"
        for number, pair in enumerate(zip(self._weights, self._biases, strict=True)):
            names = [f"weights{number}", f"bias{number}"]
            constants += [numpy_helper.from_array(each, name) for each, name in zip(pair, names, strict=True)]
            nodes.append(helper.make_node("Gemm", [source, *names], [f"sums{number}"]))
            source = f"values{number}"
            nodes.append(helper.make_node("Relu", [f"sums{number}"], [source]))
        nodes[-1] = helper.make_node("ArgMax", [f"sums{number}"], ["label"], axis=1, keepdims=0)
        rows = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", WIDTHS[0]])
        labels = helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"])
        graph = helper.make_graph(nodes, "net", [rows], [labels], constants)
        model: Any = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


NETS = {f"net:{version}": Net(version) for version in (1, 2)}
