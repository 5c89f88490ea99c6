"""Models, clocks and senders for the tests of the model host."""

from collections.abc import Callable
from typing import Any


class FunctionOfRow:
    """A model that applies a function to each row."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def predict_batch(self, inputs: Any) -> list[Any]:
        return [self._function(row) for row in inputs]


class CountingModel:
    """A model that remembers the batches it was asked about."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.batches: list[Any] = []

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    def predict_batch(self, inputs: Any) -> Any:
        self.batches.append(inputs)
        return self._model.predict_batch(inputs)
