import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.input_files import write_inputs

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.replay.answer_files import read_answers, score_inputs
from clipper_stream.errors import ModelNotLoaded, SetupError
from clipper_topics.manifests import InputSpec, ModelManifest

SUM = "clipper_agents.examples.models:sum_of_row"


def source(uri=SUM, **given):
    return ModelManifest(**{"name": "sum", "uri": uri, "input": InputSpec(shape=[2]), **given})


@pytest.fixture
def scored(tmp_path):
    def run(inputs, model=None, **given):
        return score_inputs(inputs, model or source(), tmp_path / "out.parquet", **given)

    return run


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """Modules that can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return lambda name, text: (folder / f"{name}.py").write_text(text)


def test_every_input_is_answered_chunk_by_chunk(scored, tmp_path):
    told = []
    inputs = write_inputs(tmp_path / "in.parquet", 230, lost=(7,))
    outcome = scored(inputs, chunk_rows=40, told=lambda done, of: told.append((done, of)))
    assert outcome == (229, 0)
    assert told == [(0, 230), *((min(230, 40 * chunk) - 1, 230) for chunk in range(1, 7))]
    model, placed = read_answers(tmp_path / "out.parquet")
    assert model == "sum:1"
    outputs = [float(placed.answers.output[number]) for number in placed.number]
    places = [(number % 2, number // 2, number + 1.0) for number in range(230) if number != 7]
    assert outputs == [value for _, _, value in sorted(places)]


def test_rows_that_fail_are_counted_with_their_reason(scored, tmp_path, acme):
    acme("acme_picky", "def f(rows):\n    assert (rows[:, 0] != 3).all(), 'a three'\n    return rows.sum(axis=1)\n")
    outcome = scored(write_inputs(tmp_path / "in.parquet", 10), source("acme_picky:f"))
    assert outcome == (10, 1)
    answers = read_answers(tmp_path / "out.parquet")[1].answers
    assert [error for error in answers.error if error] == ["AssertionError: a three"]


def test_a_model_that_cannot_be_loaded_says_why(scored, tmp_path, acme):
    acme("acme_broken", "def f():\n    return []\n")
    with pytest.raises(ModelNotLoaded, match="cannot be called with rows"):
        scored(write_inputs(tmp_path / "in.parquet", 10), source("acme_broken:f"))


def test_a_run_that_is_broken_off_leaves_no_file(scored, tmp_path):
    def stop(done, _):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(write_inputs(tmp_path / "in.parquet", 100), chunk_rows=40, told=stop)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_inputs_without_inputs_are_refused(scored, tmp_path):
    path = tmp_path / "in.parquet"

    def refused(read, place, reason):
        with pytest.raises(SetupError, match=reason):
            read(place)

    refused(scored, path, "cannot be read")
    path.write_bytes(b"no parquet")
    refused(scored, path, "cannot be read")
    pq.write_table(pa.table({"partition": [0]}), path)
    refused(scored, path, "no column query_offset, input: export the decisions again")
    refused(read_answers, path, "no file of answers")


def test_the_command_says_what_it_did(tmp_path, capsys):
    inputs, out = write_inputs(tmp_path / "in.parquet", 60, lost=(5,)), str(tmp_path / "out.parquet")
    arguments = ["replay", "score", str(inputs), "--uri", SUM, "--shape", "2", "--out", out]
    arguments.append("--model")
    assert program.main([*arguments, "sum:2", "--json"]) == exits.OK
    expected = {"file": out, "model": "sum:2", "queries": 59, "failed": 0}
    assert json.loads(capsys.readouterr().out) == expected
    assert program.main([*arguments, "sum:2"]) == exits.OK
    assert "sum:2 to 59 queries, 0 of them" in capsys.readouterr().out
    assert np.array_equal(np.unique(read_answers(tmp_path / "out.parquet")[1].places >> 48), [0, 1])
    assert program.main([*arguments, "sum"]) == exits.USAGE
    assert "write NAME:VERSION" in capsys.readouterr().err
