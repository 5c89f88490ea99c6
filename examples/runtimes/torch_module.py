"""A network as TorchScript, served by the runtime `torch`: `python examples/runtimes/torch_module.py [FOLDER]`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipper_stream.models.registry import file_digest, load_model


def main(folder: Path) -> list[Any]:
    """Trace a layer that compares two numbers, write `greater.pt`, load it with its digest, and ask about two rows."""
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    file = folder / "greater.pt"
    torch.jit.trace(layer.eval(), torch.zeros(1, 2)).save(str(file))

    parameters = {"labels": ["first", "second"]}
    model = load_model("torch", str(file), file_digest("torch", str(file)), parameters)
    return list(model.predict_batch(np.array([[3, 2], [0, 1]], dtype=np.float32)))


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
