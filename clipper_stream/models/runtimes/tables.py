"""Rows of a table, which are dictionaries, as what libraries take: a matrix of numbers, or a DataFrame.

Rules of this file:
- The type of a column is the declared one, and never depends on the values of a batch: its neighbours are chance.
- A missing value is NaN, in a column of texts too, and NaT in a column of dates.
- A model is given the columns that it was fitted with, in its own order; what else is declared, other models take.
"""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelNotLoaded, shown
from clipper_stream.models.row_spec import Column
from clipper_stream.models.runtimes.model_files import import_extra

TableRows: TypeAlias = Sequence[Mapping[str, Any]]


def fitted_columns(declared: Sequence[Column], names: Sequence[str]) -> list[Column]:
    """The declared columns with these names, in this order.

    Raises:
        ModelNotLoaded: one is not declared.
    """
    by_name = {column.name.replace(" ", "_"): column for column in declared}  # as LightGBM writes them
    by_name |= {column.name: column for column in declared}
    lacking = [name for name in names if name not in by_name]
    if lacking:
        what = f"the model was fitted with the columns {', '.join(names)}, and the input does not declare"
        raise ModelNotLoaded(f"{what} {shown(lacking)}: add them to input.columns")
    return [by_name[name] for name in names]


def matrix_maker(
    columns: Sequence[Column], features: int, categories: Sequence[Sequence[Any]] = ()
) -> Callable[[TableRows], NDArray[Any]]:
    """Makes float64 matrices of shape (rows, features) from rows of a table.

    Args:
        columns: In the order of the features.
        features: How many the model was fitted with.
        categories: For each column of texts, its texts in the order of their codes; another text is a missing value.

    Raises:
        ModelNotLoaded: another number of columns, or columns that are no numbers and have no categories.

    >>> matrix_maker([Column("age"), Column("city", "text")], 2, [["Oslo", "Rome"]])([{"city": "Rome", "age": None}])
    array([[nan,  1.]])
    """
    if len(columns) != features:
        raise ModelNotLoaded(f"the input declares {len(columns)} columns, and the model was fitted with {features}")
    texts = [column.name for column in columns if column.dtype == "text"]
    dates = [column.name for column in columns if column.dtype == "date"]
    if dates or len(texts) != len(categories):
        what = f"the model takes numbers in all but {len(categories)} columns, and the input declares others"
        raise ModelNotLoaded(f"{what}, {shown([*texts, *dates])}: encode them, or deploy a pipeline that does")
    codes = {name: {text: code for code, text in enumerate(each)} for name, each in zip(texts, categories, strict=True)}

    def matrix(rows: TableRows) -> NDArray[Any]:
        values = [
            [codes[name].get(row[name], nan) if name in codes else row[name] for name, _ in columns] for row in rows
        ]
        return np.array(values, np.float64)  # None is NaN

    return matrix


def frame_maker(columns: Sequence[Column]) -> Callable[[TableRows], Any]:
    """Makes DataFrames of these columns from rows of a table; `ModelNotLoaded` where pandas is missing."""
    pandas = import_extra("tables", "pandas")
    return lambda rows: pandas.DataFrame({column.name: _array(rows, column) for column in columns})


def _array(rows: TableRows, column: Column) -> NDArray[Any]:
    values = [row[column.name] for row in rows]
    if column.dtype == "text":
        array = np.empty(len(values), object)
        array[:] = [nan if value is None else value for value in values]
        return array
    return np.array(values, np.float64 if column.dtype == "number" else "datetime64[us]")
