r"""What kind of file is this? The classifier of the package magika, an ONNX file in its wheel, asked about bytes.

Without Kafka:  python examples/runtimes/file_types.py README.md uv.lock
With it:        python examples/runtimes/file_types.py --config > file_types.toml
                PYTHONPATH=examples/runtimes clipper-stream up --config file_types.toml
                clipper-stream predict file-types "{\"base64\": \"$(base64 -w0 Makefile)\"}" --bootstrap 127.0.0.1:PORT

A row is the content of a file. `features` turns rows into what the network takes, `labels` names its outputs.
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import install_command
from clipper_stream.models.registry import load_model

SIDE_BYTES, BLOCK_BYTES, PADDING = 1024, 4096, 256


def features(rows: list[bytes]) -> NDArray[np.int32]:
    """Both ends of each file, white space stripped, as magika was trained: int32[rows, 2048]."""
    matrix = np.full((len(rows), 2 * SIDE_BYTES), PADDING, dtype=np.int32)
    for features_of_row, row in zip(matrix, rows, strict=True):
        head = row[:BLOCK_BYTES].lstrip()[:SIDE_BYTES]
        tail = row[-BLOCK_BYTES:].rstrip()[-SIDE_BYTES:]
        features_of_row[: len(head)] = np.frombuffer(head, np.uint8)
        features_of_row[len(features_of_row) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return matrix


def manifest() -> dict[str, Any]:
    """What a `[[model]]` says: the file in the wheel, its digest, and how bytes become labels."""
    found = importlib.util.find_spec("magika")
    if found is None or found.origin is None:
        raise SystemExit(f"this example needs the package magika: pip install magika, and {install_command('onnx')}")
    folder = Path(found.origin).parent / "models/standard_v3_3"
    labels = json.loads((folder / "config.min.json").read_text(encoding="utf-8"))["target_labels_space"]
    model = folder / "model.onnx"
    return {
        "runtime": "onnx",
        "uri": str(model),
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "parameters": {"prepare": "file_types:features", "labels": labels},
    }


def config() -> str:
    """The configuration of the whole application; a JSON value is a TOML value here."""
    said = manifest()
    parameters = ", ".join(f"{name} = {json.dumps(value)}" for name, value in said.pop("parameters").items())
    keys = "\n".join(f"{name} = {json.dumps(value)}" for name, value in said.items())
    return f"""[[application]]
name = "file-types"
models = ["magika:3"]
input = {{ dtype = "bytes" }}
policy = {{ name = "single" }}
default_output = "unknown"

[[model]]
name = "magika"
version = "3"
input = {{ dtype = "bytes" }}
{keys}
parameters = {{ {parameters} }}
"""


def main(paths: list[Path]) -> dict[str, str]:
    """The kind of each file, in one batch."""
    model = load_model(**manifest())
    kinds = model.predict_batch([path.read_bytes() for path in paths])
    return {path.name: kind for path, kind in zip(paths, kinds, strict=True)}


if __name__ == "__main__":
    if sys.argv[1:] == ["--config"]:
        print(config(), end="")
    else:
        for name, kind in main([Path(each) for each in sys.argv[1:] or [__file__]]).items():
            print(f"{name}: {kind}")
