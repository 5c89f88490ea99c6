"""Tensors of the Open Inference Protocol V2 as rows of queries, and outputs of predictions as tensors.

Rules of this file:
- The first dimension is the rows; one numeric row alone may come without it.
- Values that came as JSON stay a flat list of what JSON had: a number is neither rounded to the tensor's datatype nor
  copied into an array and back. Values that came as bytes are an array until rows are wanted.
- Whatever a shape says, nothing is allocated for it: it must agree with the values that are here.

Source: Open Inference Protocol, "Tensor Data" and "Tensor Data Types"; Triton, "Binary Tensor Data Extension".
"""

import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from clipper_gateway.errors import Refusal
from clipper_stream.client.client_records import plain
from clipper_stream.errors import shown
from clipper_stream.models.row_spec import NUMERIC
from clipper_stream.models.runtimes.oip_tensors import DATATYPES
from clipper_topics.manifests import ApplicationManifest, InputSpec
from clipper_topics.query import MOST_ROWS

INPUT, OUTPUT = "input", "output"
"""Names of an application's tensors."""
MOST_VALUES = 500_000
"""Of a tensor that is no array of the application's own type: more would take too long to pass on."""
BYTES, BF16 = "BYTES", "BF16"
MOST_DIMENSIONS = 17
"""Of a tensor: one for the rows, and as many as an input spec may have."""
MOST_ELEMENTS = 2**31
"""Along one dimension: far more than a request holds, and few enough digits for a message."""

_DTYPES = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}
_CODES = {datatype: "d" if dtype.kind == "f" else dtype.char for datatype, dtype in _DTYPES.items()}
_CODES |= {"BOOL": "B", BF16: "d"}
"""How `struct` packs a value of each datatype, which is the fastest check of the type and the range of many."""
_DTYPES[BF16] = np.dtype("<u2")  # the upper half of a float32, in a type that numpy has
_PREFIX = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor whose shape and values agree; the numbers of a request are finite.

    Attributes:
        name: Of the tensor.
        datatype: `BOOL`, `INT8` to `INT64`, `UINT8` to `UINT64`, `FP16`, `BF16`, `FP32`, `FP64` or `BYTES`.
        shape: Its lengths, each at least 1.
        data: Its values in row-major order: a flat list; of a request with binary numbers an array of this shape.
        content_type: `json` where the elements of `BYTES` are JSON texts.

    >>> rows_of(tensor_of_json("input", "FP32", [2, 2], [1, 2, 3, 4]), InputSpec(shape=[2]))
    [[1, 2], [3, 4]]
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    content_type: str | None = None


# --- of a request ---------------------------------------------------------------------------------------------------
def tensor_of_json(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Tensor:
    """Return a tensor of values that are flat, in row-major order, or nested as the shape."""
    elements = _elements(name, shape)
    flat = _flat(name, shape, data)
    if len(flat) != elements:
        raise _refused(name, f"has {len(flat)} values and shape {shown([*shape])}", f"give {elements} values")
    if datatype != BYTES:
        flat = _checked(name, datatype, flat)
    elif not {*map(type, flat)} <= {str, bytes}:
        raise _refused(name, f"is of BYTES and has the values {shown(flat)}", "give text")
    return Tensor(name, datatype, tuple(shape), flat)


def tensor_of_bytes(name: str, datatype: str, shape: Sequence[int], raw: memoryview | bytes) -> Tensor:
    """Return a tensor of little-endian values; of `BYTES` each element is preceded by its length in four bytes."""
    elements = _elements(name, shape)
    if datatype == BYTES:
        return Tensor(name, datatype, tuple(shape), _split(name, elements, memoryview(raw)))
    dtype = _dtype(name, datatype)
    if len(raw) != elements * dtype.itemsize:
        what = f"has {len(raw)} bytes, datatype {datatype} and shape {shown([*shape])}"
        raise _refused(name, what, f"give {elements * dtype.itemsize} bytes")
    array = np.frombuffer(raw, dtype).reshape(shape)
    if datatype == BF16:
        array = (array.astype("<u4") << 16).view("<f4")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _refused(name, "has NaN or infinity", "give finite numbers")
    return Tensor(name, datatype, tuple(shape), array)


def rows_of(tensor: Tensor, spec: InputSpec, most_rows: int = MOST_ROWS) -> list[Any]:
    """Return the rows as a query's record has them.

    Numbers are nested as the spec says, or are bytes where they came so; other rows are text or `{"base64": ...}`.
    """
    if tensor.name.lower() != INPUT:  # Flink writes names in capital letters
        raise _refused(tensor.name, "is none of the application's", f"call it {INPUT}")
    shape, is_own = _rows_first(tensor, spec), DATATYPES.get(spec.dtype) == tensor.datatype
    if shape[0] > most_rows:
        raise _refused(tensor.name, f"has {shape[0]} rows", f"give at most {most_rows}, the others in further requests")
    if isinstance(tensor.data, np.ndarray):
        rows = tensor.data.reshape(shape)
        if is_own:
            return [row.tobytes() for row in rows]  # cheaper than lists of numbers, from here to the model
        if rows.size > MOST_VALUES:
            raise Refusal(413, f"the tensor has {rows.size} values: give at most {MOST_VALUES}, or {spec.dtype}")
        if spec.dtype in NUMERIC:
            _check_fits(tensor, np.dtype(spec.dtype))
        return [*rows.tolist()]
    if tensor.datatype != BYTES:
        is_own = is_own or spec.dtype not in NUMERIC
        flat = tensor.data if is_own else _checked(tensor.name, DATATYPES[spec.dtype], tensor.data)
        return _nested(flat, shape)
    dtype = "json" if spec.columns else spec.dtype
    values = [_value(tensor.name, dtype, element) for element in tensor.data]
    return values if len(values) == shape[0] else _nested(values, shape)


def _check_fits(tensor: Tensor, dtype: "np.dtype[Any]") -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        cast = tensor.data.astype(dtype)
    if not (np.isfinite(cast) if dtype.kind == "f" else cast == tensor.data).all():
        raise _refused(tensor.name, f"has numbers that are no {dtype.name}", "give such numbers")


def _rows_first(tensor: Tensor, spec: InputSpec) -> tuple[int, ...]:
    """The tensor's shape, with the dimension of the rows where one row came without it."""
    shape, is_bytes = tensor.shape, tensor.datatype == BYTES
    if spec.dtype in NUMERIC:
        dimensions = 1 if spec.shape is None else len(spec.shape)
        shape = (1, *shape) if len(shape) == dimensions else shape
        fits = len(shape) == dimensions + 1 and (spec.shape is None or [*shape[1:]] == spec.shape) and not is_bytes
    else:
        shape = shape or (1,)
        fits = spec.dtype == "json" or (is_bytes and math.prod(shape[1:]) == 1)
    if fits:
        return shape
    wanted = input_metadata(spec)[0]
    what = f"has datatype {tensor.datatype} and shape {shown([*tensor.shape])}"
    raise _refused(tensor.name, what, f"give {wanted['datatype']} of shape {wanted['shape']}, rows first")


def _elements(name: str, shape: Sequence[int]) -> int:
    if len(shape) > MOST_DIMENSIONS or (shape and not 1 <= min(shape) <= max(shape) <= MOST_ELEMENTS):
        advice = f"give at most {MOST_DIMENSIONS} lengths, each from 1 to {MOST_ELEMENTS}"
        raise _refused(name, f"has shape {shown([*shape])}", advice)
    return math.prod(shape)


def _dtype(name: str, datatype: str) -> "np.dtype[Any]":
    if (dtype := _DTYPES.get(datatype)) is None:
        raise _refused(name, f"has datatype {shown(datatype)}", f"use one of {', '.join(_DTYPES)}, {BYTES}")
    return dtype


def _flat(name: str, shape: Sequence[int], data: list[Any]) -> list[Any]:
    for length in shape[1:]:
        if not data or type(data[0]) is not list:
            break
        if {*map(type, data)} != {list} or {*map(len, data)} != {length}:
            advice = "nest it as the shape, or give a flat list in row-major order"
            raise _refused(name, f"has shape {shown([*shape])} and data that is nested otherwise", advice)
        data = [*chain.from_iterable(data)]
    return data


def _nested(values: list[Any], shape: Sequence[int]) -> list[Any]:
    for length in reversed(shape[1:]):
        values = [values[start : start + length] for start in range(0, len(values), length)]
    return values


def _checked(name: str, datatype: str, flat: list[Any]) -> list[Any]:
    """The numbers, of integer datatypes as integers: a whole number may be written as 3.0."""
    dtype, code = _dtype(name, datatype), _CODES[datatype]
    kind, largest = dtype.kind, np.finfo(np.float32 if datatype == BF16 else dtype).max if code == "d" else 0
    with suppress(struct.error, OverflowError):
        try:
            packed = struct.pack(f"{len(flat)}{code}", *flat)
        except struct.error:
            flat = [int(each) if type(each) is float and each.is_integer() else each for each in flat]
            packed = struct.pack(f"{len(flat)}{code}", *flat)
        if (np.abs(np.frombuffer(packed)) <= largest).all() if code == "d" else kind != "b" or max(packed) <= 1:
            return flat
    expected = "finite numbers" if code == "d" else "true or false" if kind == "b" else "integers that fit"
    raise _refused(name, f"is of {datatype} and has the values {shown(flat)}", f"give {expected}")


def _split(name: str, elements: int, raw: memoryview) -> list[bytes]:
    found, start, size = list[bytes](), 0, len(raw)
    while start + _PREFIX.size <= size and len(found) < elements:
        stop = start + _PREFIX.size + _PREFIX.unpack_from(raw, start)[0]
        found.append(bytes(raw[start + _PREFIX.size : stop]))
        start = stop
    if len(found) != elements or start != size:
        advice = "give each as its length, four bytes little-endian, and its bytes"
        raise _refused(name, f"has {size} bytes that are not {shown(elements)} elements", advice)
    return found


def _value(name: str, dtype: str, element: str | bytes) -> Any:
    try:
        if dtype == "json":
            return msgspec.json.decode(element)
        if dtype == "text":
            return element if isinstance(element, str) else element.decode()
        return plain(element if isinstance(element, bytes) else element.encode())
    except (ValueError, RecursionError) as error:
        raise _refused(name, f"has the element {shown(element)} ({error})", f"give {dtype}") from error


def _refused(name: str, what: str, advice: str) -> Refusal:
    return Refusal(400, f"tensor {shown(name)} {what}: {advice}")


# --- of a response --------------------------------------------------------------------------------------------------
def output_tensor(name: str, outputs: list[Any]) -> Tensor:
    """Return outputs, one a row, as a tensor of the datatype that all of them have; else as `BYTES` of JSON texts.

    >>> output_tensor("output", [[0.5, 1], [0.25, 0]]).shape, output_tensor("output", [None, {"a": 1}]).data
    ((2, 2), ['null', '{"a":1}'])
    """
    shape, flat, kinds = [len(outputs)], outputs, {*map(type, outputs)}
    while kinds == {list} and len(shape) < MOST_DIMENSIONS and len(lengths := {*map(len, flat)}) == 1 and flat[0]:
        shape, flat = [*shape, *lengths], [*chain.from_iterable(flat)]
        kinds = {*map(type, flat)}
    if kinds == {str} and len(shape) == 1:
        return Tensor(name, BYTES, (len(outputs),), outputs)
    if kinds == {bool}:
        return Tensor(name, "BOOL", tuple(shape), flat)
    if kinds == {int} and -(2**63) <= min(flat) <= max(flat) < 2**63:
        return Tensor(name, "INT64", tuple(shape), flat)
    if float in kinds and kinds <= {int, float}:
        return Tensor(name, "FP64", tuple(shape), flat)
    return Tensor(name, BYTES, (len(outputs),), [msgspec.json.encode(each).decode() for each in outputs], "json")


def bytes_of(tensor: Tensor) -> bytes:
    """Return the values as the binary extension has them: what `tensor_of_bytes` takes."""
    if tensor.datatype == BYTES:
        elements = [each.encode() if isinstance(each, str) else each for each in tensor.data]
        return b"".join([_PREFIX.pack(len(element)) + element for element in elements])
    return np.asarray(tensor.data, _DTYPES[tensor.datatype]).tobytes()


def output_metadata(manifest: ApplicationManifest, answered: Any = None) -> list[dict[str, Any]]:
    """Return name, datatype and shape of the tensor that an application gives, by its last answer here.

    Before there is one it is a guess: a label of the type of the default output, or a mean.
    """
    known = next((one for one in (answered, manifest.default_output) if one is not None), "label")
    tensor = output_tensor(OUTPUT, [known])
    datatype = "FP64" if answered is None and manifest.combiner == "mean" else tensor.datatype
    return [{"name": OUTPUT, "datatype": datatype, "shape": [-1, *tensor.shape[1:]]}]


def input_metadata(spec: InputSpec) -> list[dict[str, Any]]:
    """Return name, datatype and shape of the tensor that an application takes; -1 for a length that it leaves open."""
    datatype = DATATYPES.get(spec.dtype, BYTES)
    row_shape = [] if datatype == BYTES else [-1] if spec.shape is None else spec.shape
    return [{"name": INPUT, "datatype": datatype, "shape": [-1, *row_shape]}]
