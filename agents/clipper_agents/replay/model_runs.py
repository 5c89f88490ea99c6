"""A model run over a file of inputs: chunk by chunk, in several processes, into one file of answers.

Rules of this file:
- A run that is broken off leaves no file of answers; the next run computes all chunks.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from clipper_agents.replay.answer_files import Queries, read_queries, write_answers
from clipper_agents.replay.worker_pool import run_jobs
from clipper_stream.errors import ModelFailed
from clipper_stream.evaluation.log.new_model import CHUNK_ROWS, ModelAnswers, answers_of
from clipper_stream.evaluation.log.parquet import opened_parquet
from clipper_stream.models.model import Model
from clipper_stream.models.registry import load_model, runtime_of
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import warm_up
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.manifests import ModelManifest

Told: TypeAlias = Callable[[int, int], None]
"""Told how many queries are answered, and of how many decisions."""


class ModelRunSummary(NamedTuple):
    """The result of a run: queries asked, and those of them with a row without output."""

    queries: int
    failed: int


def score_inputs(
    inputs: Path,
    model: ModelManifest,
    out: Path,
    *,
    files: FileRules = STRICT,
    processes: int = 1,
    chunk_rows: int = CHUNK_ROWS,
    told: Told = lambda _done, _of: None,
) -> ModelRunSummary:
    """Run a model over all inputs, and write its answers.

    Args:
        inputs: A file of `replay export --inputs`.
        model: The model; without a digest its file is what it is now.
        out: The file to write or replace.
        files: What is permitted with model files.
        processes: Number of processes; 0: this one.
        chunk_rows: Queries of a chunk, at least 1.
        told: Called with the number of answered queries and of all decisions: before the first, and after each chunk.

    Raises:
        UnusableFile: the inputs cannot be read.
        ModelNotLoaded: the model cannot be loaded.
        ModelUnavailable: the server of the model does not answer.
        ModelFailed: the model ended its process.
    """
    of, done = opened_parquet(inputs).metadata.num_rows, 0
    sha256 = model.sha256 or hashlib.sha256(runtime_of(model.runtime).read(model.uri)).hexdigest()
    named = msgspec.structs.replace(model, sha256=sha256)
    jobs = ((named, files, queries) for queries in read_queries(inputs, chunk_rows))

    def answered() -> Iterator[tuple[Queries, ModelAnswers]]:
        nonlocal done
        told(0, of)
        for queries, answers in run_jobs(_run, jobs, processes):
            yield queries, answers
            done += len(queries.text)
            told(done, of)

    try:
        return ModelRunSummary(*write_answers(out, answered(), model.ref))
    except BrokenProcessPool as error:
        raise ModelFailed(f"model {model.ref} ended the process that ran it: try it with `model test`") from error


# --- in the worker processes ------------------------------------------------------------------------------------------
def _run(job: tuple[ModelManifest, FileRules, Queries]) -> tuple[Queries, ModelAnswers]:
    manifest, files, queries = job
    spec = RowSpec.of(manifest.input)
    named = json.dumps([manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters])
    return queries, answers_of(_loaded(named, spec, files), spec, queries.text, manifest.batch.max_rows)


@cache
def _loaded(named: str, spec: RowSpec, files: FileRules) -> Model:
    model = load_model(*json.loads(named), columns=spec.columns, files=files)
    warm_up(model, spec.sample(1))
    return model
