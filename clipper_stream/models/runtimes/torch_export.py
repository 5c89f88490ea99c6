"""The runtime `torch_export`: an ExportedProgram (`.pt2`), run on the processor.

`torch.export.load` unpickles: it tries `weights_only` first and then does without, reads opaque constants by
`pickle.loads`, and evaluates symbolic shapes as Python (torch 2.15). So this runtime needs the operator's permission;
TorchScript (`torch`) and ONNX (`onnx`) do not.

Source: PyTorch documentation, "torch.export".
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from clipper_stream.models.model import Model
from clipper_stream.models.runtimes.model_files import cannot_be_loaded, check_allowed, read
from clipper_stream.models.runtimes.torch_script import as_model, imported

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "check_allowed", "load", "read"]

NEEDS_DIGEST = True
UNPICKLES = True


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the program of a file.

    Args:
        uri: Where the file is, for messages.
        content: Bytes of the file; parts of them may be unpickled.
        parameters: As for the runtime `torch`.
        allowed: Holds the file; says nothing about what a pickle does.

    Raises:
        ModelNotLoaded: torch is missing, or the file is no ExportedProgram.
    """
    del allowed
    torch = imported(uri)
    try:
        module = torch.export.load(io.BytesIO(content)).module()
    except BaseException as error:
        raise cannot_be_loaded(uri, error, "write it with torch.export.save, with an open batch axis") from error
    return as_model(uri, "torch_export", torch, module, parameters)
