"""Decisions in a Parquet file: a row a decision, its models as a list, so that any tool reads them.

Rules of this file:
- Rows stand in the order of time. What is not known is null. Every chunk has the columns of all models of the file.
- A file has its name only when it is whole: it is written beside its place and renamed.
- A file of another schema version is refused. What the columns are called is in `docs/reference/replay-files.md`.
- pyarrow is imported where it is used: the library works without it.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import SetupError
from clipper_stream.evaluation.log.columns import ARRAYS, UNKNOWN, VOCABULARIES, Codes, DecisionColumns, Floats
from clipper_stream.evaluation.log.configuration import Configuration

SCHEMA_VERSION = 4
ENTRIES = {name: one.kind for name, one in ARRAYS.items() if one.wide}
"""Fields of an entry of `models` besides `model`, and the types of their elements."""
WORDS = {name: words for words, counted in VOCABULARIES.items() for name in counted if name not in ENTRIES}
"""Columns of words, and the vocabulary that they count through."""
PLAIN = {name: one.kind for name, one in ARRAYS.items() if name not in ENTRIES and name not in WORDS}
FEATURES = "features"
_ENTRY = "models.list.element."
_KEY = "clipper-stream"


class UnusableFile(SetupError):
    """A file holds no decisions, or in a form that is newer than this code, or its place is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Metadata of a file of decisions.

    Attributes:
        since_ms: Begin of the span, milliseconds since the epoch; None: of the log.
        horizon_s: How long after its prediction a feedback counted, in seconds; None: as long as there was a log.
        offsets: By partition, offset of the first prediction and one past the last.
        counts: What was read, and what became of it, by the names of `docs/reference/replay-files.md`.
        models: References of all models in the file, in order.
        configs: Configurations that decided, by revision.
    """

    application: str
    loss_kind: str
    since_ms: int | None = None
    until_ms: int | None = None
    horizon_s: float | None = None
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    configs: Mapping[int, Configuration] = field(default_factory=dict)
    decisions: int = 0

    @property
    def metadata(self) -> dict[str, str]:
        return {_KEY: json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self))}


@contextmanager
def new_file(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Give a place for a file, which has its name, and survives a power cut, when the block has ended without an error.

    Raises:
        UnusableFile: something is there already, and not to be replaced.
    """
    if path.exists() and not replaces:
        raise UnusableFile(f"{path} is there already: give another name, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_facts(path: Path) -> FileFacts:
    """Read the metadata of a file; `UnusableFile` where it holds no decisions, or in a newer form."""
    said = (opened_parquet(path).metadata.metadata or {}).get(_KEY.encode())
    if said is None:
        raise UnusableFile(f"{path} is no file of decisions: give what `replay export` wrote")
    version = json.loads(said).get("schema_version")
    if version != SCHEMA_VERSION:
        raise UnusableFile(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}: export it again")
    return msgspec.json.decode(said, type=FileFacts)


def read_chunks(path: Path) -> Iterator[DecisionColumns]:
    """Read the decisions of a file in the order of time, a row group at a time; errors as of `read_facts`."""
    facts = read_facts(path)
    file = opened_parquet(path, read_dictionary=[*WORDS, _ENTRY + "model", _ENTRY + "output"])
    names = [*PLAIN, *WORDS, FEATURES, *(_ENTRY + name for name in ("model", *ENTRIES))]
    for number in range(file.num_row_groups):
        yield _columns_of(file.read_row_group(number, columns=names, use_threads=False), facts)


def opened_parquet(path: Path, **settings: Any) -> Any:
    """Open a Parquet file; `UnusableFile` where it cannot be read."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(path, **settings)
    except (OSError, pa.ArrowException) as error:
        raise UnusableFile(f"{path} cannot be read: {error}") from error


def _columns_of(table: Any, facts: FileFacts) -> DecisionColumns:
    models = facts.models
    found: dict[str, Any] = {name: _numbers(table[name], kind) for name, kind in PLAIN.items()}
    vocabularies: dict[str, dict[Any, int]] = {name: {} for name in VOCABULARIES}
    for name, vocabulary in WORDS.items():
        found[name] = _codes(table[name], vocabularies[vocabulary])
    without = found["context"] == UNKNOWN
    if without.any():
        found["context"][without] = vocabularies["contexts"].setdefault(None, len(vocabularies["contexts"]))
    lists = table["models"].combine_chunks()
    entries, shape = lists.flatten(), (table.num_rows, len(models))
    row = np.repeat(np.arange(shape[0]), np.diff(lists.offsets.to_numpy()))
    cell = row * shape[1] + _codes(entries.field("model"), {model: number for number, model in enumerate(models)})
    for name, kind in ENTRIES.items():
        found[name] = np.full(shape, ARRAYS[name].nothing, kind)
        values = entries.field(name)
        found[name].ravel()[cell] = (
            _codes(values, vocabularies["values"]) if name == "output" else _numbers(values, kind)
        )
    found[FEATURES] = _features(table[FEATURES].combine_chunks())
    words: dict[str, Any] = {name: tuple(known) for name, known in vocabularies.items()}
    return DecisionColumns(models=models, configs=facts.configs, **words, **found)


def _features(lists: Any) -> Floats:
    lengths = np.diff(lists.offsets.to_numpy())
    found = np.full((len(lists), int(lengths.max(initial=0))), np.nan)
    found[np.arange(found.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy()
    return found


def _numbers(array: Any, kind: Any) -> NDArray[Any]:
    if array.null_count and np.dtype(kind).kind == "i":
        array = array.fill_null(UNKNOWN)
    return np.asarray(array.to_numpy() if hasattr(array, "chunks") else array.to_numpy(zero_copy_only=False), kind)


def _codes(array: Any, known: dict[Any, int]) -> Codes:
    """Return the numbers of words; those that are new get the next ones. Null is -1."""
    pieces = []
    for piece in array.chunks if hasattr(array, "chunks") else [array]:
        table = [known.setdefault(word, len(known)) for word in piece.dictionary.to_pylist()]
        indices = piece.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
        pieces.append(np.array([*table, UNKNOWN], np.int32)[indices])
    return np.concatenate(pieces) if pieces else np.empty(0, np.int32)
