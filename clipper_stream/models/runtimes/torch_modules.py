"""The runtimes `torch` and `torch_export`: a TorchScript module, or an ExportedProgram (`.pt2`), run on the processor.

A TorchScript file is a program of its own language and its weights; the loader makes no Python object of it. The
program can call any operator of torch, some of which read and write files: it is to be trusted like an allowed module.

`torch.export.load` unpickles: it tries `weights_only` first and then does without, reads opaque constants by
`pickle.loads`, and evaluates symbolic shapes as Python (torch 2.15). So `torch_export` needs the operator's permission;
`torch` and ONNX (`onnx`) do not.

Source: PyTorch documentation, "TorchScript" and "torch.export".
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed
from clipper_stream.models.model import Rows
from clipper_stream.models.runtimes.model_files import (
    COLUMNS,
    TEXT,
    THREADS,
    FileRuntime,
    ModelFile,
    import_extra,
    one_a_row,
)

PARAMETERS = {"output": TEXT, "labels": COLUMNS, "threads": THREADS}


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A torch module behind the `Model` protocol, called with a tensor of the rows, or with the list of texts."""

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


def _load_script(file: ModelFile) -> TorchModel:
    torch = import_extra("torch", "torch")
    return _model(file, torch, torch.jit.load(io.BytesIO(file.content), map_location="cpu").eval())


def _load_export(file: ModelFile) -> TorchModel:
    torch = import_extra("torch", "torch")
    return _model(file, torch, torch.export.load(io.BytesIO(file.content)).module())


def _model(file: ModelFile, torch: Any, module: Any) -> TorchModel:
    if (threads := file.parameters["threads"]) is not None:
        torch.set_num_threads(threads)  # of the whole process
    return TorchModel(torch, module, file.parameters["output"], file.parameters["labels"])


SCRIPT = FileRuntime(
    name="torch", make=_load_script, advice="write it with torch.jit.script(module).save", parameters=PARAMETERS
)
EXPORT = FileRuntime(
    name="torch_export",
    make=_load_export,
    advice="write it with torch.export.save, with an open batch axis",
    parameters=PARAMETERS,
    UNPICKLES=True,
)
