"""The first batch, before anybody waits for it: lazy imports, allocations and compilers are then done."""

import numpy as np

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Model, Rows, WarmsUp
from clipper_stream.models.runner import explain, predict_rows

_EMPTY = {"text": "", "bytes": b""}
"""A row of the non-numeric kinds of which one is known without the model; a `json` row can be anything."""


def sample_rows(dtype: str, shape: list[int] | None, rows: int) -> Rows | None:
    """Rows of zeros, or empty texts; None when the input spec of a manifest does not say what a row is.

    >>> sample_rows("uint8", [2], 1), sample_rows("text", None, 2), sample_rows("float32", None, 1)
    (array([[0, 0]], dtype=uint8), ['', ''], None)
    """
    if dtype in _EMPTY:
        return [_EMPTY[dtype]] * rows
    if dtype == "json" or shape is None:
        return None
    return np.zeros((rows, *shape), dtype)


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
