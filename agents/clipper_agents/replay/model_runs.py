"""A model run over a file of inputs: chunk by chunk, in several processes, and each chunk only once.

Rules of this file:
- A chunk's answers are a file in a folder that is named after the model and the inputs, by their bytes. A run that is
  broken off, by whatever, leaves whole chunks and nothing else that is read again; the next run goes on from there.
- Of a Python function the bytes are those of its module, of a model elsewhere (`oip`) its URL: what they call may
  change unseen. `fresh` computes all anew.
- Worker processes are spawned, so that no thread or lock of a model library is copied into them, and end with the
  process that started them, however it ends.
"""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from clipper_agents.replay.answer_files import (
    digest_of,
    group_rows,
    input_files,
    join_chunks,
    read_queries,
    write_chunk,
)
from clipper_stream.errors import ModelFailed
from clipper_stream.evaluation.log.new_model import CHUNK_ROWS, InputChunk, answers_of, planned
from clipper_stream.models.model import Model
from clipper_stream.models.registry import load_model, runtime_of
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.warm_up import sample_rows, warm_up
from clipper_stream.query.inputs import RowSpec

Told = Callable[[int, int], None]
"""Told how many chunks are done, and of how many."""


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

    def described(self, sha256: str) -> dict[str, Any]:
        """Everything about the model that may change its answers, for the metadata of their file."""
        return {
            "runtime": self.runtime,
            "uri": self.uri,
            "sha256": sha256,
            "parameters": dict(self.parameters),
            "input": asdict(self.spec),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRunSummary:
    """The result of a run.

    Attributes:
        queries: Queries asked, in this run or an earlier one.
        failed: Queries of these with a row without output.
        chunks: Chunks of all inputs.
        computed: Chunks computed by this run; the others existed.

    >>> ModelRunSummary(queries=10, failed=0, chunks=1, computed=0).computed
    0
    """

    queries: int
    failed: int
    chunks: int
    computed: int


@dataclass(frozen=True, slots=True)
class _Job:
    """One chunk of inputs to run the model over."""

    inputs: Path
    chunk: InputChunk
    answers: Path
    source: ModelSource
    sha256: str


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/clipper-stream/answers`, else `~/.cache/clipper-stream/answers`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipper-stream" / "answers"


def score_inputs(
    inputs: Path,
    source: ModelSource,
    out: Path,
    *,
    processes: int = 1,
    cache_dir: Path | None = None,
    chunk_rows: int = CHUNK_ROWS,
    fresh: bool = False,
    told: Told = lambda _done, _of: None,
) -> ModelRunSummary:
    """Run a model over all inputs, and write its answers.

    Args:
        inputs: A file of `replay export --inputs`, or a folder of such files.
        source: The model.
        out: The file to write or replace.
        processes: Number of processes; 0: this one.
        cache_dir: Where chunks are kept; None: `default_cache_dir`.
        chunk_rows: Queries of a chunk, at least 1.
        fresh: Whether to compute all chunks anew.
        told: Called after each chunk with the number of finished chunks and of all chunks.

    Raises:
        InvalidSetting: the inputs cannot be read.
        ModelNotLoaded: the model cannot be loaded.
        ModelUnavailable: the server of the model does not answer.
        ModelFailed: the model ended its process.
    """
    runtime = runtime_of(source.runtime)
    sha256 = source.sha256 or hashlib.sha256(runtime.read(source.uri)).hexdigest()
    described = source.described(sha256)
    jobs, digests = _jobs(
        inputs, source, sha256, _folder(described, cache_dir or default_cache_dir()), chunk_rows, fresh
    )
    open_jobs = [job for job in jobs if not job.answers.exists()]
    told(len(jobs) - len(open_jobs), len(jobs))
    if open_jobs and processes:
        _compute(open_jobs, len(jobs), processes, told)
    else:
        _compute_here(open_jobs, len(jobs), told)
    said = {"model": source.ref, **described, "inputs": digests}
    queries, failed = join_chunks(out, [job.answers for job in jobs], said)
    return ModelRunSummary(queries=queries, failed=failed, chunks=len(jobs), computed=len(open_jobs))


def _folder(described: Mapping[str, Any], cache_dir: Path) -> Path:
    return cache_dir / hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _jobs(
    inputs: Path, source: ModelSource, sha256: str, folder: Path, chunk_rows: int, fresh: bool
) -> tuple[list[_Job], list[str]]:
    """Return one job a chunk, and the digests of the input files."""
    jobs: list[_Job] = []
    digests: list[str] = []
    for path in input_files(inputs):
        digests.append(digest_of(path))
        kept = folder / f"{digests[-1]}-{chunk_rows}"
        if fresh:
            shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True, exist_ok=True)
        jobs += [
            _Job(path, chunk, kept / f"{chunk.number:06}.parquet", source, sha256)
            for chunk in planned(group_rows(path), chunk_rows)
        ]
    return jobs, digests


def _compute(jobs: list[_Job], of: int, processes: int, told: Told) -> None:
    pool = ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn"), initializer=_begin)
    try:
        running = {pool.submit(_run, job) for job in jobs}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()
            told(of - len(running), of)
    except BrokenProcessPool as error:
        what = f"model {jobs[0].source.ref} ended the process that ran it"
        raise ModelFailed(f"{what}; what was computed is kept: run it again, or try it with `model test`") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _compute_here(jobs: list[_Job], of: int, told: Told) -> None:
    for number, job in enumerate(jobs, 1):
        _run(job)
        told(of - len(jobs) + number, of)


# --- in the worker processes ------------------------------------------------------------------------------------------
def _begin() -> None:
    """End with the parent process, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(job: _Job) -> None:
    source = job.source
    named = json.dumps(
        [source.runtime, source.uri, job.sha256, dict(source.parameters), source.spec.dtype, source.spec.shape]
    )
    queries = read_queries(job.inputs, job.chunk)
    model = _loaded(named, source.files)
    write_chunk(job.answers, queries, answers_of(model, source.spec, queries.text, source.batch_rows))


@cache
def _loaded(named: str, files: FileRules) -> Model:
    """Load the model once a process."""
    runtime, uri, sha256, parameters, dtype, shape = json.loads(named)
    model = load_model(runtime, uri, sha256, parameters, files=files)
    warm_up(model, sample_rows(dtype, shape, 1))
    return model
