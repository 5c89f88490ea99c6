"""Files of logged inputs, and of what a model says to them. Needs pyarrow, which the extra `replay` brings.

Rules of this file:
- Inputs are what `replay export --inputs` writes: columns `partition`, `query_offset`, and `input` with
  `{"input": row}` or `{"inputs": [row, ...]}` as JSON, null where the log has lost the query.
- A file has its name when it is whole: it is written beside its place, and renamed.
"""

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.new_model import InputChunk, ModelAnswers, PlacedAnswers

SCHEMA_VERSION = 1
SUFFIX = ".parquet"
_INPUTS = ("partition", "query_offset", "input")
_KEY = b"clipper-stream-answers"


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


def write_answers(path: Path, answered: Iterable[tuple[Queries, ModelAnswers]], model: str) -> tuple[int, int]:
    """Write a file of answers; the file survives a power cut once this returns.

    Args:
        path: Where to; what is there is replaced.
        answered: Queries and the answers to them, chunk by chunk.
        model: Reference of the model, for the metadata of the file.

    Returns:
        The number of answered queries, and how many of them have a row that failed.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    queries = failed = 0
    schema = _schema().with_metadata({_KEY: json.dumps({"schema_version": SCHEMA_VERSION, "model": model}).encode()})
    try:
        with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            for asked, answers in answered:
                writer.write_table(_table(asked, answers, schema))
                queries += len(asked.text)
                failed += answers.failed
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return queries, failed


def read_answers(path: Path) -> tuple[str, PlacedAnswers]:
    """Return the reference of the model of a file of answers, and its answers by partition and offset of the query.

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
    answers = ModelAnswers(output=output, several_rows=several, error=error)
    return content["model"], PlacedAnswers.of(partition, offset, answers)


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


def _table(queries: Queries, answers: ModelAnswers, schema: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    columns = (queries.partition, queries.query_offset, answers.output, answers.several_rows, answers.error)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.table(arrays, schema=schema)


def _opened(path: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidSetting(f"{path} cannot be read: {error}") from error
