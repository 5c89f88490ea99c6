"""Columns as an Arrow table and back: a row a decision, an entry in its list for each model that it asked.

Rules of this file:
- A table says everything that the columns say, to the bit. What is not known is null.
- pyarrow is imported where it is used: the library works without it.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.log.columns import ARRAYS, UNKNOWN, VOCABULARIES, Bools, DecisionColumns

ENTRIES: dict[str, Any] = {name: one.kind for name, one in ARRAYS.items() if one.wide}
"""Fields of an entry besides `model`, and the types of their elements."""
WORDS = {name: words for words, counted in VOCABULARIES.items() for name in counted if name not in ENTRIES}
"""Columns of words, and the vocabulary that they count through."""
PLAIN: dict[str, Any] = {name: one.kind for name, one in ARRAYS.items() if name not in ENTRIES and name not in WORDS}
INPUT, FEATURES = "input", "features"


def schema(*, inputs: bool) -> Any:
    """The schema of a file."""
    import pyarrow as pa  # noqa: PLC0415

    kinds = {np.int32: pa.int32(), np.int64: pa.int64(), np.float64: pa.float64(), np.bool_: pa.bool_()}
    words = pa.dictionary(pa.int32(), pa.string())
    plain = [(name, kinds[kind]) for name, kind in PLAIN.items()]
    fields = [("model", words), *((name, words if name == "output" else kinds[kind]) for name, kind in ENTRIES.items())]
    asked = [("models", pa.list_(pa.struct(fields)))]
    asked.append((FEATURES, pa.list_(pa.float64())))
    return pa.schema([*plain, *((name, words) for name in WORDS), *asked, *([(INPUT, pa.string())] if inputs else [])])


def table_of(columns: DecisionColumns, inputs: Sequence[str | None] | None) -> Any:
    """The decisions as a table; with `inputs`, a column more."""
    import pyarrow as pa  # noqa: PLC0415

    arrays: dict[str, Any] = {name: _plain(getattr(columns, name)) for name in PLAIN}
    for name, vocabulary in WORDS.items():
        arrays[name] = _words(getattr(columns, name), getattr(columns, vocabulary))
    arrays["models"] = _asked(columns)
    arrays[FEATURES] = _features(columns)
    if inputs is not None:
        arrays[INPUT] = pa.array(inputs, pa.string())
    return pa.table(arrays, schema=schema(inputs=inputs is not None))


def columns_of(table: Any, n: int, models: Sequence[str], wanted: Collection[str]) -> DecisionColumns:
    """The decisions of a table of one piece.

    Args:
        table: Read from a file; it has the columns that are wanted, as `read_names` says.
        n: Decisions in it.
        models: Columns of the matrices, all that the table names.
        wanted: Names of arrays; the others say that nothing is known.
    """
    found: dict[str, Any] = {
        name: _plain_back(table[name], PLAIN[name]) if name in wanted else _unknown(name, (n,)) for name in PLAIN
    }
    vocabularies: dict[str, dict[Any, int]] = {name: {} for name in VOCABULARIES}
    for name, vocabulary in WORDS.items():
        known = vocabularies[vocabulary]
        found[name] = _words_back(table[name], known) if name in wanted else _unknown(name, (n,))
        if name == "context" and name in wanted and (found[name] == UNKNOWN).any():
            found[name][found[name] == UNKNOWN] = known.setdefault(None, len(known))
    found |= _matrices(table, (n, len(models)), models, wanted, vocabularies["values"])
    if FEATURES in wanted:
        found[FEATURES] = _features_back(table[FEATURES])
    words: dict[str, Any] = {name: tuple(known) for name, known in vocabularies.items()}
    return DecisionColumns(models=tuple(models), **words, **found)


def read_names(wanted: Collection[str]) -> list[str]:
    """The columns of a file that have to be read for these arrays."""
    flat = [name for name in (*PLAIN, *WORDS, FEATURES, INPUT) if name in wanted]
    asked = [name for name in ENTRIES if name in wanted]
    return flat + [f"models.list.element.{name}" for name in (["model", *asked] if asked else [])]


def models_of(columns: DecisionColumns) -> list[str]:
    """The models that an entry of these decisions names."""
    named = np.flatnonzero(_there(columns).any(axis=0)).tolist()
    return [columns.models[number] for number in named]


def _plain(array: NDArray[Any]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    nothing = array == UNKNOWN if array.dtype.kind == "i" else None
    return pa.array(array, mask=nothing, from_pandas=True)


def _words(codes: NDArray[np.int32], words: Sequence[str | None]) -> Any:
    """A dictionary array; null where there is no word, or it is None."""
    import pyarrow as pa  # noqa: PLC0415

    nothing = codes == UNKNOWN
    if None in words:
        nothing |= codes == words.index(None)
    texts = ["" if word is None else word for word in words]
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=nothing), pa.array(texts, pa.string()))


def _there(columns: DecisionColumns) -> Bools:
    """Where a model has an entry: there is something to say about it."""
    said = (columns.propensity != 0.0) | columns.served | columns.answered | (columns.output != UNKNOWN)
    there: Bools = said | ~np.isnan(columns.latency_ms) | ~np.isnan(columns.loss)
    return there


def _asked(columns: DecisionColumns) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    there = _there(columns)
    row, column = np.nonzero(there)
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    fields = {"model": _words(column.astype(np.int32), columns.models)}
    for name in ENTRIES:
        values = getattr(columns, name)[row, column]
        fields[name] = _words(values, columns.values) if name == "output" else _plain(values)
    entries = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    return pa.ListArray.from_arrays(pa.array(ends), entries)


def _features(columns: DecisionColumns) -> Any:
    """A list a query, up to the last of its features."""
    import pyarrow as pa  # noqa: PLC0415

    known = ~np.isnan(columns.features)
    width = columns.features.shape[1]
    lengths = np.where(known.any(axis=1), width - known[:, ::-1].argmax(axis=1), 0) if width else known.sum(axis=1)
    inside = np.arange(width) < lengths[:, None]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(columns.features[inside]))


def _features_back(array: Any) -> NDArray[np.float64]:
    lists = array.combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    found = np.full((len(lists), int(lengths.max(initial=0))), np.nan)
    found[np.arange(found.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy()
    return found


def _matrices(
    table: Any,
    shape: tuple[int, int],
    models: Sequence[str],
    wanted: Collection[str],
    values: dict[Any, int],
) -> dict[str, Any]:
    found = {name: _unknown(name, shape) for name in ENTRIES}
    asked = [name for name in ENTRIES if name in wanted]
    if not asked:
        return found
    lists = table["models"].combine_chunks()
    entries = lists.flatten()
    place = {model: number for number, model in enumerate(models)}
    row = np.repeat(np.arange(shape[0]), np.diff(lists.offsets.to_numpy()))
    cell = row * shape[1] + _words_back(entries.field("model"), place)
    for name in asked:
        matrix = np.full(shape, ARRAYS[name].nothing, ENTRIES[name])
        field = entries.field(name)
        matrix.ravel()[cell] = _words_back(field, values) if name == "output" else _plain_back(field, ENTRIES[name])
        found[name] = matrix
    return found


def _plain_back(array: Any, kind: Any) -> NDArray[Any]:
    if array.null_count and np.dtype(kind).kind == "i":
        array = array.fill_null(UNKNOWN)
    return np.asarray(array.to_numpy() if hasattr(array, "chunks") else array.to_numpy(zero_copy_only=False), kind)


def _words_back(array: Any, known: dict[Any, int]) -> NDArray[np.int32]:
    """Numbers of the words; those that are new get the next ones. Null is -1."""
    pieces = []
    for piece in array.chunks if hasattr(array, "chunks") else [array]:
        table = np.array([known.setdefault(word, len(known)) for word in piece.dictionary.to_pylist()], np.int32)
        indices = piece.indices
        codes = indices.fill_null(0).to_numpy() if indices.null_count else indices.to_numpy()
        numbers = table[codes] if len(table) else np.zeros(len(codes), np.int32)
        if indices.null_count:
            numbers = np.where(indices.is_null().to_numpy(zero_copy_only=False), UNKNOWN, numbers)
        pieces.append(numbers)
    return np.concatenate(pieces) if pieces else np.empty(0, np.int32)


def _unknown(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array that says that nothing is known, of one element however long it is."""
    return np.broadcast_to(np.array(ARRAYS[name].nothing, ARRAYS[name].kind), shape)
