"""Running one batch so that a bad row costs one answer, and nothing that a model does reaches the caller as an error.

A batch that raises, or comes back with another number of outputs, is halved and asked again, down to single rows.
One bad row among n then costs about 2·log2(n) calls and 2·n predicted rows, so that the good rows still have a
chance to be in time; row by row it would be n calls. What is asked again are the rows as they came: a model may have
written into them before it failed. A batch that failed because the model's server is not there (`ModelUnavailable`) is
not asked again: every half would wait for it as long.
"""

import marshal
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded, ModelUnavailable
from clipper_stream.models.model import Model, Rows, WarmsUp
from clipper_stream.models.plain_outputs import plain_outputs

_MAX_EXPLANATION = 500
"""Characters of an explanation: it travels with every failed row."""


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """The result of one batch.

    Attributes:
        outputs: One plain value a row (see `plain`), null where the row failed.
        failed: Why, by row.
        calls: How often the model was called; more than 1 says that the latency is not that of one batch.
        error: What was wrong with the last call that failed: what the model raised, or with how many outputs it came
            back. It is there too where every row was answered when it was asked again.
    """

    outputs: list[Any]
    failed: Mapping[int, str]
    calls: int = 1
    error: BaseException | None = field(default=None, compare=False, repr=False)


def predict_rows(model: Model, inputs: Rows) -> BatchOutcome:
    """Run the model on a batch, and again on parts of it when that fails: what it raises fails rows alone.

    >>> class Reciprocal:
    ...     def predict_batch(self, inputs: Rows) -> Sequence[Any]:
    ...         return [1 / row for row in inputs]
    >>> predict_rows(Reciprocal(), [4, 0])
    BatchOutcome(outputs=[0.25, None], failed={1: 'ZeroDivisionError: division by zero'}, calls=3)
    """
    rows = len(inputs)
    if rows == 0:
        return BatchOutcome([], {}, calls=0)
    as_they_came = _kept(inputs) if rows > 1 else None
    try:
        return BatchOutcome(*plain_outputs(_asked(model, inputs, rows)))
    except ModelUnavailable as error:
        return BatchOutcome([None] * rows, dict.fromkeys(range(rows), explain(error)), error=error)
    except BaseException as error:  # noqa: BLE001 - whatever a model raises is an answer
        if as_they_came is None:
            return BatchOutcome([None], {0: explain(error)}, error=error)
        failure = error
    return _halved(model, as_they_came(), rows, failure)


def _kept(inputs: Rows) -> Callable[[], Rows]:
    """Gives the rows as they are now, whatever is done to them."""
    if isinstance(inputs, np.ndarray):
        copy = inputs.copy()
        return lambda: copy
    if any(isinstance(row, list | dict) for row in inputs):
        written = marshal.dumps(inputs)  # read by nobody else; three times as fast as a deep copy
        return lambda: cast("list[Any]", marshal.loads(written))  # noqa: S302
    rows = list(inputs)
    return lambda: rows


def _asked(model: Model, inputs: Rows, rows: int) -> Sequence[Any] | NDArray[Any]:
    outputs = model.predict_batch(inputs)
    if isinstance(outputs, str | bytes | Mapping | AbstractSet) or not hasattr(outputs, "__len__"):
        raise ModelFailed(f"the model gave a {type(outputs).__name__}: give a list or an array with one output a row")
    if hasattr(outputs, "__array__"):
        outputs = np.asarray(outputs)
    if len(outputs) != rows:
        raise ModelFailed(f"the model gave {len(outputs)} outputs for {rows} rows: give one output a row")
    return outputs


def _halved(model: Model, inputs: Rows, rows: int, failure: BaseException) -> BatchOutcome:
    middle = rows // 2
    head, tail = predict_rows(model, inputs[:middle]), predict_rows(model, inputs[middle:])
    failed = {**head.failed, **{middle + row: why for row, why in tail.failed.items()}}
    error = tail.error or head.error or failure
    return BatchOutcome(head.outputs + tail.outputs, failed, 1 + head.calls + tail.calls, error)


def explain(error: BaseException) -> str:
    """An error in one line that can be written down, at most 500 characters."""
    name = type(error).__name__
    try:
        words = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - an exception of the model's own, whose text may raise in turn
        words = ""
    text = f"{name}: {words}" if words else name
    return text.encode("utf-8", "replace").decode()[:_MAX_EXPLANATION]


def warm_up(model: Model, sample: Rows | None) -> str | None:
    """Call the model once, by its own `warm_up` if it has one, or else with the sample; return why that failed.

    To fail is the model's right: a row of zeros need not be a valid input.

    Raises:
        ModelNotLoaded: the model's own `warm_up` raised.
    """
    if not isinstance(model, WarmsUp):
        return predict_rows(model, sample).failed.get(0) if sample is not None else None
    try:
        model.warm_up()
    except BaseException as error:
        what = f"{type(model).__name__}.warm_up() failed, {explain(error)}"
        raise ModelNotLoaded(f"{what}; correct the model, or deploy the version before it") from error
    return None
