"""A file of decisions is whole or not there, and says what it is; that it comes back to the bit is in `property/`."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.columns import made_up
from builders.decision_files import write_decisions

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet import UnusableFile, new_file, read_chunks, read_facts


def some(n=5, seed=0):
    return made_up(np.random.default_rng(seed), n, contexts=(None, "u"))


def test_writing_that_is_interrupted_leaves_nothing(tmp_path):
    def interrupted():
        with new_file(tmp_path / "decisions.parquet") as beside:
            beside.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_has_another_name(tmp_path):
    with new_file(tmp_path / "folder/decisions.parquet") as beside:
        beside.write_bytes(b"whole")
        assert [path.name for path in (tmp_path / "folder").iterdir()] == [beside.name]
        assert beside.name.endswith(".partial")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["decisions.parquet"]


def test_nothing_is_overwritten_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "decisions.parquet"
    path.write_bytes(b"precious")
    with pytest.raises(UnusableFile, match="is there already"), new_file(path):
        pass
    assert path.read_bytes() == b"precious"
    with new_file(path, replaces=True) as beside:
        beside.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_a_file_without_decisions_can_be_read(tmp_path):
    none = write_decisions(tmp_path / "none.parquet", DecisionColumns.empty(["a:1"]))
    assert (read_facts(none).decisions, list(read_chunks(none))) == (0, [])


def cut_off(path):
    content = write_decisions(path, some(1_000)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def of_a_later_schema(path):
    said = {b"clipper-stream": json.dumps({"schema_version": 99}).encode()}
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(said), path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"PAR1"), "cannot be read"),
        (lambda path: path.write_bytes(b"no parquet at all"), "cannot be read"),
        (cut_off, "cannot be read"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), "no file of decisions"),
        (lambda path: path.mkdir(), "cannot be read"),
        (of_a_later_schema, "schema version 99, this code reads 4"),
    ],
    ids=["empty", "a beginning", "a text", "cut off", "other columns", "a folder", "a later schema"],
)
def test_what_is_no_file_of_decisions_is_refused(tmp_path, made, said):
    made(tmp_path / "x.parquet")
    with pytest.raises(UnusableFile, match=said):
        read_facts(tmp_path / "x.parquet")
