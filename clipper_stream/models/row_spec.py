"""What one row of input looks like, for the router that checks it and for the model that is asked about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.models.model import Rows
from clipper_stream.names import choices

NUMERIC = ("float32", "float64", "int32", "int64", "uint8")
"""Element types of numeric rows."""
LISTED = ("text", "bytes", "json", "table")
"""Element types of the other rows."""
_ZEROS = {"text": "", "bytes": b"", "number": 0.0, "date": "1970-01-01T00:00:00"}


class Column(NamedTuple):
    """A column of a table: its name, and `number`, `text` or `date`."""

    name: str
    dtype: str = "number"


@dataclass(frozen=True, slots=True)
class RowSpec:
    """What one row of input looks like.

    Attributes:
        dtype: One of `NUMERIC`, or `text`, `bytes` (in JSON `{"base64": "..."}`), `json` (passed on as it is) or
            `table` (a dictionary with a value for each column, in their order).
        shape: Shape of a numeric row, `()` for a plain number; None: one dimension of any length.
        columns: Of a table.
        missing: Whether a value may be missing: NaN in a row of floats, None in a table.

    Raises:
        InvalidSetting: an unknown dtype, a shape with a dimension that is no positive integer, a table without columns,
            or columns of anything else.

    >>> RowSpec("table", columns=[("age",), ("city", "text")]).columns
    (Column(name='age', dtype='number'), Column(name='city', dtype='text'))
    """

    dtype: str = "float32"
    shape: Sequence[int] | None = None
    columns: Sequence[Any] = ()
    missing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(Column(*column) for column in self.columns))
        if self.dtype not in (*NUMERIC, *LISTED):
            raise InvalidSetting(f"dtype {self.dtype!r}: {choices(self.dtype, (*NUMERIC, *LISTED))}")
        if bool(self.columns) != (self.dtype == "table"):
            raise InvalidSetting(f"dtype {self.dtype!r} with {len(self.columns)} columns: only a table has some")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))
            if not all(type(length) is int and length > 0 for length in self.shape):
                raise InvalidSetting(f"shape {self.shape!r}: give positive integers, as [64] or [28, 28]")

    @classmethod
    def of(cls, declared: Any) -> Self:
        """The spec that the `input` of a manifest declares."""
        columns = [(column.name, column.dtype) for column in declared.columns]
        return cls(declared.dtype, declared.shape, columns, declared.missing)

    @property
    def numeric(self) -> bool:
        return self.dtype in NUMERIC

    def sample(self, count: int) -> Rows | None:
        """Rows of zeros, empty texts or missing values; None when the spec does not say what a row is.

        >>> RowSpec("uint8", [2]).sample(1), RowSpec("text").sample(2), RowSpec().sample(1)
        (array([[0, 0]], dtype=uint8), ['', ''], None)
        """
        if self.columns:
            row = {name: None if self.missing else _ZEROS[dtype] for name, dtype in self.columns}
            return [dict(row) for _ in range(count)]
        if self.dtype in _ZEROS:
            return [_ZEROS[self.dtype]] * count
        if not self.numeric or self.shape is None:
            return None
        return np.zeros((count, *self.shape), self.dtype)

    def random(self, count: int, seed: int = 0) -> Rows:
        """Rows of any spec but `json`, those of the seed; numeric ones need a shape, and are of three decimals.

        >>> RowSpec("uint8", [2]).random(3).shape
        (3, 2)

        Raises:
            InvalidSetting: nobody can guess such rows.
        """
        rng = np.random.default_rng(seed)
        if self.columns:
            cells: dict[str, Callable[[int], Any]] = {"number": float, "text": str, "date": lambda _: "2026-01-31"}
            made = [(name, cells[dtype]) for name, dtype in self.columns]
            numbers = rng.integers(0, 1000, (count, len(made))).tolist()
            return [{name: cell(one) for (name, cell), one in zip(made, row, strict=True)} for row in numbers]
        if self.dtype == "text":
            return [" ".join(map(str, words)) for words in rng.integers(0, 10_000, (count, 8))]
        if self.dtype == "bytes":
            return [rng.bytes(64) for _ in range(count)]
        if self.dtype == "json" or self.shape is None:
            todo = "give some (--rows FILE)" + (", or the shape of one (--shape 64)" if self.numeric else "")
            raise InvalidSetting(f"{self.dtype} rows of unknown content cannot be guessed: {todo}")
        size = (count, *self.shape)
        drawn = rng.normal(size=size).round(3) if self.dtype.startswith("float") else rng.integers(0, 256, size)
        return drawn.astype(self.dtype)
