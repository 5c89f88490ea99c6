"""Where processes are not the question, the run is in this one: another takes a second to start."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.input_files import write_inputs

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.replay.answer_files import read_answers
from clipper_agents.replay.model_runs import ModelSource, score_inputs
from clipper_stream.errors import InvalidSetting, ModelFailed, ModelNotLoaded
from clipper_stream.query.inputs import RowSpec

SUM = "clipper_agents.examples.models:sum_of_row"
SPEC = RowSpec("float32", (2,))


def source(uri=SUM, **given):
    return ModelSource(**{"ref": "sum:1", "runtime": "python", "uri": uri, "spec": SPEC, **given})


@pytest.fixture
def scored(tmp_path):
    def run(inputs, model=None, processes=0, **given):
        places = {"out": tmp_path / "out.parquet", "cache_dir": tmp_path / "cache"}
        return score_inputs(inputs, model or source(), processes=processes, **places, **given)

    return run


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A module that is rewritten from test to test, importable here and in processes that are started."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return lambda name, text: (folder / f"{name}.py").write_text(text)


def test_every_input_is_answered_by_several_processes(scored, tmp_path):
    told = []
    inputs = write_inputs(tmp_path / "in.parquet", 230, lost=(7,))
    outcome = scored(inputs, processes=2, chunk_rows=40, told=lambda done, of: told.append((done, of)))
    assert (outcome.queries, outcome.failed, outcome.chunks, outcome.computed) == (229, 0, 9, 9)
    assert (told[0], told[-1]) == ((0, 9), (9, 9))
    said, placed = read_answers(tmp_path / "out.parquet")
    assert said["model"] == "sum:1"
    outputs = [float(placed.answers.output[number]) for number in placed.number]
    places = [(number % 2, number // 2, number + 1.0) for number in range(230) if number != 7]
    assert outputs == [value for _, _, value in sorted(places)]


def test_a_second_run_computes_nothing(scored, tmp_path):
    inputs = write_inputs(tmp_path / "in.parquet", 100)
    first = scored(inputs)
    before = (tmp_path / "out.parquet").read_bytes()
    again = scored(inputs)
    assert (first.computed, again.computed, again.queries) == (2, 0, 100)
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert scored(inputs, fresh=True).computed == 2


@pytest.mark.parametrize(
    ("rows", "other"),
    [
        (10, {"uri": "clipper_agents.examples.models:most_common_digit"}),
        (10, {"spec": RowSpec("float64", (2,))}),
        (11, {}),
    ],
)
def test_what_is_kept_belongs_to_this_model_and_these_inputs(scored, tmp_path, rows, other):
    scored(write_inputs(tmp_path / "in.parquet", 10))
    assert scored(write_inputs(tmp_path / "in.parquet", rows), source(**other)).computed == 1


def test_other_bytes_of_the_module_are_another_model(scored, tmp_path, acme):
    acme("acme_changing", "def f(rows):\n    return [1 for row in rows]\n")
    inputs = write_inputs(tmp_path / "in.parquet", 10)
    scored(inputs, source("acme_changing:f"), processes=1)
    acme("acme_changing", "def f(rows):\n    return [2222 for row in rows]\n")
    assert scored(inputs, source("acme_changing:f"), processes=1).computed == 1
    assert set(read_answers(tmp_path / "out.parquet")[1].answers.output) == {"2222"}


def test_rows_that_fail_are_counted_with_their_reason(scored, tmp_path, acme):
    acme("acme_picky", "def f(rows):\n    assert (rows[:, 0] != 3).all(), 'a three'\n    return rows.sum(axis=1)\n")
    outcome = scored(write_inputs(tmp_path / "in.parquet", 10), source("acme_picky:f"))
    assert (outcome.queries, outcome.failed) == (10, 1)
    answers = read_answers(tmp_path / "out.parquet")[1].answers
    assert [error for error in answers.error if error] == ["AssertionError: a three"]


def test_a_model_that_cannot_be_loaded_says_why(scored, tmp_path, acme):
    acme("acme_broken", "def f():\n    return []\n")
    with pytest.raises(ModelNotLoaded, match="cannot be called with rows"):
        scored(write_inputs(tmp_path / "in.parquet", 10), source("acme_broken:f"))


def test_a_model_that_ends_its_process_keeps_what_was_computed(scored, tmp_path, acme):
    text = "import os\ndef f(rows):\n    if (rows[:, 0] == 70).any(): os._exit(3)\n    return rows.sum(axis=1)\n"
    acme("acme_deadly", text)
    inputs = write_inputs(tmp_path / "in.parquet", 100)
    with pytest.raises(ModelFailed, match="sum:1 ended the process that ran it; what was computed is kept"):
        scored(inputs, source("acme_deadly:f"), processes=1)
    assert len(list((tmp_path / "cache").rglob("000000.parquet"))) == 1
    assert not (tmp_path / "out.parquet").exists()


def test_a_folder_of_files_is_one_log(scored, tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(2):
        write_inputs(folder / f"{number:05}.parquet", 10 + number)
    assert scored(folder).queries == 21


def test_inputs_without_inputs_are_refused(scored, tmp_path):
    path, empty = tmp_path / "in.parquet", tmp_path / "empty"
    empty.mkdir()

    def refused(read, place, reason):
        with pytest.raises(InvalidSetting, match=reason):
            read(place)

    refused(scored, path, "cannot be read")
    path.write_bytes(b"no parquet")
    refused(scored, path, "cannot be read")
    refused(scored, empty, "has no file")
    pq.write_table(pa.table({"partition": [0]}), path)
    refused(scored, path, "no column query_offset, input: export the decisions again")
    refused(read_answers, path, "no file of answers")


def test_the_command_says_what_it_did(tmp_path, capsys):
    inputs, out = write_inputs(tmp_path / "in.parquet", 60, lost=(5,)), str(tmp_path / "out.parquet")
    arguments = ["replay", "score", str(inputs), "--uri", SUM, "--shape", "2", "--processes", "0", "--out", out]
    arguments += ["--cache-dir", str(tmp_path / "cache"), "--model"]
    assert program.main([*arguments, "sum:2", "--json"]) == exits.OK
    expected = {"file": out, "model": "sum:2", "queries": 59, "failed": 0, "chunks": 2, "computed": 2}
    assert json.loads(capsys.readouterr().out) == expected
    assert program.main([*arguments, "sum:2"]) == exits.OK
    assert "0 chunks computed, 2 were there already" in capsys.readouterr().out
    assert np.array_equal(np.unique(read_answers(tmp_path / "out.parquet")[1].places >> 48), [0, 1])
    assert program.main([*arguments, "sum"]) == exits.USAGE
    assert "write NAME:VERSION" in capsys.readouterr().err
