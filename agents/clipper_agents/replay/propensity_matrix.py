"""Whom each decision of a chunk asked, as matrices: for the answer, and for the log by its audit.

Rules of this file:
- An audit is about a decision when it names the same record of the query, and the prediction says that one follows; the
  first counts. One behind the horizon is as late as feedback there.
- A model that both name has said what the prediction says, as for the learner.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipper_agents.replay.chunk import AUDITED, NO_ANSWER, Arrays, Chunk
from clipper_agents.replay.patches import AuditEntry, AuditPatch
from clipper_stream.evaluation.log.columns import UNKNOWN, Bools, Codes, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class PropensityMatrix:
    """Arrays of shape (decisions, models): who was asked with which probability, and what each said.

    Attributes:
        propensity: Probability of asking, 0 where it was not asked.
        served: Asked for the answer.
        latency_ms: NaN where no output came.
        output: Number of the value, -1 where none came.
        lone: Column of the model that alone was asked for the answer, -1 for none, or several, (n,).
        lone_answered: Whether that one answered, (n,).
        served_propensity: Of whom was asked for the answer; NaN where nobody was, (n,).
    """

    propensity: Floats
    served: Bools
    latency_ms: Floats
    output: Codes
    lone: Ints
    lone_answered: Bools
    served_propensity: Floats


def asked_of(chunk: Chunk, audits: Sequence[AuditPatch], horizon_ms: float, counts: Counter[str]) -> PropensityMatrix:
    """Return whom the chunk's decisions asked.

    Args:
        chunk: Models and values that only audits name are added to its words.
        audits: In log order.
        horizon_ms: How long after its decision an audit still counts.
        counts: `no_audit` is counted: decisions whose audit was not found.
    """
    besides = _entries_of(chunk, _own(chunk, audits, horizon_ms, counts))
    n, m = len(chunk), len(chunk.models)
    propensity, latency_ms = np.zeros((n, m)), np.full((n, m), np.nan)
    served, output = np.zeros((n, m), np.bool_), np.full((n, m), NO_ANSWER, np.int32)
    for entries in (besides, chunk.entries):  # the later one stands
        at = entries["row"], entries["model"]
        came = entries["output"] != NO_ANSWER
        propensity[at], served[at], output[at] = entries["propensity"], entries["served"], entries["output"]
        latency_ms[at] = np.where(came, entries["latency_ms"], np.nan)
    return _with_lone(chunk, propensity, served, latency_ms, output)


def _with_lone(chunk: Chunk, propensity: Floats, served: Bools, latency_ms: Floats, output: Codes) -> PropensityMatrix:
    count, rows = served.sum(axis=1), np.arange(len(chunk))
    lone = np.where(count == 1, served.argmax(axis=1) if served.shape[1] else UNKNOWN, UNKNOWN)
    alone = np.flatnonzero(lone >= 0)
    own = np.where(count > 0, 1.0, np.nan)
    own[alone] = propensity[rows[alone], lone[alone]]
    lone_answered = np.zeros(len(chunk), np.bool_)
    lone_answered[alone] = output[rows[alone], lone[alone]] != NO_ANSWER
    stated = chunk.rows["served_propensity"]
    return PropensityMatrix(
        propensity=propensity,
        served=served,
        latency_ms=latency_ms,
        output=output,
        lone=lone,
        lone_answered=lone_answered,
        served_propensity=np.where(np.isnan(stated), own, stated),
    )


def _own(chunk: Chunk, audits: Sequence[AuditPatch], horizon_ms: float, counts: Counter[str]) -> list[AuditPatch]:
    """Return the first valid audit of each decision that has one."""
    own: dict[int, AuditPatch] = {}
    audited = (chunk.rows["flags"] & AUDITED) != 0
    query_offset, latest_ms = chunk.rows["query_offset"], chunk.rows["logged_ms"] + horizon_ms
    for one in sorted(audits, key=lambda audit: audit.offset):
        row = one.row - chunk.first_row
        if audited[row] and query_offset[row] == one.query_offset and one.at_ms <= latest_ms[row]:
            own.setdefault(row, one)
    counts["no_audit"] += int(audited.sum()) - len(own)
    return list(own.values())


def _entries_of(chunk: Chunk, audits: Sequence[AuditPatch]) -> Arrays:
    models = chunk.models
    found: list[tuple[int, AuditEntry]] = [
        (one.row - chunk.first_row, entry) for one in audits for entry in one.entries
    ]
    came = np.array([entry.answered for _, entry in found], np.bool_)
    return {
        "row": np.array([row for row, _ in found], np.int32),
        "model": np.array([models[entry.model] for _, entry in found], np.int32),
        "propensity": np.array([entry.propensity for _, entry in found], np.float64),
        "latency_ms": np.array([entry.latency_ms for _, entry in found], np.float64),
        "output": np.where(came, chunk.values.codes([entry.output for _, entry in found]), NO_ANSWER).astype(np.int32),
        "served": np.zeros(len(found), np.bool_),
    }
