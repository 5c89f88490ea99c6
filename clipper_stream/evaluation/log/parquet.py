"""Decisions in Parquet files: a row a decision, its models as a list, so that files stay small and any tool reads them.

Rules of this file:
- What is written comes back: the same numbers, the same words. Words are numbered anew, and every chunk of a file has
  the columns of all models in it.
- A file, or a folder of files, has its name only when it is whole: it is written to a folder beside it and renamed.
- A file of another schema version is refused. What the columns are called is in `docs/reference/replay-files.md`.
"""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from clipper_stream.errors import SetupError
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet_table import (
    ENTRIES,
    FEATURES,
    INPUT,
    PLAIN,
    WORDS,
    columns_of,
    models_of,
    read_names,
    schema,
    table_of,
)

SCHEMA_VERSION = 2
SUFFIX = ".parquet"
FILE_ROWS = 1 << 20
"""Of a file in a folder: 16 chunks, so that several processes can read a folder."""
EVERYTHING = frozenset((*PLAIN, *WORDS, *ENTRIES, FEATURES))
"""Names of all arrays."""
_KEY = b"clipper-stream"


class UnusableFile(SetupError):
    """A file holds no decisions, or in a form that is newer than this code, or its place is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Metadata of a file of decisions.

    Attributes:
        application: Whose decisions these are.
        loss_kind: How labels were compared with outputs.
        since_ms: Begin of the span, milliseconds since the epoch; None: of the log.
        until_ms: Its end.
        horizon_s: How long after its prediction a feedback counted, in seconds; None: as long as there was a log.
        offsets: By partition, offset of the first prediction and one past the last.
        counts: What was read, and what became of it.
        models: References of all models in the file.
        decisions: Rows of the file.

    >>> FileFacts(application="digits", loss_kind="zero_one").decisions
    0
    """

    application: str
    loss_kind: str
    since_ms: int | None = None
    until_ms: int | None = None
    horizon_s: float | None = None
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    decisions: int = 0


class DecisionWriter:
    """Writes chunks to the files of a folder; made by `writing`. `facts` may be exchanged until the end."""

    def __init__(self, folder: Path, facts: FileFacts, *, inputs: bool, file_rows: int | None) -> None:
        self.facts, self._file_rows = facts, file_rows
        self._folder, self._inputs = folder, inputs
        self._file: Any = None
        self._files = self._rows = 0
        self._models: dict[str, None] = {}

    def write(self, columns: DecisionColumns, inputs: Sequence[str | None] | None = None) -> None:
        """Append decisions; they are read back as one chunk.

        Args:
            columns: The decisions.
            inputs: Of each its query's input as JSON, None where it is gone.
        """
        if self._file_rows is not None and self._rows >= self._file_rows:
            self._end_file()
        file = self._begun()
        if len(columns):
            given = (inputs or [None] * len(columns)) if self._inputs else None
            file.write_table(table_of(columns, given), row_group_size=len(columns))
            self._rows += len(columns)
            self._models |= dict.fromkeys(models_of(columns))

    def complete(self) -> None:
        """Write the end of the last file."""
        self._begun()
        self._end_file()

    def abandon(self) -> None:
        """Close what is open, whole or not."""
        if self._file is not None:
            self._file.close()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._files:05}{SUFFIX}"

    def _begun(self) -> Any:
        """The file that is being written."""
        import pyarrow.parquet as pq  # noqa: PLC0415

        if self._file is None:
            self._file = pq.ParquetWriter(self._path, schema(inputs=self._inputs), compression="zstd")
        return self._file

    def _end_file(self) -> None:
        own = replace(self.facts, models=tuple(self._models), decisions=self._rows)
        said = {"schema_version": SCHEMA_VERSION} | asdict(own)
        self._file.add_key_value_metadata({_KEY: json.dumps(said).encode()})
        self._file.close()
        with self._path.open("rb") as written:
            os.fsync(written.fileno())  # before it gets its name: after a power cut it is whole, or not there
        self._file, self._rows, self._models = None, 0, {}
        self._files += 1


@contextmanager
def writing(
    path: Path, facts: FileFacts, *, inputs: bool = False, file_rows: int = FILE_ROWS
) -> Iterator[DecisionWriter]:
    """Write a file (`.parquet`), or a folder of files; it is there when the block has ended without an error.

    Args:
        path: Where to; nothing may be there.
        facts: What it says about itself; the writer completes models and decisions.
        inputs: Whether there is a column of inputs.
        file_rows: Decisions in a file of a folder, at least.

    Raises:
        UnusableFile: something is there already.
    """
    if path.exists():
        raise UnusableFile(f"{path} is there already: give another name, or remove it")
    one_file = path.suffix == SUFFIX
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    beside.mkdir(parents=True)
    writer = DecisionWriter(beside, facts, inputs=inputs, file_rows=None if one_file else file_rows)
    try:
        yield writer
        writer.complete()
    except BaseException:
        writer.abandon()
        shutil.rmtree(beside)
        raise
    if one_file:
        next(beside.iterdir()).rename(path)
        beside.rmdir()
    else:
        beside.rename(path)


def read_facts(path: Path) -> FileFacts:
    """Read the metadata of a file, or of a folder of files with all their models and decisions together.

    Raises:
        UnusableFile: it holds no decisions, or in a newer form.
    """
    found = [_facts_of(_opened(each), each) for each in _files(path)]
    models = tuple(dict.fromkeys(model for one in found for model in one.models))
    return replace(found[-1], models=models, decisions=sum(one.decisions for one in found))


def read_chunks_with_inputs(
    path: Path, wanted: Collection[str] = EVERYTHING, *, inputs: bool = False
) -> Iterator[tuple[DecisionColumns, tuple[str | None, ...] | None]]:
    """The decisions of a file or a folder, a row group at a time, in the order in which they were written.

    Args:
        path: The file or the folder.
        wanted: Names of the arrays to read; in the others nothing is known.
        inputs: Give the queries' inputs as JSON with each chunk; None where the file has none, or they are not wanted.

    Raises:
        UnusableFile: it holds no decisions, or in a newer form.
    """
    return (read_group(group, wanted, inputs=inputs) for group in row_groups(path))


class RowGroup(NamedTuple):
    """One chunk of an opened file, with the models of the whole file or folder."""

    file: Any
    number: int
    models: tuple[str, ...]

    @property
    def partitions(self) -> range:
        """Numbers that contain those of all its decisions."""
        group = self.file.metadata.row_group(self.number)
        place = self.file.schema_arrow.names.index("partition")
        statistics = group.column(place).statistics
        return range(statistics.min, statistics.max + 1)


def row_groups(path: Path) -> list[RowGroup]:
    """All chunks of a file or a folder; errors as of `read_chunks_with_inputs`."""
    models = read_facts(path).models
    files = map(_opened, _files(path))
    return [RowGroup(file, number, models) for file in files for number in range(file.num_row_groups)]


def read_group(
    group: RowGroup, wanted: Collection[str] = EVERYTHING, *, inputs: bool = False
) -> tuple[DecisionColumns, tuple[str | None, ...] | None]:
    """The decisions of a chunk, and its queries' inputs; arguments as of `read_chunks_with_inputs`."""
    there = inputs and INPUT in group.file.schema_arrow.names
    names = read_names({*wanted, INPUT} if there else wanted)
    table = group.file.read_row_group(group.number, columns=names, use_threads=False)
    given = tuple(table[INPUT].to_pylist()) if there else None
    return columns_of(table, table.num_rows, group.models, wanted), given


def _files(path: Path) -> list[Path]:
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not found:
        raise UnusableFile(f"{path} has no file {SUFFIX}: give what `replay export` wrote")
    return found


def _opened(path: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UnusableFile(f"{path} cannot be read: {error}: give what `replay export` wrote") from error


def _facts_of(file: Any, path: Path) -> FileFacts:
    said = (file.metadata.metadata or {}).get(_KEY)
    if said is None:
        raise UnusableFile(f"{path} is no file of decisions: give what `replay export` wrote")
    content = json.loads(said)
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise UnusableFile(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}: export it again")
    content["offsets"] = {int(partition): tuple(span) for partition, span in content["offsets"].items()}
    return FileFacts(**content | {"models": tuple(content["models"])})
