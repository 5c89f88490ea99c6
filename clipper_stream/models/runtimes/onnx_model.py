"""The runtime `onnx`: a model in an ONNX file, run by onnxruntime on the processor.

Rows of numbers go into the model's only input, as the type that it takes; texts into an input of strings; JSON rows and
rows of a table are dictionaries with a value for each input, or columns of numbers for the only one. `prepare` names a
function that turns any rows into one of these.

Rules of this file:
- An ONNX file is a description of known operators and their weights. No library of custom operators is registered, and
  weights in other files are refused: the digest would not cover them.
- The whole batch is one call, so the first axis of the inputs must be open.

Source: ONNX specification (IR), onnxruntime documentation, "Python API".
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.row_spec import NUMERIC, RowSpec
from clipper_stream.models.runtimes import python_function
from clipper_stream.models.runtimes.model_files import (
    COLUMNS,
    FLAG,
    TEXT,
    THREADS,
    FileRuntime,
    ModelFile,
    import_extra,
    one_a_row,
    with_confidence,
)
from clipper_stream.models.runtimes.python_function import FunctionModel
from clipper_stream.models.runtimes.tables import TableRows, fitted_columns, matrix_maker
from clipper_stream.names import choices

PARAMETERS = {"output": TEXT, "confidence": FLAG, "labels": COLUMNS, "threads": THREADS, "prepare": TEXT}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
"""What numpy calls the types of inputs."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of an ONNX model: its numpy dtype, and its axes, the batch first; what is no number is open."""

    name: str
    dtype: str
    shape: Sequence[Any]

    def array(self, values: Any) -> NDArray[Any]:
        """Return the values as the model takes them: a column where it wants one and the rows are plain values."""
        if isinstance(values, list) and None in values and not self.dtype.startswith("float"):
            raise ModelFailed(f"input {self.name} has no missing values, and the row has one: give a value")
        array = np.asarray(values, dtype=self.dtype)
        if isinstance(values, list) and array.dtype.kind in "iu" and not np.array_equal(array, np.asarray(values)):
            raise ModelFailed(f"input {self.name} takes integers of type {self.dtype}: give whole numbers within it")
        return array[:, None] if array.ndim == 1 and len(self.shape) > 1 else array


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An onnxruntime session behind the `Model` protocol; `prepare` turns rows into what it takes.

    With `confidence` its output has probabilities, of which the greatest is given, with its label.
    """

    session: Any
    inputs: Sequence[Input]
    output: str
    labels: Sequence[str] | None = None
    prepare: Callable[[Rows], Any] | None = None
    confidence: bool = False

    @property
    def fitted_row(self) -> RowSpec | None:
        """A table where there are several inputs; else what the only one says."""
        first, *others = self.inputs
        if self.prepare is not None:
            return None
        if others:
            return RowSpec(
                "table", columns=[(each.name, "text" if each.dtype == "object" else "number") for each in self.inputs]
            )
        if first.dtype == "object":
            return RowSpec("text")
        shape = [length if isinstance(length, int) else 0 for length in first.shape[1:]]
        return RowSpec(first.dtype if first.dtype in NUMERIC else "float32", shape if all(shape) else None)

    def predict_batch(self, inputs: Rows) -> Sequence[Any] | NDArray[Any]:
        """Return one output a row, computed in one call of the session."""
        rows = self.prepare(inputs) if self.prepare else inputs
        (output,) = self.session.run([self.output], self._feed(rows))
        if self.confidence and not isinstance(output, np.ndarray):
            names = [*output[0]]
            return with_confidence(np.array([[row[name] for name in names] for row in output]), names)
        if isinstance(output, np.ndarray):
            return with_confidence(output, self.labels) if self.confidence else one_a_row(output, self.labels)
        # a sequence of maps, as a ZipMap node gives: probabilities by label
        return [{str(label): value for label, value in row.items()} if isinstance(row, dict) else row for row in output]

    def _feed(self, rows: Any) -> dict[str, NDArray[Any]]:
        if isinstance(rows, np.ndarray) or not all(isinstance(row, dict) for row in rows):
            if len(self.inputs) > 1:
                names = ", ".join(each.name for each in self.inputs)
                raise ModelFailed(f"the model takes the inputs {names}: give rows with these keys")
            return {self.inputs[0].name: self.inputs[0].array(rows)}
        try:
            return {each.name: each.array([row[each.name] for row in rows]) for each in self.inputs}
        except KeyError as error:
            raise ModelFailed(f"a row has no {error}: give one value for each input of the model") from error


def _check_prepare(parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    if parameters["prepare"] is not None:
        python_function.check_allowed(parameters["prepare"], {}, allowed)


def _load_onnx(file: ModelFile) -> Model:
    wanted, prepare = file.parameters, file.parameters["prepare"]
    ready = (
        python_function.load(prepare, ModelFile(b"", {}, file.allowed)).predict_batch if prepare is not None else None
    )
    session = _session(file.content, wanted["threads"] or _threads_of_the_process())
    inputs = [_input(each) for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]
    if (output := wanted["output"] or outputs[0]) not in outputs:
        raise ModelNotLoaded(f"output {output!r}: {choices(output, outputs)}")
    model = OnnxModel(session, inputs, output, wanted["labels"], ready, wanted["confidence"])
    if not file.columns or ready is not None:
        return model
    names = [each.name for each in inputs]
    if len(names) > 1 or names[0] in dict(file.columns):
        fitted_columns(file.columns, names)
        return model
    fitted = model.fitted_row
    matrix = matrix_maker(file.columns, math.prod(fitted.shape) if fitted and fitted.shape else len(file.columns))
    return FunctionModel(lambda rows: model.predict_batch(matrix(cast("TableRows", rows))), fitted)


def _threads_of_the_process() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else 1


def _session(content: bytes, threads: int) -> Any:
    onnxruntime = import_extra("onnx", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors; its warnings are about the making of the model
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores between batches
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _input(found: Any) -> Input:
    if found.type not in _TYPES:
        what = f"input {found.name} is a {found.type}"
        raise ModelNotLoaded(f"{what}: export it with one of {', '.join(sorted(_TYPES))}")
    if found.shape and isinstance(found.shape[0], int):
        what = f"input {found.name} takes exactly {found.shape[0]} rows"
        raise ModelNotLoaded(f"{what}: export it with an open (dynamic) batch axis")
    return Input(found.name, _TYPES[found.type], found.shape)


ONNX = FileRuntime(
    name="onnx",
    make=_load_onnx,
    advice="export it to one ONNX file that holds its weights",
    parameters=PARAMETERS,
    check_code=_check_prepare,
)
