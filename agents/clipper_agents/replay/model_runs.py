"""A model run over a file of inputs: chunk by chunk, in several processes, into one file of answers.

Rules of this file:
- A run that is broken off leaves no file of answers; the next run computes all chunks.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from clipper_agents.replay.answer_files import Queries, group_rows, input_files, read_queries, write_answers
from clipper_agents.replay.worker_pool import run_jobs
from clipper_stream.errors import ModelFailed
from clipper_stream.evaluation.log.new_model import CHUNK_ROWS, InputChunk, ModelAnswers, answers_of, planned
from clipper_stream.models.model import Model
from clipper_stream.models.registry import load_model, runtime_of
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.warm_up import sample_rows, warm_up
from clipper_stream.query.inputs import RowSpec

Told = Callable[[int, int], None]
"""Told how many chunks are done, and of how many."""
_Answered = tuple[Queries, ModelAnswers]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model with the fields of its manifest that a run needs.

    Attributes:
        ref: `name:version`.
        runtime: A registered runtime.
        uri: What it loads.
        sha256: Digest of the file; None: whatever it has now.
        parameters: Keyword arguments for the runtime.
        spec: What a row looks like.
        batch_rows: Most rows of a batch.
        files: What is permitted with model files.

    >>> ModelSource(ref="sum:1", runtime="python", uri="clipper_agents.examples.models:sum_of_row").batch_rows
    1024
    """

    ref: str
    runtime: str
    uri: str
    sha256: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spec: RowSpec = field(default_factory=RowSpec)
    batch_rows: int = 1024
    files: FileRules = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRunSummary:
    """The result of a run.

    Attributes:
        queries: Queries asked.
        failed: Queries of these with a row without output.
        chunks: Chunks of all inputs.

    >>> ModelRunSummary(queries=10, failed=0, chunks=1).chunks
    1
    """

    queries: int
    failed: int
    chunks: int


@dataclass(frozen=True, slots=True)
class _Job:
    """One chunk of inputs to run the model over."""

    inputs: Path
    chunk: InputChunk
    source: ModelSource
    sha256: str


def score_inputs(
    inputs: Path,
    source: ModelSource,
    out: Path,
    *,
    processes: int = 1,
    chunk_rows: int = CHUNK_ROWS,
    told: Told = lambda _done, _of: None,
) -> ModelRunSummary:
    """Run a model over all inputs, and write its answers.

    Args:
        inputs: A file of `replay export --inputs`, or a folder of such files.
        source: The model.
        out: The file to write or replace.
        processes: Number of processes; 0: this one.
        chunk_rows: Queries of a chunk, at least 1.
        told: Called with the number of written chunks and of all chunks: before the first, and after each.

    Raises:
        InvalidSetting: the inputs cannot be read.
        ModelNotLoaded: the model cannot be loaded.
        ModelUnavailable: the server of the model does not answer.
        ModelFailed: the model ended its process.
    """
    runtime = runtime_of(source.runtime)
    sha256 = source.sha256 or hashlib.sha256(runtime.read(source.uri)).hexdigest()
    jobs = [
        _Job(path, chunk, source, sha256)
        for path in input_files(inputs)
        for chunk in planned(group_rows(path), chunk_rows)
    ]
    answered = run_jobs(_run, jobs, processes)
    try:
        queries, failed = write_answers(out, _counted(answered, len(jobs), told), source.ref)
    except BrokenProcessPool as error:
        raise ModelFailed(f"model {source.ref} ended the process that ran it: try it with `model test`") from error
    return ModelRunSummary(queries=queries, failed=failed, chunks=len(jobs))


def _counted(answered: Iterable[_Answered], of: int, told: Told) -> Iterator[_Answered]:
    told(0, of)
    for number, each in enumerate(answered, 1):
        yield each
        told(number, of)


def _run(job: _Job) -> _Answered:
    source = job.source
    named = json.dumps(
        [source.runtime, source.uri, job.sha256, dict(source.parameters), source.spec.dtype, source.spec.shape]
    )
    queries = read_queries(job.inputs, job.chunk)
    model = _loaded(named, source.files)
    return queries, answers_of(model, source.spec, queries.text, source.batch_rows)


@cache
def _loaded(named: str, files: FileRules) -> Model:
    """Load the model once a process."""
    runtime, uri, sha256, parameters, dtype, shape = json.loads(named)
    model = load_model(runtime, uri, sha256, parameters, files=files)
    warm_up(model, sample_rows(dtype, shape, 1))
    return model
