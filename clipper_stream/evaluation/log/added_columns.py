"""One more column: a model, or an ensemble, whose losses were worked out from what was logged."""

from dataclasses import replace

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.columns import UNKNOWN, Bools, Codes, DecisionColumns, Floats


def with_column(
    columns: DecisionColumns, name: str, loss: Floats, propensity: Floats, output: Codes | None = None
) -> DecisionColumns:
    """The same decisions with one more model, so that every estimator works as for the others.

    Args:
        columns: n decisions.
        name: How the column is called; none of theirs.
        loss: In [0, 1]; NaN where it is not known, (n,).
        propensity: Probability in (0, 1] that it could be known, 0 where nothing of it was seen, (n,): 1 for a model
            that was run on every logged input, the probability of asking all its members for an ensemble.
        output: Index into `values`; -1 where there is none, (n,). Absent: none.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> columns = with_column(logged([[1.0]], [[0.0]]), "new:2", np.array([0.5]), np.array([1.0]))
    >>> columns.models, columns.loss.tolist()
    (('m0:1', 'new:2'), [[0.0, 0.5]])

    Raises:
        InvalidSetting: there is such a column, or an array has another length.
    """
    if name in columns.models:
        raise InvalidSetting(f"column {name!r} is there: give a name that is none of {', '.join(columns.models)}")
    for array in (loss, propensity):
        if array.shape != (len(columns),):
            raise InvalidSetting(f"an array of shape {array.shape} for {len(columns)} decisions: give one value each")
    wider = columns.of_models([*columns.models, name])
    wider.loss[:, -1] = loss
    wider.propensity[:, -1] = propensity
    wider.answered[:, -1] = _seen(loss, propensity)
    wider.output[:, -1] = UNKNOWN if output is None else output
    return wider


def with_values(columns: DecisionColumns, values: list[str]) -> tuple[DecisionColumns, Codes]:
    """The same decisions with more values to point to, and where each of these stands.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> columns, codes = with_values(logged([[1.0]], [[0.0]], labels=[3]), ["4", "3"])
    >>> columns.values, codes.tolist()
    (('3', '4'), [1, 0])
    """
    number = {value: code for code, value in enumerate(columns.values)}
    codes = np.array([number.setdefault(value, len(number)) for value in values], np.int32)
    return replace(columns, values=tuple(number)), codes


def _seen(loss: Floats, propensity: Floats) -> Bools:
    seen: Bools = (propensity > 0.0) & ~np.isnan(loss)
    return seen
