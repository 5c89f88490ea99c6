"""Decision columns from plain arrays: a log of another system, or one that was made up."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.columns import UNKNOWN, Codes, DecisionColumns

_UNSAID = "unsaid"


def logged(
    propensity: ArrayLike,
    loss: ArrayLike,
    *,
    models: Sequence[str] | None = None,
    served: ArrayLike | None = None,
    served_propensity: ArrayLike | None = None,
    contexts: Sequence[str | None] = (None,),
    policies: Sequence[str] = ("logged",),
    outputs: Sequence[Sequence[Any]] | None = None,
    labels: Sequence[Any] | None = None,
    **columns: ArrayLike,
) -> DecisionColumns:
    """Decisions about which a model's loss is known wherever it is a number.

    Args:
        propensity: Probability with which each model was asked, 0 where it was not, (n, M).
        loss: Loss in [0, 1] of each model, NaN where it is not known, (n, M).
        models: References; absent: `m0:1`, `m1:1` and so on.
        served: Models that made the answer, (n, M); absent: the first that was asked.
        served_propensity: Probability that these were served, (n,) or a number; absent: that of asking the first of
            them.
        contexts: What `context` counts through.
        policies: What `policy` counts through.
        outputs: Output of each model, (n, M); None: it did not answer.
        labels: What was true, (n,); absent: something that scored all that were asked.
        columns: Any other array of `DecisionColumns`; absent: decided a millisecond after another in partition 0, and
            the feedback in the same millisecond.

    >>> columns = logged([[0.5, 0.0], [0.0, 0.5]], [[1.0, np.nan], [np.nan, 0.0]], at_ms=[10, 20])
    >>> columns.models, columns.served.tolist(), columns.feedback_at_ms.tolist()
    (('m0:1', 'm1:1'), [[True, False], [False, True]], [10, 20])

    Raises:
        InvalidSetting: the arrays are no matrices of one shape, or a name is none of the columns'.
    """
    asked, losses = np.asarray(propensity, np.float64), np.asarray(loss, np.float64)
    if asked.ndim != 2 or asked.shape != losses.shape:  # noqa: PLR2004 (a matrix)
        raise InvalidSetting(f"propensity {asked.shape} and loss {losses.shape}: give two matrices (n, M)")
    rows, count = asked.shape
    names = tuple(models) if models is not None else tuple(f"m{number}:1" for number in range(count))
    chosen = np.asarray(served, np.bool_) if served is not None else np.eye(count, dtype=np.bool_)[asked.argmax(axis=1)]
    given = {"at_ms": np.arange(rows), **columns}
    table = DecisionColumns.empty(names, rows)
    answered = asked > 0.0
    values, output, label = _counted(outputs, labels, rows, count)
    if outputs is not None:
        answered &= output != UNKNOWN
    filled: dict[str, Any] = {
        "propensity": asked,
        "loss": losses,
        "served": chosen,
        "served_propensity": np.broadcast_to(
            asked.max(axis=1, where=chosen, initial=0.0) if served_propensity is None else served_propensity, (rows,)
        ),
        "answered": answered,
        "offset": np.arange(rows),
        "query_offset": np.arange(rows),
        "feedback_offset": np.arange(rows),
        "feedback_at_ms": given["at_ms"],
        "output": output,
        "label": label,
        **given,
    }
    unknown = sorted(set(filled) - set(DecisionColumns.__slots__))
    if unknown:
        raise InvalidSetting(f"{unknown} are no columns: use {', '.join(DecisionColumns.__slots__)}")
    typed: dict[str, Any] = {
        name: np.asarray(array).astype(getattr(table, name).dtype) for name, array in filled.items()
    }
    return replace(table, contexts=tuple(contexts), policies=tuple(policies), values=values, **typed)


def _counted(
    outputs: Sequence[Sequence[Any]] | None, labels: Sequence[Any] | None, rows: int, count: int
) -> tuple[tuple[str, ...], Codes, Codes]:
    """Outputs and labels as numbers of one vocabulary of JSON texts."""
    number: dict[str, int] = {}

    def code(value: Any) -> int:
        return UNKNOWN if value is None else number.setdefault(json.dumps(value), len(number))

    output = np.full((rows, count), UNKNOWN, np.int32)
    label = np.full(rows, code(_UNSAID) if labels is None else UNKNOWN, np.int32)
    if outputs is not None:
        output[:] = [[code(value) for value in row] for row in outputs]
    if labels is not None:
        label[:] = [code(value) for value in labels]
    return tuple(number), output, label
