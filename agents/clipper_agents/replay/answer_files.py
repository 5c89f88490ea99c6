"""Files of logged inputs, and of what a model says to them. Needs pyarrow, which the extra `replay` brings.

Rules of this file:
- Inputs are what `replay export --inputs` writes: columns `partition`, `query_offset`, and `input` with
  `{"input": row}` or `{"inputs": [row, ...]}` as JSON, null where the log has lost the query.
- A file has its name when it is whole: it is written beside its place, and renamed.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.new_model import InputChunk, ModelAnswers, PlacedAnswers

SCHEMA_VERSION = 1
SUFFIX = ".parquet"
_INPUTS = ("partition", "query_offset", "input")
_KEY = b"clipper-stream-answers"
_READ_BYTES = 1 << 20


class Queries(NamedTuple):
    """Logged queries that the topic still had when they were exported, as columns.

    Attributes:
        partition: Partition of each query.
        query_offset: Offset of each query.
        text: Input of each query, as JSON.
    """

    partition: list[int]
    query_offset: list[int]
    text: list[str]


def input_files(path: Path) -> list[Path]:
    """Return the file itself, or the Parquet files of the folder by name.

    Raises:
        InvalidSetting: there is no file, or one of them has no inputs.
    """
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not found:
        raise InvalidSetting(f"{path} has no file {SUFFIX}: give what `replay export --inputs` wrote")
    for each in found:
        missing = [name for name in _INPUTS if name not in _opened(each).schema_arrow.names]
        if missing:
            what = f"{each} has no column {', '.join(missing)}"
            raise InvalidSetting(f"{what}: export the decisions again, with `replay export --inputs`")
    return found


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while content := file.read(_READ_BYTES):
            hashed.update(content)
    return hashed.hexdigest()


def group_rows(path: Path) -> list[int]:
    """Return the number of rows of each row group of a file."""
    metadata = _opened(path).metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def read_queries(path: Path, chunk: InputChunk) -> Queries:
    """Read the queries of a chunk, without those that the log had lost when it was exported."""
    table = _opened(path).read_row_group(chunk.group, columns=list(_INPUTS), use_threads=False)
    part = table.slice(chunk.first, chunk.rows)
    columns = [part[name].to_pylist() for name in _INPUTS]
    there = [row for row in zip(*columns, strict=True) if None not in row]
    return Queries(*(list(column) for column in zip(*there, strict=True))) if there else Queries([], [], [])


def write_chunk(path: Path, queries: Queries, answers: ModelAnswers) -> None:
    """Write the answers to the queries; the file survives a power cut once this returns."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    beside = _beside(path)
    try:
        pq.write_table(_table(queries, answers), beside, compression="zstd")
        _settle(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def join_chunks(path: Path, chunks: Iterable[Path], said: Mapping[str, Any]) -> tuple[int, int]:
    """Join the files of all chunks into one.

    Args:
        path: Where to; what is there is replaced.
        chunks: Files of `write_chunk`.
        said: Metadata of the file: the model and the digests of the inputs.

    Returns:
        The number of answered queries, and how many of them have a row that failed.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    beside, queries, failed = _beside(path), 0, 0
    metadata = {_KEY: json.dumps({"schema_version": SCHEMA_VERSION} | dict(said)).encode()}
    try:
        with pq.ParquetWriter(beside, _schema().with_metadata(metadata), compression="zstd") as writer:
            for chunk in chunks:
                table = pq.read_table(chunk)
                writer.write_table(table.replace_schema_metadata(metadata))
                queries += table.num_rows
                failed += table.num_rows - table["error"].null_count
        _settle(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return queries, failed


def read_answers(path: Path) -> tuple[dict[str, Any], PlacedAnswers]:
    """Return the metadata of a file of answers, and its answers by partition and offset of the query.

    Raises:
        InvalidSetting: the file holds no answers.
    """
    file = _opened(path)
    said = (file.schema_arrow.metadata or {}).get(_KEY)
    if said is None:
        raise InvalidSetting(f"{path} is no file of answers: give what `replay score` wrote")
    content = json.loads(said)
    if content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version")
        raise InvalidSetting(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}: score again")
    table = file.read()
    partition, offset = (table[name].to_numpy() for name in ("partition", "query_offset"))
    output, several, error = (table[name].to_pylist() for name in ("output", "several_rows", "error"))
    return content, PlacedAnswers.of(partition, offset, ModelAnswers(output=output, several_rows=several, error=error))


def _schema() -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.schema(
        [
            ("partition", pa.int32()),
            ("query_offset", pa.int64()),
            ("output", pa.string()),
            ("several_rows", pa.bool_()),
            ("error", pa.string()),
        ]
    )


def _table(queries: Queries, answers: ModelAnswers) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    columns = (queries.partition, queries.query_offset, answers.output, answers.several_rows, answers.error)
    schema = _schema()
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.table(arrays, schema=schema)


def _opened(path: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidSetting(f"{path} cannot be read: {error}") from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _settle(beside: Path, path: Path) -> None:
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
