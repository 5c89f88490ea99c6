import itertools
import threading

import numpy as np
import pytest
from builders.host import FunctionOfRow

from clipper_agents.host.request_server import MAX_RECORD_BYTES
from clipper_stream.errors import InvalidInput, InvalidSetting
from clipper_stream.models.row_spec import LISTED, NUMERIC, RowSpec
from clipper_stream.models.runtimes.model_files import STRICT
from clipper_stream.models.runtimes.python_function import FunctionModel
from clipper_stream.models.testing import assert_model, check_model
from clipper_stream.models.testing.laws import LAWS, MAX_OUTPUT_BYTES
from clipper_stream.models.testing.subprocess_check import load_in_subprocess

ROWS = [[1, 2], [3, 4], [5, 6], [7, 9]]
PYTHON = {"runtime": "python", "sha256": None, "parameters": {}, "files": STRICT}
THREAD = threading.get_ident()
PRINTS = "print('hello')\ndef f(rows): print('rows'); return rows.sum(axis=1)"
NUMBERS = itertools.count()
BREAKS = {
    "answers_every_sample": FunctionModel(lambda rows: [float("nan")] * len(rows)),
    "inputs_are_left_alone": FunctionModel(lambda rows: rows.__iadd__(1).sum(axis=1)),
    "a_batch_is_as_row_by_row": FunctionModel(lambda rows: rows.sum(axis=1) - rows.mean()),
    "the_same_row_has_the_same_output": FunctionModel(lambda rows: [next(NUMBERS) for _ in rows]),
    "another_thread_can_ask": FunctionModel(lambda rows: rows.sum(axis=1) if threading.get_ident() == THREAD else None),
    "a_bad_row_fails_alone": FunctionModel(lambda rows: rows.sum(axis=1) * (1 if rows.max() < 1e9 else 2)),
    "outputs_can_be_written": FunctionOfRow(lambda row: "x" * 600_000),
}
TWICE = {"the_same_row_has_the_same_output", "another_process_has_the_same_output"}
COMPARED = {"a_batch_is_as_row_by_row", "another_thread_can_ask", "a_bad_row_fails_alone"}
SUMS = FunctionOfRow(lambda row: float(row.sum()))


def laws(state, model, rows=ROWS, **how):
    report = check_model(model, rows, **{"shape": [2], **how})
    return {finding.law for finding in report.findings if finding.state == state}


@pytest.mark.parametrize("law", sorted(set(LAWS) - {"another_process_has_the_same_output"}))
def test_a_model_that_breaks_a_law_is_found_and_told_what_to_do(law):
    assert law in laws("broken", BREAKS[law])
    with pytest.raises(AssertionError, match=rf"the model breaks \d+ laws:[\s\S]*\n- {law}: .+; .+"):
        assert_model(BREAKS[law], ROWS, shape=[2])


def test_a_model_that_depends_on_the_hash_seed_is_found_in_another_process(module):
    model = f"{module('def f(rows): return [hash(row) % 1000003 for row in rows]')}:f"
    report = check_model(model, ["a", "b", "c"], dtype="text")
    assert [finding.law for finding in report.broken] == ["another_process_has_the_same_output"]
    assert "do not use hash() of text" in report.broken[0].found
    assert laws("broken", model, ["a", "b"], dtype="text", shape=None, deterministic=False) == set()


def test_another_number_of_outputs_than_rows_and_an_output_by_its_place_in_the_batch_are_found():
    lacking = FunctionModel(lambda rows: [1] if len(rows) == 1 else [1] * (len(rows) - 1))
    assert "answers_every_sample" in laws("broken", lacking)
    assert "a_batch_is_as_row_by_row" in laws("broken", FunctionModel(lambda rows: list(range(len(rows)))))


PAIR = RowSpec("float32", [2])
SUBPROCESSES = {
    "it hangs": ("import threading; threading.Event().wait()", 0.5, "no answer after 0.5 s"),
    "it raises": ("raise ImportError('libmodel')", 60.0, r"model '\w+:f': importing \w+ failed with ImportError"),
    "it ends the process": ("import os; os._exit(7)", 60.0, "exit code 7"),
}


@pytest.mark.parametrize("name", SUBPROCESSES)
def test_a_model_that_another_process_cannot_load_within_a_bound_is_told(module, name):
    code, within_s, said = SUBPROCESSES[name]
    with pytest.raises(OSError, match=f"^{said}"):
        load_in_subprocess(PYTHON | {"uri": f"{module(code)}:f"}, PAIR, within_s=within_s)


def test_a_model_that_is_right_keeps_every_law_though_it_prints(module):
    model = f"{module(PRINTS)}:f"
    load_in_subprocess(PYTHON | {"uri": model}, PAIR)
    report = check_model(model, ROWS, shape=[2])
    assert report.broken == []
    assert {finding.state for finding in report.findings} == {"kept"}
    assert [finding.law for finding in report.findings] == ["it_loads", *LAWS]
    assert_model(model, ROWS, shape=[2], deterministic=False)


@pytest.mark.parametrize("dtype", [*NUMERIC, "text", "bytes"])
def test_rows_are_made_for_every_dtype_that_can_be_guessed(dtype):
    assert laws("broken", FunctionOfRow(len), None, dtype=dtype, shape=[3]) == set()
    rows = RowSpec(dtype, (3,)).random(16)
    assert len(rows) == 16
    assert np.array_equal(rows, RowSpec(dtype, (3,)).random(16)), "the same for the same seed"


def test_json_rows_have_to_be_given():
    assert set(LISTED) - {"text", "bytes"} == {"json", "table"}
    with pytest.raises(InvalidSetting, match="cannot be guessed: give some"):
        check_model(FunctionOfRow(len), dtype="json")
    assert laws("broken", FunctionOfRow(len), [{"a": 1}, {}], dtype="json", shape=None) == set()


def test_a_law_that_cannot_be_looked_at_is_not_said_to_hold():
    assert laws("unknown", SUMS, deterministic=False) == TWICE
    nothing = FunctionOfRow(lambda row: None)
    assert laws("broken", nothing) == {"answers_every_sample", "outputs_can_be_written"}
    assert laws("unknown", nothing) == TWICE | COMPARED


def test_a_model_that_cannot_be_loaded_is_a_finding_too():
    report = check_model("acme.nothing:here", ROWS, shape=[2])
    assert [finding.law for finding in report.broken] == ["it_loads"]
    assert "install the package" in report.broken[0].found
    assert {finding.state for finding in report.findings[1:]} == {"unknown"}


def test_numbers_are_the_same_within_the_tolerance():
    model = FunctionModel(lambda rows: rows.sum(axis=1) * (1 + 1e-4 * (len(rows) > 1)))
    assert laws("broken", model) == {"a_batch_is_as_row_by_row"}
    assert laws("broken", model, tolerance=1e-3) == set()


@pytest.mark.parametrize(
    ("samples", "error"), [([[1, 2]], InvalidSetting), ([], InvalidSetting), ([[1], [2]], InvalidInput)]
)
def test_samples_that_cannot_be_compared_or_do_not_fit_are_refused(samples, error):
    with pytest.raises(error):
        check_model(SUMS, samples, shape=[2])


def test_the_size_of_an_output_is_that_of_a_hosts_record():
    assert MAX_OUTPUT_BYTES == MAX_RECORD_BYTES
