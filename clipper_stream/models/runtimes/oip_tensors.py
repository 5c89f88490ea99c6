"""Rows as tensors of the Open Inference Protocol, and its answers as outputs; JSON in, JSON out, nothing is sent here.

Rules of this file:
- A batch is one tensor, rows first, its numbers flat in C order.
- Text goes as `BYTES`, of shape [rows, 1]; binary as base64; a JSON value that is no text as its JSON. How a row is
  written does not depend on the rows beside it.
- An answer is taken only when its shape and its numbers agree, and it has one entry a row.

Source: Open Inference Protocol, "Inference Request/Response JSON Object", "Tensor Data" (the JSON form of V2).
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from clipper_stream.errors import ModelFailed, shown
from clipper_stream.models.model import Rows

DATATYPES: Mapping[str, str] = {
    "float32": "FP32",
    "float64": "FP64",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
}
"""Datatype of a tensor by the name of its numpy dtype; all others are `BYTES`."""
_SHOWN_ERROR = 300


def request_body(inputs: Rows, name: str, output: str | None, content_type: str | None) -> bytes:
    """The body of `POST .../infer` for a batch.

    Args:
        inputs: A matrix of one of `DATATYPES`, or a list of texts, byte strings or JSON values.
        name: Of the input tensor.
        output: Of the output tensor that is asked for; None: all.
        content_type: How MLServer is to read the tensor, as `np`; None: `str` or `base64` for lists, else nothing.

    >>> import numpy as np
    >>> request_body(np.array([[1, 2], [3, 4]], "uint8"), "x", None, None)
    b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"UINT8","data":[1,2,3,4]}]}'

    Raises:
        ModelFailed: rows of another dtype.
    """
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.name not in DATATYPES:
            raise ModelFailed(f"rows of dtype {inputs.dtype}: use one of {', '.join(DATATYPES)}, or text, bytes, json")
        datatype, shape, data = DATATYPES[inputs.dtype.name], list(inputs.shape), inputs.ravel().tolist()
    else:
        datatype, shape, data = "BYTES", [len(inputs), 1], [_text(row) for row in inputs]
        content_type = content_type or ("base64" if any(isinstance(row, bytes) for row in inputs) else "str")
    tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    if content_type is not None:
        tensor["parameters"] = {"content_type": content_type}
    body = {"inputs": [tensor]} | ({"outputs": [{"name": output}]} if output is not None else {})
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _text(row: Any) -> str:
    if isinstance(row, str):
        return row
    return base64.b64encode(row).decode() if isinstance(row, bytes) else json.dumps(row)


def outputs_of(body: bytes, rows: int, output: str | None) -> list[Any]:
    """Return one output a row: a number or text where the tensor has one a row, else nested lists.

    >>> outputs_of(b'{"outputs":[{"name":"y","shape":[2,1],"datatype":"INT64","data":[7,8]}]}', 2, None)
    [7, 8]

    Raises:
        ModelFailed: no response of the protocol, no such tensor, or one that does not fit the rows.
    """
    tensor = _tensor(json_object(body), output)
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not shape or not all(type(length) is int and length >= 0 for length in shape):
        raise ModelFailed(f"the server gave a tensor of shape {shown(shape)}: it must be a list of lengths, rows first")
    if shape[0] != rows:
        raise ModelFailed(f"the server gave {shape[0]} outputs for {rows} rows: it must give one a row")
    flat = _flat(data)
    if len(flat) != math.prod(shape):
        raise ModelFailed(f"the server gave {len(flat)} values in a tensor of shape {shape}: they must be as many")
    array = np.empty(len(flat), object)
    array[:] = flat
    outputs: list[Any] = array.reshape([rows] if len(flat) == rows else shape).tolist()
    return outputs


def error_text(body: bytes) -> str:
    """Return the server's error in one line of at most 300 characters.

    >>> error_text(b'{"error": "no such model"}'), error_text(b"<html>")
    ('no such model', '<html>')
    """
    said = json_object(body)
    text = said.get("error") or said.get("detail") or said.get("message")
    return " ".join((text if isinstance(text, str) else body.decode("utf-8", "replace")).split())[:_SHOWN_ERROR]


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a response; an empty one when it is something else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensor(answer: Mapping[str, Any], output: str | None) -> Mapping[str, Any]:
    tensors = answer.get("outputs")
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        what = f"the server's answer has outputs {shown(tensors)}: it must be a JSON object with a list of tensors"
        raise ModelFailed(f"{what}; does the URL lead to the Open Inference Protocol?")
    names = [tensor.get("name") for tensor in tensors]
    chosen = [tensor for tensor in tensors if output is None or tensor.get("name") == output]
    if len(chosen) != 1:
        raise ModelFailed(f"the server gave the tensors {shown(names)}: name one of them in parameters.output")
    tensor: Mapping[str, Any] = chosen[0]
    return tensor


def _flat(data: Any) -> Sequence[Any]:
    if not isinstance(data, list):
        raise ModelFailed(f"the server gave a tensor with data {shown(data)}: it must be a list (and JSON, not binary)")
    while any(isinstance(each, list) for each in data):
        if not all(isinstance(each, list) for each in data):
            raise ModelFailed("the server gave a tensor in which lists and values stand side by side: one or the other")
        data = list(chain.from_iterable(data))
    return list(data)
