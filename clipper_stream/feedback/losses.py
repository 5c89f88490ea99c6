"""Losses: how far an output is from the label, in [0, 1].

Rules of this file:
- Two strings are compared as text: "01" is not "1". Otherwise both sides are numbers if they can be read as such: the
  label 3 of a program and the output "3" or 3.0 of a model are equal. true counts as 1 and false as 0.
- A label of another kind than the output is refused by every loss: text against a number, a list against no list, an
  object against no object. Nobody knows what it says about the output.
- Lists are compared element by element: for `zero_one` all must be equal, the others take the mean.
- `absolute:10` and `squared:10` measure the difference by a scale: one of 10 or more has the loss 1.
- An output that is absent (None) or no finite number has the loss 1: a model must not gain by giving none. A label
  that is absent or not finite is refused: nobody can be scored by it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from clipper_stream.errors import InvalidLabel, UnknownName, shown


def loss_of(kind: str, label: Any, output: Any) -> float:
    """Loss of one output of one row.

    Args:
        kind: `zero_one` (0 when equal, else 1), `absolute` or `squared` (of the difference, at most 1), the latter two
            with a scale behind a colon or without one.
        label: What was true.
        output: What the model said.

    >>> loss_of("squared", [1.0, 0.0], [0.5, 0.0]), loss_of("absolute:10", 7, 4)
    (0.125, 0.3)

    Raises:
        UnknownName: there is no such loss.
        InvalidLabel: the label is absent, or it and the output cannot be compared by this loss.
    """
    loss = LOSSES.get(kind) or loss_named(kind)
    if label is None:
        raise InvalidLabel("the label is null: give the true output, or a loss or a reward in [0, 1]")
    if isinstance(label, float | list | tuple) and not _is_finite(label):
        raise InvalidLabel(f"label {shown(label)} has NaN or infinity: give finite numbers")
    return 1.0 if output is None else loss(label, output)


def loss_of_rows(kind: str, labels: Any, outputs: Sequence[Any]) -> float:
    """Mean of `loss_of` over the rows of one query; `InvalidLabel` too where there is not one label a row."""
    if not isinstance(labels, list | tuple) or len(labels) != len(outputs) or not outputs:
        found = f"{len(labels)} labels" if isinstance(labels, list | tuple) else shown(labels)
        raise InvalidLabel(f"{found} for a query of {len(outputs)} rows: give a list with one label a row")
    losses = [loss_of(kind, label, output) for label, output in zip(labels, outputs, strict=True)]
    return sum(losses) / len(losses)


@cache
def loss_named(kind: str) -> Callable[[Any, Any], float]:
    """The loss of a label and an output; `UnknownName` where there is none of this name."""
    name, colon, scale = kind.partition(":")
    if name not in LOSSES or (colon and name == "zero_one"):
        raise UnknownName(f"loss {kind!r}: use one of {', '.join(sorted(LOSSES))}")
    return partial(LOSSES[name], scale=float(scale)) if colon else LOSSES[name]


def scale_of(kind: str) -> float:
    """The least difference that has the loss 1; infinite for `zero_one`, which measures none."""
    name, colon, scale = kind.partition(":")
    return math.inf if name == "zero_one" else float(scale) if colon else 1.0


def differences(label: Any, output: Any) -> list[float]:
    """How far each number of an output, or of its rows, is from the label's; none where they cannot be compared.

    >>> differences([1, 2.5], [4, 2])
    [3.0, 0.5]
    """
    found: list[float] = []

    def measured(difference: float) -> float:
        found.append(abs(difference))
        return 0.0

    try:
        _mean_over_elements(label, output, measured)
    except InvalidLabel:
        return []
    return found


def same(first: Any, second: Any) -> bool:
    """Whether two outputs are equal, by the rules of this file."""
    if isinstance(first, list | tuple) or isinstance(second, list | tuple):
        return (
            isinstance(first, list | tuple)
            and isinstance(second, list | tuple)
            and len(first) == len(second)
            and all(map(same, first, second))
        )
    if isinstance(first, str) and isinstance(second, str):
        return first == second
    number = _number(first), _number(second)
    return bool(first == second) if None in number else number[0] == number[1]


def _is_finite(label: Any) -> bool:
    """Whether no number in it is NaN or infinity, at any depth: without recursion, for it may be nested deeply."""
    waiting = [label]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, float) and not math.isfinite(value):
            return False
    return True


def _zero_one(label: Any, output: Any) -> float:
    kind = type(label)
    if kind is type(output) and (kind is str or (kind is int and abs(label) < _LARGEST)):  # most labels
        return 0.0 if label == output else 1.0
    if same(label, output):
        return 0.0
    if not _of_one_kind(label, output):
        what = f"label {shown(label)} and output {shown(output)} are of different kinds"
        raise InvalidLabel(f"{what}: give the label as the models give their outputs")
    return 1.0


def _of_one_kind(label: Any, output: Any) -> bool:
    """Whether both are text, objects, or numbers; of lists, whether each pair of elements is. Null is of any kind."""
    if label is None or output is None:
        return True
    if isinstance(label, list | tuple) and isinstance(output, list | tuple):
        return all(map(_of_one_kind, label, output))
    if any(isinstance(label, kind) and isinstance(output, kind) for kind in (str, dict)):
        return True
    true = _as_float(label)
    return true is not None and math.isfinite(true) and _number(output) is not None


def _absolute(label: Any, output: Any, scale: float = 1.0) -> float:
    return _mean_over_elements(label, output, lambda difference: min(1.0, abs(difference) / scale))


def _squared(label: Any, output: Any, scale: float = 1.0) -> float:
    return _mean_over_elements(label, output, lambda difference: min(1.0, abs(difference) / scale) ** 2)


def _mean_over_elements(label: Any, output: Any, loss: Callable[[float], float]) -> float:
    if isinstance(label, list | tuple) or isinstance(output, list | tuple):
        if not (isinstance(label, list | tuple) and isinstance(output, list | tuple) and len(label) == len(output) > 0):
            what = f"label {shown(label)} has another shape than output {shown(output)}"
            raise InvalidLabel(f"{what}: give one of the same shape")
        parts = [_mean_over_elements(*pair, loss) for pair in zip(label, output, strict=True)]
        return sum(parts) / len(parts)
    true, said = _as_float(label), _as_float(output)
    if true is None or said is None or not math.isfinite(true):
        what = f"label {shown(label)} and output {shown(output)}"
        raise InvalidLabel(f"{what} are no two finite numbers: use the loss zero_one")
    return loss(true - said) if math.isfinite(said) else 1.0


def _as_float(value: Any) -> float | None:
    number = _number(value)
    try:
        return None if number is None else float(number)
    except OverflowError:  # an integer beyond 1.8e308
        return math.inf


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        return None
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    return None


_LARGEST = 2**63
"""In size, of an integer that is compared as it is; one beyond all floats is no finite number."""
LOSSES: Mapping[str, Callable[..., float]] = {"zero_one": _zero_one, "absolute": _absolute, "squared": _squared}
"""Every loss by its name."""
