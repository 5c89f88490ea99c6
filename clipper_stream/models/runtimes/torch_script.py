"""The runtime `torch`: a TorchScript module, run on the processor.

A TorchScript file is a program of its own language and its weights; the loader makes no Python object of it. The
program can call any operator of torch, some of which read and write files: it is to be trusted like an allowed module.

Source: PyTorch documentation, "TorchScript".
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runtimes.model_files import (
    cannot_be_loaded,
    check_allowed,
    check_parameters,
    missing_library,
    read,
)
from clipper_stream.models.runtimes.row_outputs import labels_of, one_a_row

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "TorchModel", "as_model", "check_allowed", "imported", "load", "read"]

NEEDS_DIGEST = True
UNPICKLES = False
_PARAMETERS = {"output": str, "labels": list, "threads": int}


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A torch module behind the `Model` protocol.

    Attributes:
        torch: The library.
        module: Called with a tensor of the rows, or with the list of texts.
        output: Key of the output that is given, of a module that gives a dictionary.
        labels: Names of the output's columns, if the label of the greatest is asked for.
    """

    torch: Any
    module: Any
    output: str | None = None
    labels: Sequence[str] | None = None

    def predict_batch(self, inputs: Rows) -> Sequence[Any] | NDArray[Any]:
        """Return one output a row, computed in one call of the module."""
        with self.torch.inference_mode():
            given = self.module(inputs if isinstance(inputs, list) else self.torch.tensor(inputs))
        tensor: Any = given.get(self.output) if isinstance(given, dict) else given
        if not isinstance(tensor, self.torch.Tensor):
            has = f" with {', '.join(map(str, given))}" if isinstance(given, dict) else ""
            found = f"the module gave a {type(given).__name__}{has}"
            raise ModelFailed(f"{found}: give one tensor, or a dictionary of tensors and its key in parameters.output")
        return one_a_row(tensor.numpy(), self.labels)


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the module of a file.

    Args:
        uri: Where the file is, for messages.
        content: Bytes of the file.
        parameters: `output`: key of the output, of a module that gives a dictionary. `labels`: names of the output's
            columns, to give the label of the greatest. `threads`: of one batch, for the whole process.
        allowed: Holds the file.

    Raises:
        ModelNotLoaded: torch is missing, or the file is no TorchScript.
    """
    del allowed
    torch = imported(uri)
    try:
        module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
    except BaseException as error:
        raise cannot_be_loaded(uri, error, "write it with torch.jit.script(module).save") from error
    return as_model(uri, "torch", torch, module, parameters)


def imported(uri: str) -> Any:
    """Import torch.

    Raises:
        ModelNotLoaded: it is missing.
    """
    try:
        import torch  # noqa: PLC0415 - an optional extra  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_library(uri, "torch", error) from error
    return torch


def as_model(uri: str, runtime: str, torch: Any, module: Any, parameters: Mapping[str, Any]) -> Model:
    """The module with the parameters that both kinds of files have."""
    check_parameters(uri, runtime, parameters, _PARAMETERS)
    if (threads := parameters.get("threads")) is not None:
        if threads < 1:
            raise ModelNotLoaded(f"model file {uri!r}: threads = {threads}: give at least 1")
        torch.set_num_threads(threads)
    return TorchModel(torch, module, parameters.get("output"), labels_of(uri, parameters))
