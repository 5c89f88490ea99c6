"""What is written to Parquet comes back to the bit, and the fold of columns is the serial one to the bit."""

import tempfile
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from builders.benchmarks import benchmark_module
from builders.columns import in_words, made_up, some_columns
from hypothesis import given, settings

from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState

pytest.importorskip("pyarrow")
COLUMN_FOLD = benchmark_module("rig.column_fold")
FoldedRow, fold_columns, fold_one_by_one = COLUMN_FOLD.FoldedRow, COLUMN_FOLD.fold_columns, COLUMN_FOLD.fold_one_by_one
FACTS = dict(application="app", loss_kind="zero_one", since_ms=1, offsets={0: (3, 9), 2: (0, 1)}, counts={"late": 2})


@settings(max_examples=80)
@given(parts=st.lists(some_columns(), max_size=4))
def test_what_is_written_comes_back_to_the_bit(parts):
    from builders.decision_files import write_decisions

    from clipper_stream.evaluation.log.parquet import read_chunks, read_facts

    with tempfile.TemporaryDirectory() as place:
        path = write_decisions(Path(place) / "decisions.parquet", *parts, **FACTS)
        facts, back = read_facts(path), list(read_chunks(path))
    assert facts.decisions == sum(map(len, parts))
    assert {name: getattr(facts, name) for name in FACTS} == FACTS
    written = [part for part in parts if len(part)]
    assert [in_words(got) for got in back] == [in_words(part.of_models(facts.models)) for part in written]


def as_bits(rows):
    return {
        place: (row.applied, row.offset, {model: repr(totals) for model, totals in row.state.totals.items()})
        for place, row in rows.items()
    }


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 40), max_size=4),
    started=st.booleans(),
)
def test_the_fold_of_columns_is_the_serial_one_to_the_bit(seed, sizes, started):
    """The serial fold is that of the router: `unit/replay/test_log_stories.py` says so."""
    rng = np.random.default_rng(seed)
    parts, first = [], 0
    for size in sizes:
        part = made_up(rng, size, contexts=(None, "u", "v"))
        served = np.where(np.isnan(part.served_propensity), 0.3, part.served_propensity)
        moved = np.where(part.feedback_offset >= 0, part.feedback_offset + first, -1)
        first += 3 * size
        parts.append(replace(part, served_propensity=served, feedback_offset=moved))
    before = SelectionState({"a:1": ModelTotals(3.0, 1 / 3, 7.1, 0.7), "old:1": ModelTotals(1.0, 1.0, 1.0, 1.0)})
    start = {(None, 0): FoldedRow(state=before, applied=3, offset=0), ("gone", 1): FoldedRow()} if started else {}
    expected = as_bits(fold_one_by_one(parts, make_policy("exp3"), start))
    shuffled = [parts[at] for at in rng.permutation(len(parts))]
    assert as_bits(fold_columns(shuffled, start)) == expected
    assert as_bits(fold_one_by_one(shuffled, make_policy("exp3"), start)) == expected
