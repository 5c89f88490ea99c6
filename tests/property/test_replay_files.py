"""What is written to Parquet comes back to the bit."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from builders.columns import in_words, some_columns
from hypothesis import given, settings

pytest.importorskip("pyarrow")
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
