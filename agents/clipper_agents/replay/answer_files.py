"""Files of logged inputs, and of what a model says to them. Needs pyarrow, which the extra `replay` brings.

Rules of this file:
- A run that is broken off leaves no file of answers; the next run computes all chunks.
- Inputs are what `replay export --inputs` writes: columns `partition`, `query_offset`, and `input` with
  `{"input": row}` or `{"inputs": [row, ...]}` as JSON, null where the log has lost the query.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.new_model import CHUNK_ROWS, ModelAnswers, PlacedAnswers, answers_of
from clipper_stream.evaluation.log.parquet import new_file, opened_parquet
from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import warm_up
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.manifests import ModelManifest

SCHEMA_VERSION = 1
_INPUTS = ("partition", "query_offset", "input")
_KEY = b"clipper-stream-answers"
_SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("query_offset", pa.int64()),
        ("output", pa.string()),
        ("several_rows", pa.bool_()),
        ("error", pa.string()),
    ]
)


class Queries(NamedTuple):
    """Logged queries that the topic still had when they were exported, as columns; the text is the input as JSON."""

    partition: list[int]
    query_offset: list[int]
    text: list[str]


def score_inputs(
    inputs: Path,
    model: ModelManifest,
    out: Path,
    *,
    files: FileRules = STRICT,
    chunk_rows: int = CHUNK_ROWS,
    told: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[int, int]:
    """Run a model over a file of `replay export --inputs` chunk by chunk, and write or replace a file of answers.

    Without a digest the model's file is what it is now. `told` hears how many queries are answered, and of how many
    decisions: before the first chunk, and after each.

    Returns:
        The number of answered queries, and how many of them have a row that failed.

    Raises:
        UnusableFile, InvalidSetting: as `read_queries`.
        ModelNotLoaded: the model cannot be loaded.
        ModelUnavailable: the server of the model does not answer.
    """
    of, done, spec = opened_parquet(inputs).metadata.num_rows, 0, RowSpec.of(model.input)
    sha256 = model.sha256 or file_digest(model.runtime, model.uri)
    loaded = load_model(model.runtime, model.uri, sha256, model.parameters, columns=spec.columns, files=files)
    warm_up(loaded, spec.sample(1))

    def answered() -> Iterator[tuple[Queries, ModelAnswers]]:
        nonlocal done
        told(0, of)
        for queries in read_queries(inputs, chunk_rows):
            yield queries, answers_of(loaded, spec, queries.text, model.batch.max_rows)
            done += len(queries.text)
            told(done, of)

    return write_answers(out, answered(), model.ref)


def read_queries(path: Path, most_rows: int) -> Iterator[Queries]:
    """Read the queries of a file in chunks of so many, without those that the log had lost when it was exported.

    Raises:
        UnusableFile: there is no file.
        InvalidSetting: it has no inputs.
    """
    file = opened_parquet(path)
    missing = [name for name in _INPUTS if name not in file.schema_arrow.names]
    if missing:
        what = f"{path} has no column {', '.join(missing)}"
        raise InvalidSetting(f"{what}: export the decisions again, with `replay export --inputs`")
    for batch in file.iter_batches(most_rows, columns=list(_INPUTS), use_threads=False):
        there = [row for row in zip(*(batch[name].to_pylist() for name in _INPUTS), strict=True) if None not in row]
        yield Queries(*map(list, zip(*there, strict=True))) if there else Queries([], [], [])


def write_answers(path: Path, answered: Iterable[tuple[Queries, ModelAnswers]], model: str) -> tuple[int, int]:
    """Write a file of the answers of a model, in place of what is there; what is returned is as of `score_inputs`."""
    queries = failed = 0
    schema = _SCHEMA.with_metadata({_KEY: json.dumps({"schema_version": SCHEMA_VERSION, "model": model}).encode()})
    with new_file(path, replaces=True) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        for asked, answers in answered:
            columns = (asked.partition, asked.query_offset, answers.output, answers.several_rows, answers.error)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            queries += len(asked.text)
            failed += answers.failed
    return queries, failed


def read_answers(path: Path) -> tuple[str, PlacedAnswers]:
    """Return the reference of the model of a file of answers, and its answers by partition and offset of the query.

    Raises:
        UnusableFile: there is no file.
        InvalidSetting: it holds no answers.
    """
    file = opened_parquet(path)
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
