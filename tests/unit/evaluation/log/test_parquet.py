"""A file of decisions is whole or not there, and says what it is; that it comes back to the bit is in `property/`."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.columns import made_up

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet import FileFacts, UnusableFile, read_chunks_with_inputs, read_facts, writing

FACTS = FileFacts(application="app", loss_kind="zero_one")


def some(n=5, seed=0):
    return made_up(np.random.default_rng(seed), n, contexts=(None, "u"))


@pytest.mark.parametrize("name", ["decisions.parquet", "decisions"])
def test_writing_that_is_interrupted_leaves_nothing(tmp_path, name):
    def interrupted():
        with writing(tmp_path / name, FACTS) as writer:
            writer.write(some())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["decisions.parquet", "decisions"])
def test_what_is_being_written_has_another_name_and_cannot_be_read(tmp_path, name):
    with writing(tmp_path / name, FACTS) as writer:
        writer.write(some())
        (beside,) = tmp_path.iterdir()
        assert beside.name.endswith(".partial")
        with pytest.raises(UnusableFile):
            read_facts(beside)
    assert read_facts(tmp_path / name).decisions == 5


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "decisions.parquet"
    path.write_bytes(b"precious")
    with pytest.raises(UnusableFile, match="is there already"), writing(path, FACTS):
        pass
    assert path.read_bytes() == b"precious"


def test_a_folder_is_of_several_files_and_each_says_what_is_in_it(tmp_path):
    with writing(tmp_path / "decisions", FACTS, file_rows=8) as writer:
        for seed in range(4):
            writer.write(some(seed=seed))
    files = sorted(path.name for path in (tmp_path / "decisions").iterdir())
    assert files == ["00000.parquet", "00001.parquet"]
    assert read_facts(tmp_path / "decisions" / files[1]).decisions == 10
    assert read_facts(tmp_path / "decisions").decisions == 20
    assert [len(columns) for columns, _ in read_chunks_with_inputs(tmp_path / "decisions")] == [5, 5, 5, 5]


def test_a_file_without_decisions_can_be_read(tmp_path):
    with writing(tmp_path / "none.parquet", FACTS) as writer:
        writer.write(DecisionColumns.empty(["a:1"]))
    none = tmp_path / "none.parquet"
    assert (read_facts(none).decisions, list(read_chunks_with_inputs(none))) == (0, [])


def test_of_columns_that_are_not_wanted_nothing_is_known(tmp_path):
    columns = some()
    with writing(tmp_path / "some.parquet", FACTS) as writer:
        writer.write(columns)
    ((back, _),) = read_chunks_with_inputs(tmp_path / "some.parquet", ("loss", "at_ms"))
    assert np.array_equal(back.loss, columns.of_models(back.models).loss, equal_nan=True)
    assert np.array_equal(back.at_ms, columns.at_ms)
    assert not back.served.any()
    assert (back.feedback_offset == -1).all()
    assert np.isnan(back.answer_loss).all()
    assert (back.propensity == 0.0).all()


def cut_off(path):
    with writing(path, FACTS) as writer:
        writer.write(some(1_000))
    content = path.read_bytes()
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
        (lambda path: path.mkdir(), r"no file \.parquet"),
        (of_a_later_schema, "schema version 99, this code reads 2"),
    ],
    ids=["empty", "a beginning", "a text", "cut off", "other columns", "an empty folder", "a later schema"],
)
def test_what_is_no_file_of_decisions_is_refused(tmp_path, made, said):
    made(tmp_path / "x.parquet")
    with pytest.raises(UnusableFile, match=said):
        read_facts(tmp_path / "x.parquet")
