"""What is predicted: rows of numbers, and the models that are asked about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from models import INPUTS, digits, largest
from numpy.typing import NDArray
from rig.nets import LEVELS, NETS, WIDTHS


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Task:
    """Rows and models.

    Attributes:
        inputs: Numbers in a row.
        levels: A number is a multiple of one part in so many, from 0 on and less than 1.
        models: What each model version says of rows; the first one is right.
    """

    inputs: int
    levels: int
    models: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.int64]]]

    def rows(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Random rows, of which practically none comes twice."""
        return rng.integers(0, self.levels, (count, self.inputs)) / self.levels

    def labels(self, rows: NDArray[Any], model: str | None = None) -> NDArray[np.int64]:
        """What a model says of the rows; absent: what is right."""
        return self.models[model or next(iter(self.models))](rows.astype(np.float32))


DIGITS = Task(inputs=INPUTS, levels=1_000, models={"digits:1": digits, "largest:1": largest})
"""64 thousandths, six characters in JSON."""
IMAGES = Task(inputs=WIDTHS[0], levels=LEVELS, models=NETS)
"""784 sixteenths, a little over six characters in JSON, for a net."""
