"""One output a row, from the array that a framework gave for the whole batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded, shown

_MATRIX = 2


def one_a_row(array: NDArray[Any], labels: Sequence[str] | None = None) -> NDArray[Any] | list[Any]:
    """The rows of an array; a column becomes plain values, a row of scores the label of the greatest.

    Args:
        array: Rows first.
        labels: Names of the columns; None: the rows as they are.

    Raises:
        ModelFailed: the array has another number of columns than there are labels.

    >>> import numpy as np
    >>> one_a_row(np.array([[1.5], [2.5]])), one_a_row(np.array([[0.1, 0.9]]), ["cat", "dog"])
    (array([1.5, 2.5]), ['dog'])
    """
    if labels is not None:
        if array.shape[1:] != (len(labels),):
            found = f"the model gave scores of shape {array.shape}"
            raise ModelFailed(f"{found} for {len(labels)} labels: name one label a column in parameters.labels")
        return [labels[best] for best in array.argmax(axis=1)]
    return array[:, 0] if array.ndim == _MATRIX and array.shape[1] == 1 else array


def labels_of(uri: str, parameters: Mapping[str, Any]) -> list[str] | None:
    """Return the manifest parameter `labels`.

    Raises:
        ModelNotLoaded: it is no list of texts.
    """
    labels = parameters.get("labels")
    if labels is not None and not (labels and all(isinstance(label, str) for label in labels)):
        raise ModelNotLoaded(f"model file {uri!r}: labels = {shown(labels)}: give a list of texts, one a column")
    return labels
