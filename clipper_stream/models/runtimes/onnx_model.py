"""The runtime `onnx`: a model in an ONNX file, run by onnxruntime on the processor.

Rows of numbers go into the model's only input, as the type that it takes; texts into an input of strings; JSON rows are
dictionaries with a value for each input. `prepare` names a function that turns any rows into one of these.

Rules of this file:
- An ONNX file is a description of known operators and their weights. No library of custom operators is registered, and
  weights in other files are refused: the digest would not cover them.
- The whole batch is one call, so the first axis of the inputs must be open.

Source: ONNX specification (IR), onnxruntime documentation, "Python API".
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runtimes import model_files as files
from clipper_stream.models.runtimes import python_function
from clipper_stream.models.runtimes.model_files import cannot_be_loaded, check_parameters, missing_library, read
from clipper_stream.models.runtimes.row_outputs import labels_of, one_a_row

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "OnnxModel", "check_allowed", "load", "read"]

NEEDS_DIGEST = True
UNPICKLES = False
_PARAMETERS = {"output": str, "labels": list, "threads": int, "prepare": str}
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
    """One input of an ONNX model.

    Attributes:
        name: Its name.
        dtype: numpy's name of its type.
        shape: Its axes, the batch first; what is no number is open.
    """

    name: str
    dtype: str
    shape: Sequence[Any]

    def array(self, values: Any) -> NDArray[Any]:
        """Return the values as the model takes them: a column where it wants one and the rows are plain values."""
        array = np.asarray(values, dtype=self.dtype)
        return array[:, None] if array.ndim == 1 and len(self.shape) > 1 else array


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An onnxruntime session behind the `Model` protocol.

    Attributes:
        session: The session.
        inputs: What it takes.
        output: Name of the output that is given.
        labels: Names of the output's columns, if the label of the greatest is asked for.
        prepare: Turns rows into what the model takes.
    """

    session: Any
    inputs: Sequence[Input]
    output: str
    labels: Sequence[str] | None = None
    prepare: Callable[[Rows], Any] | None = None

    def predict_batch(self, inputs: Rows) -> Sequence[Any] | NDArray[Any]:
        """Return one output a row, computed in one call of the session."""
        rows = self.prepare(inputs) if self.prepare else inputs
        (output,) = self.session.run([self.output], self._feed(rows))
        if isinstance(output, np.ndarray):
            return one_a_row(output, self.labels)
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


def check_allowed(uri: str, parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Nothing, when the file is in an allowed directory and `prepare` in an allowed module.

    Raises:
        ModelNotLoaded: names what is outside.
    """
    files.check_allowed(uri, parameters, allowed)
    check_parameters(uri, "onnx", parameters, _PARAMETERS)
    if "prepare" in parameters:
        python_function.check_allowed(parameters["prepare"], {}, allowed)


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the model of a file.

    Args:
        uri: Where the file is, for messages.
        content: Bytes of the file.
        parameters: `output`: name of the output, or a part that only its name has; default: the first. `labels`: names
            of the output's columns, to give the label of the greatest. `threads`: of one batch; default: as many as
            OMP_NUM_THREADS says, or 1. `prepare`: `package.module:function`, from rows to what the model takes.
        allowed: Where `prepare` may be defined.

    Raises:
        ModelNotLoaded: onnxruntime is missing, the file is no ONNX model, its batch axis is fixed, or the parameters
            name what it does not have.
    """
    check_parameters(uri, "onnx", parameters, _PARAMETERS)
    labels = labels_of(uri, parameters)
    prepare = parameters.get("prepare")
    ready = python_function.load(prepare, b"", {}, allowed).predict_batch if prepare else None
    session = _session(uri, content, parameters.get("threads", _threads_of_the_process()))
    inputs = [_input(uri, each) for each in session.get_inputs()]
    output = _output(uri, [each.name for each in session.get_outputs()], parameters.get("output"))
    return OnnxModel(session, inputs, output, labels, ready)


def _threads_of_the_process() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else 1


def _session(uri: str, content: bytes, threads: int) -> Any:
    if threads < 1:
        raise ModelNotLoaded(f"model file {uri!r}: threads = {threads}: give at least 1")
    try:
        import onnxruntime  # noqa: PLC0415 - an optional extra, loaded only by who uses it
    except ImportError as error:
        raise missing_library(uri, "onnx", error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors; its warnings are about the making of the model
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores between batches
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except BaseException as error:
        raise cannot_be_loaded(uri, error, "export it to one ONNX file that holds its weights") from error


def _input(uri: str, found: Any) -> Input:
    if found.type not in _TYPES:
        what = f"model file {uri!r}: input {found.name} is a {found.type}"
        raise ModelNotLoaded(f"{what}: export it with one of {', '.join(sorted(_TYPES))}")
    if found.shape and isinstance(found.shape[0], int):
        what = f"model file {uri!r}: input {found.name} takes exactly {found.shape[0]} rows"
        raise ModelNotLoaded(f"{what}: export it with an open (dynamic) batch axis")
    return Input(found.name, _TYPES[found.type], found.shape)


def _output(uri: str, names: Sequence[str], asked: str | None) -> str:
    if asked is None or asked in names:
        return asked or names[0]
    matching = [name for name in names if asked in name]
    if len(matching) != 1:
        found = f"{len(matching)} outputs have {asked!r} in their name"
        raise ModelNotLoaded(f"model file {uri!r}: {found}: set parameters.output to one of {', '.join(names)}")
    return matching[0]
